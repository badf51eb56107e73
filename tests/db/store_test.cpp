#include "db/store.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <set>

#include <fmt/format.h>

#include "db/query.h"
#include "db/sqlite.h"
#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/invariants.h"
#include "tests/support/temporary_folder.h"

using sweeps::TrialState;

namespace {

const db::AttemptInfo kCpu{
    .device = "cpu", .device_name = "", .host = "here", .worker_pid = 7, .worker_build = "b", .log = "l"};

sweeps::Outcome finished(double loss) {
  return sweeps::Finished{.loss = loss, .floor = 2.5, .steps = 10, .seconds = 1};
}
sweeps::Outcome crashed() { return sweeps::Failed{sweeps::FailureClass::crash, "signal 11"}; }

db::Trouble trouble(const std::function<void()>& work) {
  try {
    work();
  } catch (const db::StoreError& error) {
    return error.trouble;
  }
  FAIL("no StoreError was thrown");
  return db::Trouble::state;
}

}  // namespace

TEST_CASE("a trial goes from waiting over running to complete and keeps every digit", "[db][store]") {
  const TemporaryFolder folder;
  const auto spec = test::trial(-8);
  auto store = test::store_with(folder / "a.db", {spec});
  const auto key = sweeps::trial_key(spec);
  CHECK(store.results().at(0).state == TrialState::waiting);
  CHECK(store.start(key, kCpu) == 1);
  CHECK(store.results().at(0).state == TrialState::running);
  store.finish(key, 1, finished(1.0 / 3));
  const auto result = store.results().at(0);
  CHECK(result.state == TrialState::complete);
  CHECK(result.spec == spec);
  CHECK(result.key == key);
  CHECK(result.loss == 1.0 / 3);
  CHECK(result.floor == 2.5);
  CHECK(result.steps == 10);
  CHECK(result.attempts == 1);
  CHECK(result.device == "cpu");
}

TEST_CASE("divergence is a state with a step and leaves no loss", "[db][store]") {
  const TemporaryFolder folder;
  auto store = test::store_with(folder / "a.db", {test::trial(-4)});
  const auto key = sweeps::trial_key(test::trial(-4));
  store.start(key, kCpu);
  store.finish(key, 1, sweeps::Diverged{.step = 17, .seconds = 1});
  const auto result = store.results().at(0);
  CHECK(result.state == TrialState::diverged);
  CHECK(result.diverged_step == 17);
  CHECK_FALSE(result.loss);
}

TEST_CASE("a trial that was stopped early keeps its attempt, its cause and its curve", "[db][store]") {
  const TemporaryFolder folder;
  const auto key = sweeps::trial_key(test::trial(-4)), other = sweeps::trial_key(test::trial(-5));
  auto store = test::store_with(folder / "a.db", {test::trial(-4), test::trial(-5)});
  store.append_curve(key, store.start(key, kCpu), "eval_loss", {4, 8}, {3, 2.5});
  store.prune(key, 1, {key, 8, "hopeless"});
  store.prune_waiting({{other, 6, "hopeless too"}, {key, 9, "again"}});
  const auto results = store.results();
  REQUIRE(results.size() == 2);
  CHECK(results[0].state == TrialState::pruned);
  CHECK(results[0].steps == 8);
  CHECK(results[0].message == "hopeless");
  CHECK(results[0].evaluations.losses == std::vector<double>{3, 2.5});
  CHECK(results[1].state == TrialState::pruned);
  CHECK(std::get<std::int64_t>(
            db::run_query(
                folder / "a.db",
                "SELECT count(*) FROM attempt WHERE state = 5 AND message = 'hopeless' AND failure IS NULL")
                .rows[0][0]) == 1);
  CHECK(store.waiting().empty());
  store.add_plan(1, {test::trial(-4)});
  CHECK(store.results()[0].state == TrialState::waiting);
  CHECK_FALSE(store.results()[0].steps);
}

