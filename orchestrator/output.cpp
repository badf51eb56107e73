#include "orchestrator/output.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "orchestrator/exit_code.h"

namespace orchestrator {
namespace {

using nlohmann::ordered_json;

std::string for_people(const db::Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return fmt::format("{}", *integer);
  if (const auto* real = std::get_if<double>(&value)) return fmt::format("{:.6g}", *real);
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  return "-";
}

ordered_json to_json(const db::Value& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return *integer;
  if (const auto* real = std::get_if<double>(&value))
    return std::isfinite(*real) ? ordered_json(*real) : nullptr;
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  return nullptr;
}

ordered_json to_json(const db::Table& table, const std::vector<db::Value>& row) {
  auto object = ordered_json::object();
  for (std::size_t i = 0; i < table.columns.size(); ++i) object[table.columns[i]] = to_json(row[i]);
  return object;
}

// Text that is not UTF-8 (a path, a message of the system) must not stop the output.
std::string dump(const ordered_json& json, int indent) {
  return json.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted(1, '"');
  for (const char c : text) quoted.append(c == '"' ? 2 : 1, c);
  quoted += '"';
  return quoted;
}

std::string csv_field(const db::Value& value) {
  if (std::holds_alternative<std::monostate>(value)) return "";
  if (const auto* text = std::get_if<std::string>(&value)) return csv_field(*text);
  return dump(to_json(value), -1);
}

std::string as_json(const db::Table& table) {
  auto rows = ordered_json::array();
  for (const auto& row : table.rows) rows.push_back(to_json(table, row));
  return dump(rows, 2) + "\n";
}

std::string as_jsonl(const db::Table& table) {
  std::string text;
  for (const auto& row : table.rows) text += dump(to_json(table, row), -1) + "\n";
  return text;
}

std::string as_csv(const db::Table& table) {
  std::string text;
  const auto line = [&](const auto& fields) {
    for (std::size_t i = 0; i < fields.size(); ++i) {
      if (i > 0) text += ',';
      text += csv_field(fields[i]);
    }
    text += '\n';
  };
  line(table.columns);
  for (const auto& row : table.rows) line(row);
  return text;
}

bool is_number(const db::Value& value) {
  return std::holds_alternative<std::int64_t>(value) || std::holds_alternative<double>(value);
}

std::string as_text(const db::Table& table) {
  const std::size_t columns = table.columns.size();
  std::vector<std::vector<std::string>> lines = {table.columns};
  std::vector<std::size_t> width(columns);
  std::vector<bool> right(columns, false);
  for (const auto& row : table.rows) {
    auto& line = lines.emplace_back();
    for (std::size_t i = 0; i < columns; ++i) {
      line.push_back(for_people(row[i]));
      right[i] = right[i] || is_number(row[i]);
    }
  }
  for (const auto& line : lines)
    for (std::size_t i = 0; i < columns; ++i) width[i] = std::max(width[i], line[i].size());
  std::string text;
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < columns; ++i) {
      const std::string room(width[i] - line[i].size(), ' ');
      text += right[i] ? room + line[i] : line[i] + room;
      text += "  ";
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
  }
  return text;
}

/// `name` is that of `json` itself; empty for the whole.
void flatten(const ordered_json& json, const std::string& name, db::Table& table) {
  const std::string inside = name.empty() ? "" : name + ".";
  if (json.is_object()) {
    for (const auto& [key, value] : json.items()) flatten(value, inside + key, table);
  } else if (json.is_array()) {
    for (std::size_t i = 0; i < json.size(); ++i) flatten(json[i], inside + std::to_string(i), table);
  } else {
    table.columns.push_back(name);
    auto& row = table.rows.front();
    if (json.is_number_integer())
      row.emplace_back(json.get<std::int64_t>());
    else if (json.is_number())
      row.emplace_back(json.get<double>());
    else if (json.is_null())
      row.emplace_back();
    else
      row.emplace_back(json.is_string() ? json.get<std::string>() : json.dump());
  }
}

}  // namespace

Format parse_format(std::string_view text) {
  if (text == "table") return Format::table;
  if (text == "json") return Format::json;
  if (text == "jsonl") return Format::jsonl;
  if (text == "csv") return Format::csv;
  throw ExitError(kUsage, fmt::format("--format {}: unknown; known: table, json, jsonl, csv", text));
}

std::string format_table(const db::Table& table, Format format) {
  switch (format) {
    case Format::table: return as_text(table);
    case Format::json: return as_json(table);
    case Format::jsonl: return as_jsonl(table);
    case Format::csv: return as_csv(table);
  }
  throw std::logic_error("format_table: unknown Format");
}

db::Table flatten(const nlohmann::ordered_json& object) {
  db::Table table;
  table.rows.emplace_back();
  flatten(object, "", table);
  return table;
}

std::string short_size(std::uintmax_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (value >= 0x1p30) return fmt::format("{:.3g} GiB", value / 0x1p30);
  if (value >= 0x1p20) return fmt::format("{:.3g} MiB", value / 0x1p20);
  return fmt::format("{:.3g} KiB", value / 0x1p10);
}

}  // namespace orchestrator
