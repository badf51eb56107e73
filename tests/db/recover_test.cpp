// Damaged files: what is wrong is said, nothing is written to them, and what can be read is saved.
#include <algorithm>
#include <fstream>
#include <optional>
#include <random>
#include <set>
#include <thread>

#include "db/health.h"
#include "db/query.h"
#include "db/sqlite.h"
#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/invariants.h"
#include "tests/support/temporary_folder.h"

namespace fs = std::filesystem;

namespace {

constexpr int kTrials = 120;
/// Of each kind of damage.
const int kRounds = test::times(5, 500);

const db::AttemptInfo kCpu{
    .device = "cpu", .device_name = "", .host = "here", .worker_pid = 7, .worker_build = "b", .log = "l"};

std::vector<sweeps::TrialSpec> trials() {
  std::vector<sweeps::TrialSpec> specs;
  for (int i = 0; i < kTrials; ++i) specs.push_back(test::trial(-8 + i * 1e-3));
  return specs;
}

/// Complete trials with curves, all but the first `in_file` of them only in the log. Killed: the log stays.
void make_killed_database(const fs::path& file, const std::string& fingerprint = "f", int in_file = 0) {
  const fs::path live = file.string() + ".live";
  {
    auto specs = trials();
    for (auto& spec : specs) spec.data.fingerprint = fingerprint;
    std::optional<db::Store> store = test::store_with(live, specs);
    store->begin_run(1, {.git_commit = "abc", .program_hash = "1", .worker_hash = "2"});
    int i = 0;
    for (const auto& spec : specs) {
      if (i == in_file && i > 0) {  // closing copies the log into the file
        store.reset();
        store.emplace(db::Store::open(live, test::codec()));
      }
      const auto key = sweeps::trial_key(spec);
      const auto attempt = store->start(key, kCpu);
      store->append_curve(key, attempt, "eval_loss", {4, 8}, {3.0 + i, 2.5 + i});
      store->finish(key, attempt, sweeps::Finished{.loss = 2.5 + i, .floor = {}, .steps = 8, .seconds = 1});
      ++i;
    }
    for (const char* suffix : {"", "-wal"}) fs::copy_file(live.string() + suffix, file.string() + suffix);
  }
  for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(live.string() + suffix);
}

std::int64_t count(const fs::path& file, const std::string& what) {
  return std::get<std::int64_t>(db::run_query(file, "SELECT count(*) FROM " + what).rows.at(0).at(0));
}

/// Opening for writing is refused as corrupt, with the command that helps, and no byte changes.
void check_refused(const fs::path& file) {
  const auto before = test::bytes(file), log = test::bytes(file.string() + "-wal");
  for (const bool again : {false, true}) {  // a refusal mends nothing
    CAPTURE(again);
    try {
      db::Store::open(file, test::codec());
      FAIL("opened");
    } catch (const db::StoreError& error) {
      INFO(error.what());
      CHECK(error.trouble == db::Trouble::corrupt);
      CHECK_THAT(error.what(), ContainsSubstring("tuneonce recover " + file.string()));
    }
  }
  CHECK(test::bytes(file) == before);
  CHECK(test::bytes(file.string() + "-wal") == log);
}

/// What comes back is true: losses and curves are those of the trials they stand with.
void check_recovered(const fs::path& copy, std::int64_t least) {
  CHECK(db::problems_of(copy).empty());
  const auto rows = db::run_query(copy, "SELECT lr, loss FROM results WHERE state = 'complete'").rows;
  CHECK(static_cast<std::int64_t>(rows.size()) >= least);
  for (const auto& row : rows) {
    const double i = std::round((std::log2(std::get<double>(row[0])) + 8) * 1e3);
    CHECK(std::get<double>(row[1]) == 2.5 + i);
  }
  auto store = db::Store::open(copy, test::codec());  // and a run can go on with it
  CHECK(static_cast<std::int64_t>(store.results().size()) >= least);
}

void write(const fs::path& file, const std::string& bytes) { std::ofstream(file, std::ios::binary) << bytes; }

constexpr std::size_t kPage = 4096;

/// Keys of the rows of `table` that SQLite itself still reads, one by one; all of 1 to kTrials where it is
/// the schema that cannot be read.
std::set<std::int64_t> readable(const fs::path& file, const std::string& table, const std::string& key) {
  std::set<std::int64_t> keys, all;
  for (std::int64_t i = 1; i <= kTrials; ++i) all.insert(i);
  try {
    SQLite::Database database(file.string(), SQLite::OPEN_READONLY);
    SQLite::Statement row(database, "SELECT * FROM " + table + " NOT INDEXED WHERE " + key + " = ?");
    for (const auto i : all) {
      row.tryReset();
      row.bind(1, i);
      try {
        if (row.executeStep()) keys.insert(i);
      } catch (const SQLite::Exception&) {  // its page is lost
      }
    }
  } catch (const SQLite::Exception&) {
    return all;
  }
  return keys;
}

}  // namespace

