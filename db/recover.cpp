#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "db/health.h"
#include "db/sqlite.h"

namespace db {
namespace {

namespace fs = std::filesystem;

constexpr std::streamoff kHeaderBytes = 100;

/// Parents before children. What is made anew (owner, identity) or by triggers (studies) is left out.
constexpr std::array kTables = {"study",  "run",     "trial",  "attempt",      "curve_chunk", "branch", "censored",
                                "sample", "optimum", "target", "target_group", "drift_check", "event"};

/// A folder for copies that are worked on, gone with this.
struct Workshop {
  explicit Workshop(const fs::path& beside) : folder(beside.string() + fmt::format(".new-{}", ::getpid())) {
    fs::create_directory(folder);
  }
  ~Workshop() {
    std::error_code ignored;
    fs::remove_all(folder, ignored);
  }
  fs::path folder;
};

// --- pages ---

/// What a copy gets from a new, empty database of this schema before it is read.
enum class Transplant { nothing, header, schema };

/// Pages of a new database that hold the schema: all but the roots of its tables and indices.
std::vector<std::int64_t> schema_pages(const fs::path& fresh) {
  SQLite::Database database(fresh.string(), SQLite::OPEN_READONLY);
  const auto num_pages = database.execAndGet("PRAGMA page_count").getInt64();
  std::vector<bool> is_root(static_cast<std::size_t>(num_pages) + 1);
  SQLite::Statement roots(database, "SELECT rootpage FROM sqlite_master WHERE rootpage > 0");
  while (roots.executeStep()) is_root[static_cast<std::size_t>(roots.getColumn(0).getInt64())] = true;
  std::vector<std::int64_t> pages;
  for (std::int64_t page = 1; page <= num_pages; ++page)
    if (!is_root[static_cast<std::size_t>(page)]) pages.push_back(page);
  return pages;
}

void put_big_endian(std::fstream& file, std::streamoff at, std::uint32_t value) {
  std::array<char, 4> bytes;
  for (std::size_t i = 0; i < 4; ++i) bytes[i] = static_cast<char>(value >> (24 - 8 * i));
  file.seekp(at).write(bytes.data(), bytes.size());
}

void transplant(const fs::path& copy, const fs::path& fresh, Transplant what) {
  constexpr std::streamoff kPage = 4096;  // SQLite's default, which nobody changes
  std::ifstream from(fresh, std::ios::binary);
  std::fstream to(copy, std::ios::binary | std::ios::in | std::ios::out);
  const auto move = [&](std::streamoff at, std::streamoff size) {
    std::vector<char> bytes(static_cast<std::size_t>(size));
    from.seekg(at).read(bytes.data(), size);
    to.seekp(at).write(bytes.data(), size);
  };
  if (what == Transplant::header) move(0, kHeaderBytes);
  if (what == Transplant::schema)
    for (const auto page : schema_pages(fresh)) move((page - 1) * kPage, kPage);
  put_big_endian(to, 28, static_cast<std::uint32_t>(fs::file_size(copy) / kPage));
  put_big_endian(to, 32, 0);  // free pages: none that anybody needs
  put_big_endian(to, 36, 0);
}

// --- rows ---

/// SQLiteCpp does not hand values over as they are.
struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using RawStatement = std::unique_ptr<sqlite3_stmt, Finalize>;
RawStatement prepare(SQLite::Database& database, const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(database.getHandle(), sql.c_str(), -1, &statement, nullptr);
  if (code != SQLITE_OK) throw SQLite::Exception(database.getHandle(), code);
  return RawStatement(statement);
}
std::string text_of(sqlite3_stmt* row, int column) {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(row, column));
  return text ? text : "";
}

/// Copies tables from a damaged database, around what cannot be read.
class Salvage {
 public:
  Salvage(SQLite::Database& from, SQLite::Database& to, const SpecCodec& codec) : from_(from), to_(to), codec_(codec) {}

