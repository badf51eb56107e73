// The power goes, or the disk fails: what was acknowledged is there, and nobody goes on as if nothing had
// been.
#include <fstream>
#include <optional>

#include "db/health.h"
#include "db/query.h"
#include "db/sqlite.h"
#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/invariants.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/unsynced_vfs.h"

namespace fs = std::filesystem;

namespace {

const db::AttemptInfo kCpu{
    .device = "cpu", .device_name = "", .host = "here", .worker_pid = 7, .worker_build = "b", .log = "l"};

std::vector<sweeps::TrialSpec> trials(int count) {
  std::vector<sweeps::TrialSpec> specs;
  for (int i = 0; i < count; ++i) specs.push_back(test::trial(-8 + i * 1e-3));
  return specs;
}

/// A store that has failed is written to no more.
void check_suspect(db::Store& store) {
  CHECK_THROWS_WITH(store.record("run", "x"), ContainsSubstring("not written to any more"));
}

/// Trains all of `specs`; returns how many results were acknowledged before it was stopped.
int train(const fs::path& file, const std::vector<sweeps::TrialSpec>& specs) {
  int acknowledged = 0;
  std::optional<db::Store> store;
  try {
    store.emplace(db::Store::open(file, test::codec()));
    for (const auto& spec : specs) {
      const auto key = sweeps::trial_key(spec);
      const auto attempt = store->start(key, kCpu);
      store->append_curve(key, attempt, "eval_loss", {4}, {3.0 + acknowledged});
      store->finish(key, attempt,
                    sweeps::Finished{.loss = 2.0 + acknowledged, .floor = {}, .steps = 8, .seconds = 1});
      ++acknowledged;
    }
  } catch (const db::StoreError& error) {
    // A full disk is no doubt about what is on it.
    if (store && std::string(error.what()).find("disk is full") == std::string::npos) check_suspect(*store);
  }
  return acknowledged;
}

/// The first `acknowledged` results are there with their curves, true, and each once; nothing is left
/// running.
void check_all_there(const fs::path& file, int acknowledged) {
  REQUIRE_NOTHROW(db::Store::open(file, test::codec()));
  CHECK(db::problems_of(file).empty());
  const auto rows = db::run_query(file, R"(
    SELECT loss, (SELECT CAST(value AS REAL) FROM curves WHERE trial = results.trial AND metric = 'eval_loss' AND step = 4)
    FROM results WHERE state = 'complete' ORDER BY trial)")
                        .rows;
  CHECK(static_cast<int>(rows.size()) >= acknowledged);
  CHECK(static_cast<int>(rows.size()) <= acknowledged + 1);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CHECK(std::get<double>(rows[i][0]) == 2.0 + static_cast<double>(i));
    CHECK(rows[i][1] == db::Value(3.0 + static_cast<double>(i)));
  }
  CHECK(db::run_query(file, "SELECT 1 FROM results WHERE state = 'running'").rows.empty());
  CHECK(db::run_query(file, "SELECT 1 FROM attempt WHERE state = 2 GROUP BY trial_id HAVING count(*) > 1").rows.empty());
}

}  // namespace