TEST_CASE("a sound database comes back whole", "[db][recover]") {
  const TemporaryFolder folder;
  make_killed_database(folder / "a.db");
  const auto before = test::bytes(folder / "a.db");
  const auto tables = db::recover_database(folder / "a.db", folder / "new.db", test::codec());
  for (const auto& table : tables) {
    INFO(table.table);
    CHECK(table.whole);
    CHECK(table.left_out == 0);
    CHECK(table.rows == count(folder / "new.db", table.table));
  }
  CHECK(count(folder / "new.db", "trial") == kTrials);
  CHECK(count(folder / "new.db", "curves") == 2 * kTrials);
  CHECK(count(folder / "new.db", "attempts WHERE git_commit = 'abc'") == kTrials);
  CHECK(count(folder / "new.db", "studies") == 1);
  CHECK(test::bytes(folder / "a.db") == before);
  check_recovered(folder / "new.db", kTrials);
}

TEST_CASE("a file that exists is never overwritten", "[db][recover]") {
  const TemporaryFolder folder;
  make_killed_database(folder / "a.db");
  write(folder / "new.db", "mine");
  CHECK_THROWS_WITH(db::recover_database(folder / "a.db", folder / "new.db", test::codec()),
                    ContainsSubstring("exists"));
  CHECK(test::bytes(folder / "new.db") == "mine");
}

TEST_CASE("a damaged header is refused as damage, and every row comes back",
          "[db][recover][faults][F9][slow]") {
  for (int seed = 1; seed <= kRounds; ++seed) {
    CAPTURE(seed);
    const TemporaryFolder folder;
    const auto file = folder / "a.db";
    make_killed_database(file);
    std::mt19937 generator(static_cast<unsigned>(seed));
    auto bytes = test::bytes(file);
    for (std::size_t i = 0; i < 100; ++i)
      if (seed % 5 != 0 || i < 16) bytes[i] = static_cast<char>(generator());
    write(file, bytes);
    check_refused(file);
    db::recover_database(file, folder / "new.db", test::codec());
    check_recovered(folder / "new.db", kTrials);
  }
}

TEST_CASE("a page that is lost takes its own rows and no others", "[db][recover][faults][F9][slow]") {
  for (int seed = 1; seed <= kRounds; ++seed) {
    CAPTURE(seed);
    const TemporaryFolder folder;
    const auto file = folder / "a.db";
    make_killed_database(file);
    { auto store = db::Store::open(file, test::codec()); }  // the log goes into the file, so that no page is in it
    std::mt19937 generator(static_cast<unsigned>(seed));
    auto bytes = test::bytes(file);
    const std::size_t page = 1 + generator() % (bytes.size() / kPage - 1);
    CAPTURE(page);
    for (std::size_t i = 0; i < kPage; ++i) bytes[page * kPage + i] = static_cast<char>(generator());
    write(file, bytes);
    check_refused(file);
    db::recover_database(file, folder / "new.db", test::codec());
    const auto trials_left = readable(file, "trial", "id");
    check_recovered(folder / "new.db", static_cast<std::int64_t>(trials_left.size()));
    // A trial's curve is one row, the only attempt another: all three have the trial's number.
    for (const auto& [table, key] :
         {std::pair{"trial", "id"}, {"attempt", "trial_id"}, {"curve_chunk", "id"}}) {
      const auto left = readable(file, table, key), saved = readable(folder / "new.db", table, key);
      for (const auto row : left) {
        CAPTURE(table, row);
        CHECK(saved.contains(row) == trials_left.contains(row));
      }
    }
  }
}

TEST_CASE("a damaged index costs nothing", "[db][recover]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  make_killed_database(file);
  { auto store = db::Store::open(file, test::codec()); }
  for (const char* index : {"sqlite_autoindex_trial_1", "trial_by_state", "curve_chunk_by_trial"}) {
    INFO(index);
    const auto page = std::get<std::int64_t>(
        db::run_query(file, "SELECT rootpage FROM sqlite_master WHERE name = ?1", {std::string(index)}).rows.at(0).at(0));
    auto bytes = test::bytes(file);
    bytes.replace(static_cast<std::size_t>(page - 1) * kPage, kPage, kPage, '\x5a');
    const auto damaged = folder / (std::string(index) + ".db"), copy = folder / (std::string(index) + ".new.db");
    write(damaged, bytes);
    check_refused(damaged);
    const auto tables = db::recover_database(damaged, copy, test::codec());
    CHECK(std::all_of(tables.begin(), tables.end(), [](const auto& table) { return table.whole; }));
    check_recovered(copy, kTrials);
  }
}