TEST_CASE("the losses of a trial's branches are read back, the shortest first", "[db][store]") {
  const TemporaryFolder folder;
  const auto key = sweeps::trial_key(test::trial(-8));
  auto store = test::store_with(folder / "a.db", {test::trial(-8)});
  store.start(key, kCpu);
  store.put_branch(key, {0.5, 500, 2.25});
  store.put_branch(key, {0.25, 250, 1.0 / 3});
  store.put_branch(key, {0.5, 500, 2.5});  // a resumed attempt says it again
  const auto branches = store.results().at(0).branches;
  REQUIRE(branches.size() == 2);
  CHECK(branches[0].steps == 250);
  CHECK(branches[0].loss == 1.0 / 3);
  CHECK(branches[1].fraction == 0.5);
  CHECK(branches[1].loss == 2.5);
  CHECK(db::run_query(folder / "a.db", "SELECT name, loss FROM branches").rows.size() == 2);
}

TEST_CASE("a loss that is not finite is no result", "[db][store]") {
  const TemporaryFolder folder;
  auto store = test::store_with(folder / "a.db", {test::trial(-4)});
  const auto key = sweeps::trial_key(test::trial(-4));
  store.start(key, kCpu);
  CHECK(trouble([&] { store.finish(key, 1, finished(std::nan(""))); }) == db::Trouble::state);
  CHECK(store.results().at(0).state == TrialState::running);
}

TEST_CASE("adding a plan twice inserts nothing", "[db][store]") {
  const TemporaryFolder folder;
  auto store = db::Store::open(folder / "a.db", test::codec());
  const auto id = store.put_study(test::study(), "small.toml");
  CHECK(store.add_plan(id, {test::trial(-8), test::trial(-7)}) == 2);
  CHECK(store.add_plan(id, {test::trial(-8), test::trial(-7)}) == 0);
  CHECK(store.put_study(test::study(), "small.toml") == id);
  CHECK(store.results().size() == 2);
}

TEST_CASE("waiting trials that nobody asks for any more are dropped, and wait again when somebody does",
          "[db][store]") {
  const TemporaryFolder folder;
  auto store = test::store_with(folder / "a.db", {test::trial(-8), test::trial(-7)});
  CHECK(store.add_plan(1, {test::trial(-7)}) == 0);
  REQUIRE(store.results().size() == 1);
  CHECK(store.results()[0].spec.base.lr == std::exp2(-7));
  CHECK(store.add_plan(1, {test::trial(-8), test::trial(-7)}) == 0);
  CHECK(store.waiting().size() == 2);
}

TEST_CASE("a finished trial never changes", "[db][store]") {
  const TemporaryFolder folder;
  const auto key = sweeps::trial_key(test::trial(-8));
  auto store = test::store_with(folder / "a.db", {test::trial(-8)});
  store.start(key, kCpu);
  store.finish(key, 1, finished(2));
  CHECK(trouble([&] { store.start(key, kCpu); }) == db::Trouble::state);
  CHECK(trouble([&] { store.finish(key, 1, finished(1)); }) == db::Trouble::state);
  CHECK(trouble([&] { store.finish(key, 2, finished(1)); }) == db::Trouble::state);
  CHECK(store.results().at(0).loss == 2);
}

TEST_CASE("a trial nobody planned is refused", "[db][store]") {
  const TemporaryFolder folder;
  auto store = test::store_with(folder / "a.db", {});
  CHECK(trouble([&] { store.start("0123", kCpu); }) == db::Trouble::state);
  CHECK(trouble([&] { store.append_curve("0123", 1, "train_loss", {1}, {1}); }) == db::Trouble::state);
}

TEST_CASE("losses count against the retries, cancelled attempts do not, and failed trials can start over",
          "[db][store]") {
  const TemporaryFolder folder;
  const auto key = sweeps::trial_key(test::trial(-8));
  auto store = test::store_with(folder / "a.db", {test::trial(-8)});
  store.finish(key, store.start(key, kCpu), crashed(), true);
  store.finish(key, store.start(key, kCpu), sweeps::Failed{sweeps::FailureClass::cancelled, "drained"}, true);
  CHECK(store.waiting().at(0).num_attempts == 2);
  CHECK(store.waiting().at(0).lost_to(sweeps::FailureClass::crash) == 1);
  store.finish(key, store.start(key, kCpu), crashed(), false);
  CHECK(store.waiting().empty());
  CHECK(store.results().at(0).message == "crash: signal 11");
  CHECK(store.retry_failed() == 1);
  CHECK(store.waiting().at(0).lost_to(sweeps::FailureClass::crash) == 0);
  CHECK(store.start(key, kCpu) == 4);
}