TEST_CASE("the power goes at any write: what was acknowledged is there", "[db][faults][F4][slow]") {
  constexpr int kTrials = 12;
  const TemporaryFolder folder;
  const auto specs = trials(kTrials);
  std::int64_t calls = 0;
  {
    test::store_with(folder / "count.db", specs);
    test::UnsyncedVfs disk;
    REQUIRE(train(folder / "count.db", specs) == kTrials);
    calls = disk.num_calls();
  }
  REQUIRE(calls > 50);
  const int n = test::times(200, 20'000);
  int cuts = 0;
  for (int i = 0; i < n; ++i) {
    const auto file = folder / "a.db";
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(file.string() + suffix);
    test::store_with(file, specs);
    const auto at = i % calls;
    const auto seed = static_cast<std::uint64_t>(i);
    CAPTURE(at, seed);
    int acknowledged = 0;
    {
      test::UnsyncedVfs disk;
      disk.cut_after(at);
      acknowledged = train(file, specs);
      cuts += disk.is_cut();
      disk.lose_unsynced(seed);
    }
    fs::remove(file.string() + "-shm");  // memory
    check_all_there(file, acknowledged);
  }
  CHECK(cuts > n / 2);
}

TEST_CASE("a log that is cut anywhere loses only what came after the cut", "[db][faults][F4][slow]") {
  constexpr std::size_t kSector = 512;
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  const auto specs = trials(12);
  std::string content, log;
  std::vector<std::size_t> size_after;  // of the log, when the i-th result was acknowledged
  {
    auto store = test::store_with(file, specs);
    for (const auto& spec : specs) {
      const auto key = sweeps::trial_key(spec);
      store.finish(key, store.start(key, kCpu),
                   sweeps::Finished{.loss = 2.0 + static_cast<double>(size_after.size()), .floor = {}, .steps = 8, .seconds = 1});
      size_after.push_back(fs::file_size(file.string() + "-wal"));
    }
    content = test::bytes(file);
    log = test::bytes(file.string() + "-wal");
  }
  const auto points = log.size() / kSector;
  REQUIRE(points > 100);
  const auto n = std::min<std::size_t>(points, static_cast<std::size_t>(test::times(200, 20'000)));
  for (std::size_t i = 0; i < n; ++i) {
    const auto cut = (1 + i * points / n) * kSector;
    CAPTURE(cut);
    const auto damaged = folder / "cut.db";
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(damaged.string() + suffix);
    std::ofstream(damaged, std::ios::binary) << content;
    std::ofstream(damaged.string() + "-wal", std::ios::binary) << log.substr(0, cut);
    const auto acknowledged = std::count_if(size_after.begin(), size_after.end(), [&](auto size) { return size <= cut; });
    auto store = db::Store::open(damaged, test::codec());
    const auto results = store.results();
    CHECK(std::count_if(results.begin(), results.end(), [](const auto& r) {
            return r.state == sweeps::TrialState::complete;
          }) == acknowledged);
  }
}

TEST_CASE(
    "a call that fails once is not tried again: the store is written to no more, and the next one checks",
    "[db][faults][F7][slow]") {
  const auto specs = trials(6);
  const auto call = GENERATE(test::Call::write, test::Call::short_write, test::Call::sync);
  const int step = call == test::Call::sync ? 1 : 3;
  int failures = 0, stopped = 0;
  for (int i = 0, nth = 1, n = test::times(20, 300); i < n; ++i, nth += step) {
    CAPTURE(static_cast<int>(call), nth, i);
    const TemporaryFolder folder;
    const auto file = folder / "a.db";
    test::store_with(file, specs);
    int acknowledged = 0;
    {
      test::UnsyncedVfs disk;
      disk.fail(call, nth);
      acknowledged = train(file, specs);
      if (!disk.has_failed()) nth = 1 - step;  // there are no more calls: once more from the first one on
      failures += disk.has_failed();
      stopped += acknowledged < static_cast<int>(specs.size());
      disk.lose_unsynced(static_cast<std::uint64_t>(i));
    }
    fs::remove(file.string() + "-shm");
    check_all_there(file, acknowledged);
  }
  CHECK(failures >= 10);
  CHECK(stopped >= 10);
}

TEST_CASE("after a failed write or sync every call is refused, although the disk works again",
          "[db][faults][F7]") {
  const auto call = GENERATE(test::Call::write, test::Call::sync);
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  const auto specs = trials(3);
  test::store_with(file, specs);
  test::UnsyncedVfs disk;
  auto store = db::Store::open(file, test::codec());
  const auto key = sweeps::trial_key(specs[0]);
  store.start(key, kCpu);
  disk.fail(call, 1);
  CHECK_THROWS_AS(store.finish(key, 1, sweeps::Finished{.loss = 2, .floor = {}, .steps = 8, .seconds = 1}), db::StoreError);
  CHECK(disk.has_failed());
  CHECK_THROWS_WITH(store.finish(key, 1, sweeps::Finished{.loss = 2, .floor = {}, .steps = 8, .seconds = 1}),
                    ContainsSubstring("not written to any more"));
  check_suspect(store);
}
