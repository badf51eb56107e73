#include <fstream>
#include <regex>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "db/query.h"
#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

namespace {

/// The columns that db/README.md documents for one table or view: the first cells of the rows under its head.
std::vector<std::string> documented(const std::string& readme, const std::string& table) {
  std::vector<std::string> columns;
  const auto begin = readme.find(fmt::format("\n### `{}`", table));
  if (begin == std::string::npos) return columns;
  const auto section = readme.substr(begin + 1, readme.find("\n### ", begin + 1) - begin - 1);
  const std::regex row("\n\\| `([a-z0-9_]+)` \\|");
  for (std::sregex_iterator it(section.begin(), section.end(), row), end; it != end; ++it)
    columns.push_back((*it)[1]);
  return columns;
}

}  // namespace

TEST_CASE("db/README.md names every column of every table and view, in order, and no other", "[db][readme]") {
  const TemporaryFolder folder;
  test::store_with(folder / "a.db", {});
  const std::string readme = test::bytes(std::filesystem::path(TUNEONCE_SOURCE_DIR) / "db/README.md");
  const auto tables = db::run_query(
      folder / "a.db",
      "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'");
  REQUIRE(tables.rows.size() == 34);
  for (const auto& row : tables.rows) {
    const auto table = std::get<std::string>(row[0]);
    std::vector<std::string> columns;
    for (const auto& column :
         db::run_query(folder / "a.db", "SELECT name FROM pragma_table_xinfo(?1)", {table}).rows)
      columns.push_back(std::get<std::string>(column[0]));
    INFO(table);
    CHECK(documented(readme, table) == columns);
  }
}

TEST_CASE("the columns of the views for people stay what scripts rely on", "[db][readme]") {
  const TemporaryFolder folder;
  test::store_with(folder / "a.db", {});
  CHECK(db::run_query(folder / "a.db", "SELECT * FROM results").columns ==
        std::vector<std::string>{"trial", "name", "role", "target", "lr", "wd", "init_std", "seed", "state",
                                 "loss", "excess", "steps", "seconds", "device", "attempts"});
  CHECK(db::run_query(folder / "a.db", "SELECT * FROM curves").columns ==
        std::vector<std::string>{"trial", "name", "metric", "step", "value"});
  CHECK(db::run_query(folder / "a.db", "SELECT * FROM attempts").columns ==
        std::vector<std::string>{"trial", "name", "attempt", "state", "cause", "message", "first_step", "step", "started",
                                 "seconds", "device", "device_name", "device_uuid", "peak_memory", "host",
                                 "git_commit", "log", "last_lines"});
  CHECK(db::run_query(folder / "a.db", "SELECT * FROM branches").columns ==
        std::vector<std::string>{"trial", "name", "lr", "wd", "fraction", "steps", "loss"});
}