TEST_CASE("rows that run without an owner wait again after opening", "[db][store]") {
  const TemporaryFolder folder;
  const auto key = sweeps::trial_key(test::trial(-8));
  {
    auto store = test::store_with(folder / "a.db", {test::trial(-8)});
    store.start(key, kCpu);
  }
  auto store = db::Store::open(folder / "a.db", test::codec());
  REQUIRE(store.waiting().size() == 1);
  CHECK(store.waiting()[0].lost_to(sweeps::FailureClass::crash) == 0);
  CHECK(store.start(key, kCpu) == 2);
}

TEST_CASE("a curve is read back whole, the later attempt's value where steps were trained twice",
          "[db][store]") {
  const TemporaryFolder folder;
  const auto key = sweeps::trial_key(test::trial(-8));
  auto store = test::store_with(folder / "a.db", {test::trial(-8)});
  store.start(key, kCpu);
  store.append_curve(key, 1, "train_loss", {0, 1, 2}, {5.5, 0.1 + 0.2, 1e-300});
  store.finish(key, 1, crashed(), true);
  store.start(key, kCpu);
  store.append_curve(key, 2, "train_loss", {2, 3}, {4.25, std::nan("")});
  store.flush();
  const auto curves = db::Reader(folder / "a.db", test::codec()).curves();
  REQUIRE(curves.size() == 1);
  CHECK(curves[0].trial == key);
  CHECK(curves[0].steps == std::vector<std::int64_t>{0, 1, 2, 3});
  CHECK(curves[0].values[1] == 0.1 + 0.2);
  CHECK(curves[0].values[2] == 4.25);
  CHECK(std::isnan(curves[0].values[3]));
  const auto view = db::run_query(folder / "a.db",
                                  "SELECT step, value FROM curves WHERE metric = 'train_loss' ORDER BY step");
  REQUIRE(view.rows.size() == 4);
  CHECK(std::get<double>(view.rows[2][1]) == 4.25);
  CHECK(std::holds_alternative<std::monostate>(view.rows[3][1]));
}

TEST_CASE("a database holds one study, and remembers a changed text beside the old one", "[db][store]") {
  const TemporaryFolder folder;
  auto store = test::store_with(folder / "a.db", {});
  CHECK(trouble([&] { store.put_study(test::study("other"), "o.toml"); }) == db::Trouble::state);
  auto changed = test::study();
  changed.text += "seed = 2\n";
  CHECK(store.put_study(changed, "small.toml") == 2);
  CHECK(store.study()->text == changed.text);
}