TEST_CASE("a log that is missing after a crash is missed, and the file's rows come back",
          "[db][recover][faults][F9][slow]") {
  for (int seed = 1; seed <= kRounds; ++seed) {
    std::mt19937 generator(static_cast<unsigned>(seed));
    const int in_file = static_cast<int>(generator() % kTrials);
    CAPTURE(seed, in_file);
    const TemporaryFolder folder;
    const auto file = folder / "a.db";
    make_killed_database(file, "f", in_file);
    fs::remove(file.string() + "-wal");
    check_refused(file);
    db::recover_database(file, folder / "new.db", test::codec());
    check_recovered(folder / "new.db", in_file);
    CHECK(count(folder / "new.db", "trial WHERE state = 2") == in_file);
    CHECK(count(folder / "new.db", "curves") == 2 * in_file);
  }
}

TEST_CASE("a reader misses a log that is missing, and does not hide it from who comes next", "[db][recover][F9]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  make_killed_database(file);
  fs::remove(file.string() + "-wal");
  for (int i = 0; i < 2; ++i)  // the first leaves an empty log behind
    CHECK_THROWS_WITH(db::run_query(file, "SELECT * FROM results"),
                      ContainsSubstring("a.db-wal, is missing") && ContainsSubstring("tuneonce recover"));
  check_refused(file);
}

TEST_CASE("a log that is missing is missed although somebody read while the run began",
          "[db][recover][faults][F9]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  { auto store = test::store_with(file, trials()); }
  SQLite::Database reader(file.string(), SQLite::OPEN_READONLY);
  reader.exec("BEGIN");
  reader.execAndGet("SELECT count(*) FROM trial");
  std::thread reading([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    reader.exec("COMMIT");
  });
  auto store = db::Store::open(file, test::codec());
  reading.join();
  fs::copy_file(file, folder / "copy.db");
  check_refused(folder / "copy.db");
}

TEST_CASE("a run that is killed as it copies its log, and again as it starts, leaves a database that opens",
          "[db][recover][faults][F9]") {
  const TemporaryFolder folder;
  const auto live = folder / "live.db", file = folder / "a.db";
  make_killed_database(live);
  SQLite::Database writer(live.string(), SQLite::OPEN_READWRITE);
  writer.exec("UPDATE owner SET log = 0");  // the first kill comes here
  for (const char* suffix : {"", "-wal"}) fs::copy_file(live.string() + suffix, file.string() + suffix);
  db::migrate_database(file);  // what the next run begins with, and the second kill
  CHECK(db::Store::open(file, test::codec()).results().size() == kTrials);
}

TEST_CASE("a log that SQLite has copied itself is not missed", "[db][recover]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  make_killed_database(file);
  test::run_sql(file, "SELECT 1 FROM trial");  // what the sqlite3 shell does to a crashed database
  REQUIRE_FALSE(fs::exists(file.string() + "-wal"));
  auto store = db::Store::open(file, test::codec());
  CHECK(store.results().size() == kTrials);
}

TEST_CASE("the log of another database is refused, and its rows do not mix with ours",
          "[db][recover][faults][F9][slow]") {
  for (int seed = 1; seed <= kRounds; ++seed) {
    CAPTURE(seed);
    const TemporaryFolder folder;
    const auto file = folder / "a.db", other = folder / "b.db";
    make_killed_database(file);
    { auto store = db::Store::open(file, test::codec()); }
    make_killed_database(other, "g" + std::to_string(seed));
    fs::copy_file(other.string() + "-wal", file.string() + "-wal");
    check_refused(file);
    db::recover_database(file, folder / "new.db", test::codec());
    check_recovered(folder / "new.db", kTrials);
    CHECK(count(folder / "new.db", "trial WHERE spec LIKE '%\"g" + std::to_string(seed) + "\"%'") == 0);
  }
}

TEST_CASE("a trial that is not what its key says is left out and counted", "[db][recover]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  make_killed_database(file);
  test::run_sql(file, "UPDATE trial SET spec = replace(spec, '\"clip\":1.0', '\"clip\":2.0') WHERE id = 3");
  const auto tables = db::recover_database(file, folder / "new.db", test::codec());
  for (const auto& table : tables) {
    INFO(table.table);
    const bool of_a_trial = table.table == "trial" || table.table == "attempt" || table.table == "curve_chunk";
    CHECK(table.left_out == (of_a_trial ? 1 : 0));
  }
  check_recovered(folder / "new.db", kTrials - 1);
}

TEST_CASE("a file in which nothing can be read leaves no new one", "[db][recover]") {
  const TemporaryFolder folder;
  write(folder / "a.db", std::string(10 * kPage, '\x5a'));
  CHECK_THROWS_AS(db::recover_database(folder / "a.db", folder / "new.db", test::codec()), db::StoreError);
  CHECK_FALSE(fs::exists(folder / "new.db"));
}
