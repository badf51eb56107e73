#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

namespace db {

/// NULL, integer, real or text; a blob is given as its hex digits.
using Value = std::variant<std::monostate, std::int64_t, double, std::string>;

/// What a query gives: every row has as many values as there are columns. No two columns have one name: the
/// second "loss" is "loss:1".
struct Table {
  std::vector<std::string> columns;
  std::vector<std::vector<Value>> rows;
};

struct QueryLimits {
  double seconds = 30;
  std::int64_t max_rows = 10'000'000;
  std::int64_t max_bytes = std::int64_t{512} << 20;  // of all rows in memory
};

/// Runs one SELECT (or EXPLAIN, or a PRAGMA that only describes) on a connection that can change nothing:
/// opened read-only, and writes, ATTACH, PRAGMAs that set something and load_extension are refused as the
/// statement is compiled. `parameters` are bound to ?1, ?2, ... Throws StoreError; Trouble::query when the
/// SQL is wrong, not allowed or takes too long.
Table run_query(const std::filesystem::path& file, const std::string& sql,
                const std::vector<Value>& parameters = {}, const QueryLimits& limits = {});

}  // namespace db