TEST_CASE("a database of another program is refused and not a byte of it changes", "[db][store]") {
  const TemporaryFolder folder;
  const auto file = folder / "theirs.db";
  test::run_sql(file, "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
  const auto before = test::bytes(file);
  CHECK(trouble([&] { db::Store::open(file, test::codec()); }) == db::Trouble::foreign);
  CHECK(trouble([&] { db::run_query(file, "SELECT 1"); }) == db::Trouble::foreign);
  CHECK(test::bytes(file) == before);
  CHECK_FALSE(std::filesystem::exists(file.string() + "-wal"));
}

TEST_CASE("a file that is no database is refused and not a byte of it changes", "[db][store]") {
  const TemporaryFolder folder;
  std::ofstream(folder / "notes.txt") << "remember the milk\n";
  CHECK(trouble([&] { db::Store::open(folder / "notes.txt", test::codec()); }) == db::Trouble::foreign);
  CHECK(test::bytes(folder / "notes.txt") == "remember the milk\n");
}

TEST_CASE("what a trial drew is read back byte for byte, the last attempt's", "[db][store]") {
  const TemporaryFolder folder;
  const auto key = sweeps::trial_key(test::trial(-8));
  auto store = test::store_with(folder / "a.db", {test::trial(-8), test::trial(-7)});
  CHECK(store.samples().empty());
  const sweeps::SampleSheet sheet{2, 1, 1, {0, 255, 7, 8}, {1, 2}};
  store.put_samples(key, {1, 1, 1, {5}, {}});
  store.put_samples(key, sheet);
  const auto samples = db::Reader(folder / "a.db", test::codec()).samples();
  REQUIRE(samples.size() == 1);
  CHECK(samples.at(key) == sheet);
  CHECK(trouble([&] { store.put_samples("0123", sheet); }) == db::Trouble::state);
}

TEST_CASE("pictures that do not fit their size are damage, and said to be", "[db][store]") {
  const TemporaryFolder folder;
  auto store = test::store_with(folder / "a.db", {test::trial(-8)});
  store.put_samples(sweeps::trial_key(test::trial(-8)), {2, 1, 1, {0, 255}, {}});
  test::run_sql(folder / "a.db", "UPDATE sample SET width = 3");
  CHECK(trouble([&] { store.samples(); }) == db::Trouble::corrupt);
}

TEST_CASE("a newer schema is refused with both numbers and not a byte of it changes", "[db][store]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  test::store_with(file, {test::trial(-8)});
  test::run_sql(file, "PRAGMA journal_mode=DELETE; PRAGMA user_version=99");
  const auto before = test::bytes(file);
  CHECK_THROWS_WITH(
      db::Store::open(file, test::codec()),
      ContainsSubstring("99") && ContainsSubstring(fmt::format("up to {}", db::kSchemaVersion)));
  CHECK(trouble([&] { db::Store::open(file, test::codec()); }) == db::Trouble::newer);
  CHECK(test::bytes(file) == before);
}

TEST_CASE("a database of the first version is migrated, a copy of it stays, and no row is lost",
          "[db][store][migration]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db", copy = folder / "a.db.v1.bak";
  std::filesystem::copy_file(std::filesystem::path(TUNEONCE_SOURCE_DIR) / "tests/db/fixtures/version1.sqlite",
                             file);
  const auto rows = [](const std::filesystem::path& database, const std::string& sql) {
    return db::run_query(database, sql).rows;
  };
  const auto count = [&](const std::string& what) {
    return std::get<std::int64_t>(rows(file, "SELECT count(*) FROM " + what).at(0).at(0));
  };
  const std::string trials = "SELECT id, key, name, lr, loss, steps, diverged_step, spec FROM trial ORDER BY id";
  const auto trials_before = rows(file, trials);
  const auto curves_before = rows(file, "SELECT * FROM curves");
  const auto read_before = db::Reader(file, test::codec()).results();
  {
    const auto store = db::Store::open(file, test::codec());
    CHECK(store.study()->name == "small");
    const auto results = store.results();
    REQUIRE(results.size() == read_before.size());
    CHECK(results.size() == 6);
    CHECK(results[0].spec == read_before[0].spec);
    CHECK(results[0].loss == read_before[0].loss);
  }
  CHECK(rows(file, trials) == trials_before);
  CHECK(rows(file, "SELECT * FROM curves") == curves_before);
  CHECK(count("results WHERE state = 'complete'") == 5);
  CHECK(count("results WHERE state = 'diverged'") == 1);
  CHECK(count("results WHERE state = 'dropped'") == 1);
  CHECK(count("attempt") == 7);
  CHECK(count("event") >= 2);
  CHECK(count("pragma_user_version WHERE user_version = 4") == 1);
  CHECK(rows(copy, trials) == trials_before);
  CHECK(db::run_query(copy, "SELECT user_version FROM pragma_user_version").rows[0][0] ==
        db::Value(std::int64_t{1}));

  std::filesystem::remove(copy);
  db::Store::open(file, test::codec());
  CHECK_FALSE(std::filesystem::exists(copy));  // up to date: nothing to do
}

TEST_CASE("a database of the second version is migrated, a copy of it stays, and no row is lost",
          "[db][store][migration]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db", copy = folder / "a.db.v2.bak";
  std::filesystem::copy_file(std::filesystem::path(TUNEONCE_SOURCE_DIR) / "tests/db/fixtures/version2.sqlite", file);
  const auto rows = [](const std::filesystem::path& database, const std::string& sql) {
    return db::run_query(database, sql).rows;
  };
  const std::vector<std::string> kept = {
      "SELECT id, key, name, lr, loss, steps, diverged_step, spec, created FROM trial ORDER BY id",
      "SELECT trial_id, number, message, first_step, step, device, log, started FROM attempt "
      "WHERE state != 1 ORDER BY 1, 2",
      "SELECT * FROM results WHERE state != 'running' AND state != 'waiting'", "SELECT * FROM curves",
      "SELECT * FROM branches", "SELECT * FROM censored", "SELECT * FROM sample", "SELECT * FROM study",
      "SELECT * FROM event"};
  std::vector<std::vector<std::vector<db::Value>>> before;
  for (const auto& sql : kept) before.push_back(rows(file, sql));
  {
    const auto store = db::Store::open(file, test::codec());
    CHECK(store.waiting().size() == 1);  // it was left running
    CHECK(store.results().size() == 18);
  }
  for (std::size_t i = 0; i < kept.size(); ++i) {
    INFO(kept[i]);
    CHECK_FALSE(before[i].empty());
    CHECK(rows(copy, kept[i]) == before[i]);
    // The attempt that was running has ended by now and is one row more.
    auto after = rows(file, kept[i]);
    if (i == 1) std::erase_if(after, [](const auto& row) { return row[0] == db::Value(std::int64_t{20}); });
    CHECK(after == before[i]);
  }
  CHECK(rows(file, "SELECT user_version FROM pragma_user_version")[0][0] == db::Value(std::int64_t{4}));
  CHECK(rows(copy, "SELECT user_version FROM pragma_user_version")[0][0] == db::Value(std::int64_t{2}));
}

TEST_CASE("a database of the third version is migrated, a copy of it stays, and no row is lost",
          "[db][store][migration]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db", copy = folder / "a.db.v3.bak";
  std::filesystem::copy_file(std::filesystem::path(TUNEONCE_SOURCE_DIR) / "tests/db/fixtures/version3.sqlite",
                             file);
  for (const char* kept : {"trial", "attempt", "results", "attempts", "curves", "target", "target_group",
                           "optimum", "run", "study", "event", "identity"}) {
    INFO(kept);
    const auto rows = [&](const std::filesystem::path& of) {
      return db::run_query(of, fmt::format("SELECT * FROM {}", kept)).rows;
    };
    const auto before = rows(file);
    CHECK_FALSE(before.empty());
    db::Store::open(file, test::codec());
    CHECK(rows(file) == before);
    CHECK(rows(copy) == before);
  }
  CHECK(db::Reader(file, test::codec()).results().size() == 6);
}

TEST_CASE("a migrated database has the tables, columns and views of a new one", "[db][store][migration]") {
  const TemporaryFolder folder;
  db::Store::open(folder / "new.db", test::codec());
  const std::string schema = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name";
  for (const char* old : {"version1.sqlite", "version2.sqlite", "version3.sqlite"}) {
    INFO(old);
    std::filesystem::copy_file(std::filesystem::path(TUNEONCE_SOURCE_DIR) / "tests/db/fixtures" / old, folder / old);
    db::Store::open(folder / old, test::codec());
    CHECK(db::run_query(folder / old, schema).rows == db::run_query(folder / "new.db", schema).rows);
  }
}

TEST_CASE("how an attempt ended is kept with its last lines, its memory and its device", "[db][store]") {
  const TemporaryFolder folder;
  const auto key = sweeps::trial_key(test::trial(-8));
  auto store = test::store_with(folder / "a.db", {test::trial(-8)});
  store.begin_run(1, {.git_commit = "abc", .program_hash = "12", .worker_hash = "34"});
  auto gpu = kCpu;
  gpu.device = "cuda:0";
  gpu.device_uuid = "GPU-1";
  store.finish(key, store.start(key, gpu), sweeps::Failed{sweeps::FailureClass::oom_gpu, "out of memory"}, true,
               {.last_lines = "a\nb\n", .peak_memory = 7'000'000'000});
  store.prune(key, store.start(key, kCpu), {key, 8, "hopeless"}, {.last_lines = {}, .peak_memory = 5});
  const auto table = db::run_query(folder / "a.db", R"(
    SELECT attempt, state, cause, message, device_uuid, last_lines, peak_memory, git_commit, seconds FROM attempts)");
  REQUIRE(table.rows.size() == 2);
  const auto& lost = table.rows[0];
  CHECK(lost[1] == db::Value("failed"));
  CHECK(lost[2] == db::Value("oom_gpu"));
  CHECK(lost[3] == db::Value("out of memory"));
  CHECK(lost[4] == db::Value("GPU-1"));
  CHECK(lost[5] == db::Value("a\nb\n"));
  CHECK(lost[6] == db::Value(std::int64_t{7'000'000'000}));
  CHECK(lost[7] == db::Value("abc"));
  CHECK(std::get<double>(lost[8]) >= 0);
  const auto& pruned = table.rows[1];
  CHECK(pruned[1] == db::Value("pruned"));
  CHECK(pruned[2] == db::Value());
  CHECK(pruned[4] == db::Value());
  CHECK(pruned[5] == db::Value());
  CHECK(pruned[6] == db::Value(std::int64_t{5}));
}

TEST_CASE("a writer that was replaced is refused by name, and not a row of it gets in", "[db][store][owner]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  const auto key = sweeps::trial_key(test::trial(-8)), other = sweeps::trial_key(test::trial(-7));
  auto stale = test::store_with(file, {test::trial(-8), test::trial(-7)});
  stale.finish(other, stale.start(other, kCpu), finished(3));
  stale.start(key, kCpu);
  auto owner = db::Store::open(file, test::codec());
  CHECK(owner.start(key, kCpu) == 2);  // the stale one's attempt has ended with it
  CHECK(trouble([&] { stale.finish(key, 1, finished(1)); }) == db::Trouble::owned);
  stale.append_curve(key, 1, "train_loss", {1}, {1});
  CHECK(trouble([&] { stale.flush(); }) == db::Trouble::owned);
  CHECK(trouble([&] { stale.record("run", "late"); }) == db::Trouble::owned);
  CHECK_THROWS_WITH(stale.retry_failed(), ContainsSubstring("pid " + std::to_string(::getpid()) + " on "));
  owner.finish(key, 2, finished(2));
  CHECK(owner.results().at(0).loss == 2);
  CHECK(owner.curves().empty());
  CHECK(db::run_query(file, "SELECT 1 FROM event WHERE message = 'late'").rows.empty());
  CHECK(db::run_query(file, "SELECT 1 FROM attempt WHERE trial_id = 1 AND state = 2").rows.size() == 1);
}

TEST_CASE("a damaged database is refused as such and left as it is", "[db][store]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  test::store_with(file, {test::trial(-8), test::trial(-7)});
  auto content = test::bytes(file);
  REQUIRE(content.size() > 8192);
  for (std::size_t i = 4096; i < content.size(); ++i) content[i] = '\x5a';
  std::ofstream(file, std::ios::binary) << content;
  CHECK(trouble([&] { db::Store::open(file, test::codec()); }) == db::Trouble::corrupt);
  CHECK(test::bytes(file) == content);
}

TEST_CASE("a place where nothing can be written is named", "[db][store]") {
  // Not a matter of permissions, so that it also fails for root: a file cannot be a folder.
  const TemporaryFolder folder;
  std::ofstream(folder / "file") << "x";
  CHECK(trouble([&] { db::Store::open(folder / "file/a.db", test::codec()); }) == db::Trouble::environment);
  CHECK(trouble([&] { db::Store::open("/proc/a.db", test::codec()); }) == db::Trouble::environment);
  CHECK_THROWS_WITH(db::Store::open("/proc/a.db", test::codec()), ContainsSubstring("/proc/a.db"));
  CHECK(trouble([&] { db::Reader(folder / "none.db", test::codec()); }) == db::Trouble::environment);
}

TEST_CASE("a reader sees what is committed while the writer is at work", "[db][store]") {
  const TemporaryFolder folder;
  auto store = test::store_with(folder / "a.db", {test::trial(-8)});
  const auto key = sweeps::trial_key(test::trial(-8));
  const db::Reader reader(folder / "a.db", test::codec());
  CHECK(reader.results().at(0).state == TrialState::waiting);
  store.start(key, kCpu);
  CHECK(reader.results().at(0).state == TrialState::running);
}

TEST_CASE("states that share a commit are seen by readers with it and not before", "[db][store]") {
  const TemporaryFolder folder;
  std::vector<sweeps::TrialSpec> trials;
  for (int i = 0; i < 3; ++i) trials.push_back(test::trial(-8 + i));
  auto store = test::store_with(folder / "a.db", trials);
  const db::Reader reader(folder / "a.db", test::codec());
  store.set_group_commit(std::chrono::hours(1));
  for (const auto& spec : trials) {
    const auto key = sweeps::trial_key(spec);
    store.start(key, kCpu);
    store.append_curve(key, 1, "eval_loss", {1, 2}, {0.5, -0.25});
    if (spec != trials.back()) store.finish(key, 1, finished(1));
  }
  // What is refused takes nothing along.
  CHECK(trouble([&] { store.finish(sweeps::trial_key(trials[0]), 1, finished(2)); }) == db::Trouble::state);
  CHECK(trouble([&] { store.finish(sweeps::trial_key(trials[2]), 1, finished(std::nan(""))); }) ==
        db::Trouble::state);
  CHECK(store.has_uncommitted());
  CHECK(store.results().at(0).state == TrialState::complete);
  CHECK(reader.results().at(0).state == TrialState::waiting);
  store.flush();
  CHECK_FALSE(store.has_uncommitted());
  const auto results = reader.results();
  CHECK(results.at(0).loss == 1);
  CHECK(results.at(1).state == TrialState::complete);
  CHECK(results.at(2).state == TrialState::running);
  CHECK(results.at(2).evaluations.losses == std::vector<double>{0.5, -0.25});

  store.finish(sweeps::trial_key(trials[2]), 1, finished(3));
  store.set_group_commit({});  // no more sharing: what is open goes first
  CHECK(reader.results().at(2).loss == 3);
}

TEST_CASE("a shared commit waits no longer than it may", "[db][store]") {
  const TemporaryFolder folder;
  auto store = test::store_with(folder / "a.db", {test::trial(-8)});
  const db::Reader reader(folder / "a.db", test::codec());
  store.set_group_commit(std::chrono::milliseconds(1));
  const auto key = sweeps::trial_key(test::trial(-8));
  store.start(key, kCpu);
  ::usleep(2000);
  store.note_started(key, 1, 0);
  CHECK_FALSE(store.has_uncommitted());
  CHECK(reader.results().at(0).state == TrialState::running);
}

TEST_CASE("killing the writer at any moment loses no acknowledged row", "[db][store]") {
  const TemporaryFolder folder;
  std::vector<sweeps::TrialSpec> trials;
  for (int i = 0; i < 400; ++i) trials.push_back(test::trial(-8 + i * 1e-3));
  for (const int milliseconds : {3, 11, 29}) {
    const auto file = folder / (std::to_string(milliseconds) + ".db");
    test::store_with(file, trials);
    int acknowledged[2];
    REQUIRE(::pipe(acknowledged) == 0);
    const pid_t writer = ::fork();
    if (writer == 0) {
      auto store = db::Store::open(file, test::codec());
      for (char i = 0; const auto& spec : trials) {
        const auto key = sweeps::trial_key(spec);
        store.finish(key, store.start(key, kCpu), finished(1));
        if (::write(acknowledged[1], &i, 1) != 1) break;
      }
      ::_exit(0);
    }
    ::close(acknowledged[1]);
    char byte;
    std::size_t rows = 0;
    REQUIRE(::read(acknowledged[0], &byte, 1) == 1);
    ++rows;
    ::usleep(static_cast<useconds_t>(milliseconds) * 1000);
    ::kill(writer, SIGKILL);
    while (::read(acknowledged[0], &byte, 1) == 1) ++rows;
    ::close(acknowledged[0]);
    ::waitpid(writer, nullptr, 0);

    auto store = db::Store::open(file, test::codec());
    std::size_t complete = 0;
    for (const auto& result : store.results()) {
      CHECK(result.state != TrialState::running);
      complete += result.state == TrialState::complete;
    }
    CHECK(complete >= rows);
    CHECK(complete <= rows + 1);
  }
}

TEST_CASE("killing a writer whose states share commits loses none that it told after a flush",
          "[db][store][faults]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  const int num_kills = test::times(20, 200);
  std::vector<sweeps::TrialSpec> trials;
  constexpr std::size_t kPerWriter = 100;
  for (std::size_t i = 0; i < kPerWriter * static_cast<std::size_t>(num_kills); ++i) trials.push_back(test::trial(-8 + 1e-6 * static_cast<double>(i)));
  test::store_with(file, trials);
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::set<std::int64_t> told;
  for (int kill = 0; kill < num_kills; ++kill) {
    int channel[2];
    REQUIRE(::pipe(channel) == 0);
    const pid_t writer = ::fork();
    if (writer == 0) {
      auto store = db::Store::open(file, test::codec());
      store.set_group_commit(std::chrono::milliseconds(10));
      std::vector<std::int64_t> untold;
      for (const auto& row : db::run_query(file, "SELECT id FROM trial WHERE state = 0 ORDER BY id").rows)
        untold.push_back(std::get<std::int64_t>(row[0]));
      for (std::size_t i = 0, first = 0; i < std::min(kPerWriter, untold.size()); ++i) {
        const auto trial = store.waiting_trial(untold[i]);
        const auto attempt = store.start(trial.key, kCpu);
        store.append_curve(trial.key, attempt, "train_loss", {1, 2}, {4, 3});
        store.finish(trial.key, attempt, finished(static_cast<double>(trial.id)));
        if (random() % 8 != 0) continue;
        store.flush();
        for (; first <= i; ++first)
          if (::write(channel[1], &untold[first], sizeof untold[first]) < 0) ::_exit(1);
      }
      ::pause();
    }
    ::close(channel[1]);
    std::int64_t id = 0;
    const auto hear = [&] { return ::read(channel[0], &id, sizeof id) == sizeof id; };
    REQUIRE(hear());
    told.insert(id);
    ::usleep(static_cast<useconds_t>(random() % 10'000));
    ::kill(writer, SIGKILL);
    while (hear()) told.insert(id);
    ::close(channel[0]);
    ::waitpid(writer, nullptr, 0);
    random.discard(1);  // the next writer groups its commits otherwise

    const auto rows = [&](const std::string& sql) { return db::run_query(file, sql).rows; };
    CHECK(SQLite::Database(file.string()).execAndGet("PRAGMA integrity_check").getString() == "ok");
    std::set<std::int64_t> kept;
    for (const auto& row : rows("SELECT trial.id FROM trial JOIN curve_chunk ON trial_id = trial.id "
                                "WHERE state = 2 AND loss = trial.id AND curve_chunk.steps = '[1,2]'"))
      kept.insert(std::get<std::int64_t>(row[0]));
    CHECK(std::includes(kept.begin(), kept.end(), told.begin(), told.end()));
    CHECK(rows("SELECT 1 FROM attempt GROUP BY trial_id HAVING count(*) FILTER (WHERE state = 2) > 1").empty());
  }
}

// A killed run leaves its write-ahead log; a new database of that name once took the old rows from it.
TEST_CASE("a database that was deleted does not come back into the next of its name", "[db][store]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  {
    auto store = test::store_with(file, {test::trial(-8)});
    std::filesystem::copy_file(file.string() + "-wal", folder / "kept");
  }
  std::filesystem::remove(file);
  std::filesystem::rename(folder / "kept", file.string() + "-wal");
  auto store = db::Store::open(file, test::codec());
  CHECK(store.results().empty());
}
