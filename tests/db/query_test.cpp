#include "db/query.h"

#include <cstdlib>
#include <filesystem>

#include "db/sqlite.h"
#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

namespace {

std::string refusal(const std::filesystem::path& file, const std::string& sql, double seconds = 5) {
  try {
    db::run_query(file, sql, {}, {.seconds = seconds});
  } catch (const db::StoreError& error) {
    CHECK(error.trouble == db::Trouble::query);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a query gives columns and typed values", "[db][query]") {
  const TemporaryFolder folder;
  test::store_with(folder / "a.db", {test::trial(-8), test::trial(-7)});
  const auto table = db::run_query(
      folder / "a.db", "SELECT trial, name, lr, loss FROM results WHERE trial = ?1", {std::int64_t{2}});
  CHECK(table.columns == std::vector<std::string>{"trial", "name", "lr", "loss"});
  REQUIRE(table.rows.size() == 1);
  CHECK(std::get<std::int64_t>(table.rows[0][0]) == 2);
  CHECK(std::get<std::string>(table.rows[0][1]) == test::trial(-7).name);
  CHECK(std::get<double>(table.rows[0][2]) == std::exp2(-7));
  CHECK(std::holds_alternative<std::monostate>(table.rows[0][3]));
}

TEST_CASE("a query can change nothing", "[db][query]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  test::store_with(file, {test::trial(-8)});
  const auto before = test::bytes(file);
  const std::string other = (folder / "other.db").string();
  for (const std::string& sql :
       {std::string("DELETE FROM trial"), std::string("UPDATE trial SET loss = 1"),
        std::string("DROP VIEW results"), std::string("CREATE TABLE t(x)"),
        std::string("CREATE TEMP TABLE t(x)"), std::string("VACUUM"), "VACUUM INTO '" + other + "'",
        "ATTACH '" + other + "' AS other", std::string("PRAGMA user_version = 3"),
        std::string("PRAGMA journal_mode = DELETE"), std::string("PRAGMA wal_checkpoint(TRUNCATE)"),
        std::string("BEGIN IMMEDIATE"), std::string("SELECT load_extension('x')"),
        std::string("SELECT 1; DELETE FROM trial"), std::string("UPDATE sqlite_master SET sql = NULL"),
        std::string("PRAGMA writable_schema = 1")}) {
    INFO(sql);
    CHECK_FALSE(refusal(file, sql).empty());
  }
  CHECK(test::bytes(file) == before);
  CHECK_FALSE(std::filesystem::exists(other));
}

TEST_CASE("a query may ask what there is", "[db][query]") {
  const TemporaryFolder folder;
  test::store_with(folder / "a.db", {});
  CHECK(db::run_query(folder / "a.db", "PRAGMA table_info(trial)").rows.size() > 10);
  CHECK(db::run_query(folder / "a.db", "SELECT name FROM sqlite_master WHERE type = 'view'").rows.size() ==
        16);
}

TEST_CASE("a query that takes too long is stopped", "[db][query]") {
  const TemporaryFolder folder;
  test::store_with(folder / "a.db", {});
  const auto message =
      refusal(folder / "a.db",
              "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", 0.05);
  CHECK_THAT(message, ContainsSubstring("longer than 0.05 s"));
}

TEST_CASE("a query with a mistake says which", "[db][query]") {
  const TemporaryFolder folder;
  test::store_with(folder / "a.db", {});
  CHECK_THAT(refusal(folder / "a.db", "SELECT los FROM results"), ContainsSubstring("los"));
  CHECK_THAT(refusal(folder / "a.db", "  ;"), ContainsSubstring("no statement"));
}

TEST_CASE("a comment after the statement is no second statement", "[db][query]") {
  const TemporaryFolder folder;
  test::store_with(folder / "a.db", {test::trial(-8)});
  CHECK(refusal(folder / "a.db", "SELECT 1; -- only one\n ; /* really */").empty());
  CHECK_THAT(refusal(folder / "a.db", "SELECT 1; SELECT 2"), ContainsSubstring("one statement"));
}

TEST_CASE("a query cannot fill the memory with one value, nor with rows", "[db][query]") {
  const TemporaryFolder folder;
  test::store_with(folder / "a.db", {});
  CHECK_THAT(refusal(folder / "a.db", "SELECT zeroblob(1000000000)"), ContainsSubstring("too big"));
  CHECK_THAT(refusal(folder / "a.db", "SELECT hex(zeroblob(60000000))"), ContainsSubstring("too big"));
  try {
    db::run_query(folder / "a.db", "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n", {},
                  {.seconds = 30, .max_rows = 1000});
    FAIL("no limit");
  } catch (const db::StoreError& error) {
    CHECK_THAT(error.what(), ContainsSubstring("more than 1000 rows"));
  }
  try {
    db::run_query(
        folder / "a.db",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT hex(zeroblob(500)) FROM n",
        {}, {.max_bytes = 1 << 20});
    FAIL("no limit");
  } catch (const db::StoreError& error) {
    CHECK_THAT(error.what(), ContainsSubstring("more than 1 MiB"));
  }
}

TEST_CASE("columns of one name are told apart", "[db][query]") {
  const TemporaryFolder folder;
  test::store_with(folder / "a.db", {});
  CHECK(db::run_query(folder / "a.db", "SELECT 1 AS loss, 2 AS loss, 3 AS lr, 4 AS loss").columns ==
        std::vector<std::string>{"loss", "loss:1", "lr", "loss:2"});
}

TEST_CASE("looking at a database takes no lock from the connection that writes it", "[db]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  auto store = test::store_with(file, {test::trial(-8)});
  CHECK(db::is_our_database(file));
  CHECK(db::run_query(file, "SELECT count(*) FROM trial").rows.size() == 1);
  // Another program that comes and goes would take the log away if it believed to be alone.
  const auto other = "python3 -c 'import sqlite3; c = sqlite3.connect(\"" + file.string() +
                     "\"); c.execute(\"SELECT count(*) FROM trial\").fetchall(); c.close()'";
  REQUIRE(std::system(other.c_str()) == 0);
  CHECK(std::filesystem::exists(file.string() + "-wal"));
  store.record("test", "written after that");
  CHECK(std::get<std::int64_t>(
            db::run_query(file, "SELECT count(*) FROM event WHERE message = 'written after that'").rows[0][0]) == 1);
}