  RecoveredTable copy(const std::string& table) {
    result_ = {.table = table};
    columns_ = common_columns(table);
    if (columns_.empty()) return result_;  // an older schema did not have it
    const bool rowid = to_.execAndGet("SELECT sql NOT LIKE '%WITHOUT ROWID%' FROM sqlite_master WHERE name = '" + table +
                                      "'").getInt() != 0;
    SQLite::Statement first(to_, "SELECT name, type FROM pragma_table_info(?) WHERE pk = 1");
    first.bind(1, table);
    const bool has_key = first.executeStep();
    const std::string key = rowid ? "rowid" : has_key ? first.getColumn(0).getString() : "";
    insert_ = prepare(
        to_, fmt::format("INSERT OR IGNORE INTO {} (\"{}\") VALUES (?{})", table, fmt::join(columns_, "\", \""),
                         fmt::join(std::vector<std::string>(columns_.size() - 1, ", ?"), "")));
    select_ = fmt::format("SELECT {}, \"{}\" FROM {} NOT INDEXED", key, fmt::join(columns_, "\", \""), table);
    if (rowid || first.getColumn(1).getString() == "INTEGER")
      copy_by_number(key);
    else
      copy_from_both_ends(key);
    return result_;
  }

 private:
  std::vector<std::string> common_columns(const std::string& table) {
    std::vector<std::string> names;
    SQLite::Statement wanted(to_, "SELECT name FROM pragma_table_info(?)");
    SQLite::Statement there(from_, "SELECT 1 FROM pragma_table_info(?) WHERE name = ?");
    wanted.bind(1, table);
    while (wanted.executeStep()) {
      there.bind(1, table);
      there.bind(2, wanted.getColumn(0).getString());
      if (there.executeStep()) names.push_back(wanted.getColumn(0).getString());
      there.reset();
    }
    return names;
  }

  /// The hash of everything about a trial is its key: a row that was damaged and can still be read shows.
  bool is_true(sqlite3_stmt* row) {
    if (result_.table != "trial") return true;
    std::string key, spec;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (columns_[i] == "key") key = text_of(row, static_cast<int>(i) + 1);
      if (columns_[i] == "spec") spec = text_of(row, static_cast<int>(i) + 1);
    }
    try {
      return sweeps::trial_key(codec_.from_text(spec)) == key;
    } catch (const std::exception&) {
      return false;
    }
  }

  void insert(sqlite3_stmt* row) {
    sqlite3_stmt* target = insert_.get();
    for (int i = 0; i < static_cast<int>(columns_.size()); ++i)
      sqlite3_bind_value(target, i + 1, sqlite3_column_value(row, i + 1));
    const auto before = to_.getTotalChanges();
    const int code = is_true(row) ? sqlite3_step(target) : SQLITE_CONSTRAINT;
    sqlite3_reset(target);
    if (code == SQLITE_DONE)
      result_.rows += to_.getTotalChanges() > before;
    else if ((code & 0xff) == SQLITE_CONSTRAINT || (code & 0xff) == SQLITE_MISMATCH)
      ++result_.left_out;
    else
      throw SQLite::Exception(to_.getHandle(), code);
  }

  /// Steps through `statement`; false when it breaks off at a page that cannot be read.
  bool read(sqlite3_stmt* statement, const std::function<bool()>& row) {
    while (true) {
      const int code = sqlite3_step(statement);
      if (code == SQLITE_DONE) return true;
      if (code != SQLITE_ROW) return false;
      if (!row()) return true;
    }
  }

