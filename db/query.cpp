#include "db/query.h"

#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <string_view>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>

#include "db/sqlite.h"

namespace db {
namespace {

using Clock = std::chrono::steady_clock;

/// Of one value: far above what we store, far below what a machine has.
constexpr int kMaxValueBytes = 64 << 20;

bool describes_only(std::string_view pragma) {
  static constexpr std::array kNames = {"table_info",   "table_xinfo",    "table_list",   "index_list",
                                        "index_info",   "index_xinfo",    "foreign_keys", "foreign_key_list",
                                        "user_version", "application_id", "journal_mode", "compile_options"};
  return std::find(kNames.begin(), kNames.end(), pragma) != kNames.end();
}

/// SQLite asks this for everything a statement would do. What is not named is denied.
int authorise(void*, int action, const char* first, const char* second, const char*, const char*) {
  switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE: return SQLITE_OK;
    // Table-valued functions declare their columns so; a real UPDATE of the schema is refused elsewhere.
    case SQLITE_UPDATE: return first && std::string_view(first) == "sqlite_master" ? SQLITE_OK : SQLITE_DENY;
    case SQLITE_FUNCTION:
      return second && std::string_view(second) == "load_extension" ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_PRAGMA: {
      // table_info and its like take the table's name; the others are allowed without an argument only.
      const std::string_view name = first ? first : "";
      const bool takes_name = name.find("_info") != name.npos || name.find("_xinfo") != name.npos ||
                              name.find("_list") != name.npos;
      return describes_only(name) && (!second || takes_name) ? SQLITE_OK : SQLITE_DENY;
    }
    default: return SQLITE_DENY;
  }
}

int past_deadline(void* deadline) {
  return Clock::now() > *static_cast<Clock::time_point*>(deadline) ? 1 : 0;
}

std::string hex(const SQLite::Column& column) {
  std::string text;
  const auto* bytes = static_cast<const unsigned char*>(column.getBlob());
  for (int i = 0; i < column.getBytes(); ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

Value value_of(const SQLite::Column& column) {
  if (column.isNull()) return std::monostate{};
  if (column.isInteger()) return column.getInt64();
  if (column.isFloat()) return column.getDouble();
  if (column.isBlob()) return hex(column);
  return column.getString();
}

/// `name`, with a number behind it where a column is called so already: JSON has room for one.
std::string new_name(const std::vector<std::string>& taken, const std::string& name) {
  std::string unique = name;
  for (int i = 1; std::find(taken.begin(), taken.end(), unique) != taken.end(); ++i)
    unique = fmt::format("{}:{}", name, i);
  return unique;
}

void bind(SQLite::Statement& statement, int index, const Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) statement.bind(index, *integer);
  if (const auto* real = std::get_if<double>(&value)) statement.bind(index, *real);
  if (const auto* text = std::get_if<std::string>(&value)) statement.bind(index, *text);
}

/// Refuses `sql` when it holds more than one statement.
void check_single(sqlite3* handle, const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  const char* rest = nullptr;
  const int code = sqlite3_prepare_v2(handle, sql.c_str(), -1, &statement, &rest);
  sqlite3_finalize(statement);
  if (code == SQLITE_OK && !statement) throw StoreError(Trouble::query, "query: there is no statement");
  while (code == SQLITE_OK && *rest) {  // more semicolons and comments are no statement
    const char* found = rest;
    const int next = sqlite3_prepare_v2(handle, found, -1, &statement, &rest);
    sqlite3_finalize(statement);
    if (next != SQLITE_OK || statement)
      throw StoreError(Trouble::query, fmt::format("query: one statement at a time; found also: {}", found));
  }
}

}  // namespace

Table run_query(const std::filesystem::path& file, const std::string& sql,
                const std::vector<Value>& parameters, const QueryLimits& limits) {
  const auto database = open_reader(file);
  sqlite3_set_authorizer(database->getHandle(), authorise, nullptr);
  sqlite3_limit(database->getHandle(), SQLITE_LIMIT_LENGTH, kMaxValueBytes);
  sqlite3_limit(database->getHandle(), SQLITE_LIMIT_ATTACHED, 0);
  auto deadline = Clock::now() +
                  std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(limits.seconds));
  sqlite3_progress_handler(database->getHandle(), 10'000, past_deadline, &deadline);
  check_single(database->getHandle(), sql);
  try {
    SQLite::Statement select(*database, sql);
    for (std::size_t i = 0; i < parameters.size(); ++i) bind(select, static_cast<int>(i) + 1, parameters[i]);
    Table table;
    for (int i = 0; i < select.getColumnCount(); ++i)
      table.columns.push_back(new_name(table.columns, select.getColumnName(i)));
    std::int64_t bytes = 0;
    while (select.executeStep()) {
      if (static_cast<std::int64_t>(table.rows.size()) >= limits.max_rows)
        throw StoreError(Trouble::query,
                         fmt::format("query: more than {} rows; add a LIMIT", limits.max_rows));
      auto& row = table.rows.emplace_back();
      for (int i = 0; i < select.getColumnCount(); ++i) {
        row.push_back(value_of(select.getColumn(i)));
        const auto* text = std::get_if<std::string>(&row.back());
        bytes += static_cast<std::int64_t>(sizeof(Value) + (text ? text->size() : 0));
      }
      if (bytes > limits.max_bytes)
        throw StoreError(Trouble::query,
                         fmt::format("query: the rows take more than {} MiB; add a LIMIT, or group them",
                                     limits.max_bytes >> 20));
    }
    return table;
  } catch (const SQLite::Exception& error) {
    switch (error.getErrorCode() & 0xff) {
      case SQLITE_INTERRUPT:
        throw StoreError(Trouble::query,
                         fmt::format("query: took longer than {} s and was stopped", limits.seconds));
      case SQLITE_IOERR:
      case SQLITE_CANTOPEN:
      case SQLITE_BUSY:
      case SQLITE_CORRUPT:
      case SQLITE_NOTADB:
      case SQLITE_NOMEM: rethrow_as_store_error(file);
      default:  // the statement's fault; a refused CREATE comes without SQLITE_AUTH
        throw StoreError(Trouble::query,
                         fmt::format("query: {}{}", error.what(),
                                     std::string_view(error.what()) == "not authorized"
                                         ? "; only reading is allowed (SELECT, EXPLAIN, PRAGMA table_info)"
                                         : ""));
    }
  }
}

}  // namespace db