  /// The table's key rises: a page that cannot be read is a stretch of keys, whose end is looked for.
  void copy_by_number(const std::string& key) {
    constexpr std::int64_t kLinear = 64, kFarthest = std::int64_t{1} << 61;
    const auto from_key = prepare(from_, fmt::format("{} WHERE {} >= ? ORDER BY {}", select_, key, key));
    const auto seek = [&](std::int64_t at) {
      sqlite3_reset(from_key.get());
      sqlite3_bind_int64(from_key.get(), 1, at);
      return from_key.get();
    };
    const auto readable = [&](std::int64_t at) { return read(seek(at), [] { return false; }); };
    std::int64_t next = std::numeric_limits<std::int64_t>::min(), barren = 1;
    while (true) {
      std::int64_t last = next;
      const auto rows_before = result_.rows;
      sqlite3_stmt* rows = seek(next);
      if (read(rows, [&] {
            last = sqlite3_column_int64(rows, 0);
            insert(rows);
            return true;
          }))
        return;
      result_.whole = false;
      // Garbage may promise rows for ever: where there were none, the next stride is longer.
      barren = result_.rows > rows_before ? 1 : barren * 2;
      const std::int64_t base = std::max<std::int64_t>(last, 0);
      std::int64_t bad = base, step = barren;
      if (barren >= kFarthest || base >= kFarthest) return;
      while (!readable(base + step)) {
        bad = base + step;
        if (step >= kFarthest) return;
        step = step < kLinear ? step + 1 : step * 2;
      }
      std::int64_t good = base + step;
      while (good - bad > 1) {
        const auto middle = bad + (good - bad) / 2;
        (readable(middle) ? good : bad) = middle;
      }
      next = good;
    }
  }

  void copy_from_both_ends(const std::string& key) {
    for (const char* order : {"ASC", "DESC"}) {
      const auto rows = prepare(from_, fmt::format("{} ORDER BY {} {}", select_, key, order));
      if (read(rows.get(), [&] {
            insert(rows.get());
            return true;
          }))
        return;
      result_.whole = false;
    }
  }

  SQLite::Database& from_;
  SQLite::Database& to_;
  const SpecCodec& codec_;
  std::vector<std::string> columns_;
  std::string select_;
  RawStatement insert_;
  RecoveredTable result_;
};

/// Rows whose trial, study, run or target is lost.
void remove_orphans(SQLite::Database& database, std::vector<RecoveredTable>& tables, const fs::path& file) {
  SQLite::Statement placeholder(database, R"(
    INSERT INTO study (id, name, text, hash, fingerprint, file, program, created)
    SELECT DISTINCT study_id, coalesce((SELECT name FROM study), ?), '', '', '', '', '', '' FROM trial
    WHERE study_id NOT IN (SELECT id FROM study))");
  placeholder.bind(1, file.stem().string());
  placeholder.exec();
  database.exec("UPDATE event SET trial_id = NULL WHERE trial_id NOT IN (SELECT id FROM trial)");
  database.exec("UPDATE attempt SET run_id = NULL WHERE run_id NOT IN (SELECT id FROM run)");
  for (const auto& [table, column, parent, key] :
       {std::array{"attempt", "trial_id", "trial", "id"}, std::array{"curve_chunk", "trial_id", "trial", "id"},
        std::array{"branch", "trial_id", "trial", "id"}, std::array{"censored", "trial_id", "trial", "id"},
        std::array{"sample", "trial_id", "trial", "id"}, std::array{"run", "study_id", "study", "id"},
        std::array{"optimum", "study_id", "study", "id"}, std::array{"target", "study_id", "study", "id"},
        std::array{"target_group", "target", "target", "name"}, std::array{"drift_check", "target", "target", "name"}}) {
    const int removed = database.exec(
        fmt::format("DELETE FROM {} WHERE {} NOT IN (SELECT {} FROM {})", table, column, key, parent));
    for (auto& one : tables)
      if (one.table == table) one.rows -= removed, one.left_out += removed;
  }
}

/// Salvages `copy` into the new database `to`; nothing when not even its tables can be found.
std::vector<RecoveredTable> salvage(const fs::path& copy, const fs::path& to, const SpecCodec& codec,
                                    const fs::path& name) {
  create_database(to);
  SQLite::Database target(to.string(), SQLite::OPEN_READWRITE);
  target.exec("PRAGMA foreign_keys = OFF");
  target.exec("PRAGMA synchronous = OFF");  // it is made whole before it gets its name
  std::vector<RecoveredTable> tables;
  try {
    SQLite::Database source(copy.string(), SQLite::OPEN_READWRITE);
    source.exec("PRAGMA cell_size_check = ON");  // damage is to be found, not followed
    if (source.execAndGet("SELECT count(*) FROM sqlite_master WHERE name = 'trial'").getInt() == 0) return {};
    // A log of another database would mix its rows with ours.
    SQLite::Statement identity(source, "SELECT count(*) FROM sqlite_master WHERE name = 'identity'");
    identity.executeStep();
    if (identity.getColumn(0).getInt() > 0 &&
        source.execAndGet("SELECT owner.database = identity.id FROM owner, identity").getInt() == 0)
      return {};
    SQLite::Transaction transaction(target);
    Salvage salvage(source, target, codec);
    for (const char* table : kTables) {
      try {
        tables.push_back(salvage.copy(table));
      } catch (const SQLite::Exception&) {
        tables.push_back({.table = table, .whole = false});
      }
    }
    remove_orphans(target, tables, name);
    transaction.commit();
  } catch (const SQLite::Exception&) {
    return {};  // another way of reading it may do better
  }
  target.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  return tables;
}

std::int64_t num_rows(const std::vector<RecoveredTable>& tables) {
  std::int64_t rows = 0;
  for (const auto& table : tables) rows += table.rows;
  return rows;
}

}  // namespace

std::vector<RecoveredTable> recover_database(const fs::path& file, const fs::path& copy, const SpecCodec& codec) {
  return guarded(copy, [&] {
    if (!fs::exists(file))
      throw StoreError(Trouble::environment, fmt::format("{}: there is no such file", file.string()));
    if (fs::exists(copy))
      throw StoreError(Trouble::state,
                       fmt::format("{}: exists and is not overwritten; name a new file", copy.string()));
    const Workshop workshop(copy);
    const auto fresh = workshop.folder / "fresh.db", damaged = workshop.folder / "damaged.db";
    create_database(fresh);
    SQLite::Database(fresh.string(), SQLite::OPEN_READWRITE).exec("PRAGMA wal_checkpoint(TRUNCATE)");
    std::vector<RecoveredTable> best;
    fs::path best_file;
    int number = 0;
    for (const auto what : {Transplant::nothing, Transplant::header, Transplant::schema}) {
      for (const bool with_log : {true, false}) {
        const fs::path log = file.string() + "-wal";
        if (with_log && !fs::exists(log)) continue;
        for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(damaged.string() + suffix);
        fs::copy_file(file, damaged);
        if (with_log) fs::copy_file(log, damaged.string() + "-wal");
        if (what != Transplant::nothing) transplant(damaged, fresh, what);
        const auto saved = workshop.folder / fmt::format("saved-{}.db", ++number);
        auto tables = salvage(damaged, saved, codec, file);
        if (num_rows(tables) <= num_rows(best)) continue;
        best = std::move(tables);
        best_file = saved;
      }
      // Only where it cannot be read as it is, or parts are lost, may a new header or schema do better.
      if (!best.empty() && std::all_of(best.begin(), best.end(), [](const auto& table) { return table.whole; })) break;
    }
    if (best.empty())
      throw StoreError(Trouble::corrupt, fmt::format("{}: nothing in it can be read", file.string()));
    const auto problems = problems_of(best_file);
    if (!problems.empty())
      throw StoreError(Trouble::corrupt, fmt::format("{}: what was saved is not sound: {}", file.string(), problems[0]));
    publish_new_file(best_file, copy);
    return best;
  });
}

}  // namespace db
