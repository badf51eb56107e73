// The power goes, or the disk fails: what was acknowledged is there, and nobody goes on as if nothing had been.
#include <cstdlib>
#include <fstream>
#include <random>

#include "db/health.h"
#include "db/query.h"
#include "db/sqlite.h"
#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/unsynced_vfs.h"

namespace fs = std::filesystem;

namespace {

const db::AttemptInfo kCpu{
    .device = "cpu", .device_name = "", .host = "here", .worker_pid = 7, .worker_build = "b", .log = "l"};

/// Repeats in CI; TUNEONCE_SOAK=1000 asks for more.
int repeats(int in_ci) {
  const char* soak = std::getenv("TUNEONCE_SOAK");
  return soak ? std::max(in_ci, std::atoi(soak)) : in_ci;
}

std::vector<sweeps::TrialSpec> trials(int count) {
  std::vector<sweeps::TrialSpec> specs;
  for (int i = 0; i < count; ++i) specs.push_back(test::trial(-8 + i * 1e-3));
  return specs;
}

/// Trains all of `specs`; returns how many results were acknowledged before it was stopped.
int train(const fs::path& file, const std::vector<sweeps::TrialSpec>& specs, bool& failed) {
  int acknowledged = 0;
  try {
    auto store = db::Store::open(file, test::codec());
    for (const auto& spec : specs) {
      const auto key = sweeps::trial_key(spec);
      const auto attempt = store.start(key, kCpu);
      store.append_curve(key, attempt, "eval_loss", {4}, {3.0 + acknowledged});
      store.finish(key, attempt, sweeps::Finished{.loss = 2.0 + acknowledged, .floor = {}, .steps = 8, .seconds = 1});
      ++acknowledged;
    }
  } catch (const db::StoreError&) {
    failed = true;
  }
  return acknowledged;
}

/// The first `acknowledged` results are there, true, and each once; nothing is left running.
void check_all_there(const fs::path& file, int acknowledged) {
  REQUIRE_NOTHROW(db::Store::open(file, test::codec()));
  CHECK(db::problems_of(file).empty());
  const auto rows = db::run_query(file, "SELECT loss FROM results WHERE state = 'complete' ORDER BY trial").rows;
  CHECK(static_cast<int>(rows.size()) >= acknowledged);
  CHECK(static_cast<int>(rows.size()) <= acknowledged + 1);
  for (std::size_t i = 0; i < rows.size(); ++i) CHECK(std::get<double>(rows[i][0]) == 2.0 + static_cast<double>(i));
  CHECK(db::run_query(file, "SELECT 1 FROM results WHERE state = 'running'").rows.empty());
  CHECK(db::run_query(file, "SELECT 1 FROM attempt WHERE state = 2 GROUP BY trial_id HAVING count(*) > 1").rows.empty());
}

}  // namespace

TEST_CASE("the power goes at any write: what was acknowledged is there", "[db][power][F4][slow]") {
  constexpr int kTrials = 12;
  const TemporaryFolder folder;
  const auto specs = trials(kTrials);
  std::int64_t calls = 0;
  {
    test::store_with(folder / "count.db", specs);
    test::UnsyncedVfs disk;
    bool failed = false;
    REQUIRE(train(folder / "count.db", specs, failed) == kTrials);
    calls = disk.num_calls();
  }
  REQUIRE(calls > 50);
  const int n = repeats(200);
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
      bool failed = false;
      acknowledged = train(file, specs, failed);
      cuts += disk.is_cut();
      disk.lose_unsynced(seed);
    }
    fs::remove(file.string() + "-shm");  // memory
    check_all_there(file, acknowledged);
  }
  CHECK(cuts > n / 2);
}

TEST_CASE("a log that is cut anywhere loses only what came after the cut", "[db][power][F4][slow]") {
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
  const auto n = std::min<std::size_t>(points, static_cast<std::size_t>(repeats(200)));
  for (std::size_t i = 0; i < n; ++i) {
    const auto cut = (1 + i * points / n) * kSector;
    CAPTURE(cut);
    const auto damaged = folder / "cut.db";
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(damaged.string() + suffix);
    std::ofstream(damaged, std::ios::binary) << content;
    std::ofstream(damaged.string() + "-wal", std::ios::binary) << log.substr(0, cut);
    const auto acknowledged = std::count_if(size_after.begin(), size_after.end(), [&](auto size) { return size <= cut; });
    // Cut before the log says so, the file misses it: an error, not silence.
    try {
      auto store = db::Store::open(damaged, test::codec());
      const auto results = store.results();
      CHECK(std::count_if(results.begin(), results.end(), [](const auto& r) {
              return r.state == sweeps::TrialState::complete;
            }) == acknowledged);
    } catch (const db::StoreError& error) {
      CHECK(error.trouble == db::Trouble::corrupt);
      CHECK(acknowledged == 0);
    }
  }
}

TEST_CASE("a call that fails once is not tried again: the store closes, and the next one checks", "[db][power][F7][slow]") {
  const int n = repeats(20);
  const auto specs = trials(6);
  int failures = 0;
  for (const auto call : {test::Call::write, test::Call::short_write, test::Call::sync})
    for (int i = 0; i < n; ++i) {
      const int nth = 1 + i * (call == test::Call::sync ? 1 : 3);
      CAPTURE(static_cast<int>(call), nth);
      const TemporaryFolder folder;
      const auto file = folder / "a.db";
      test::store_with(file, specs);
      int acknowledged = 0;
      bool failed = false;
      {
        test::UnsyncedVfs disk;
        disk.fail(call, nth);
        acknowledged = train(file, specs, failed);
        if (!disk.has_failed()) continue;
        ++failures;
        if (acknowledged < static_cast<int>(specs.size())) CHECK(failed);
        disk.lose_unsynced(static_cast<std::uint64_t>(nth));
      }
      fs::remove(file.string() + "-shm");
      check_all_there(file, acknowledged);
    }
  CHECK(failures > n);
}

TEST_CASE("after a failed sync every call is refused, although the disk works again", "[db][power][F7]") {
  const TemporaryFolder folder;
  const auto file = folder / "a.db";
  const auto specs = trials(3);
  test::store_with(file, specs);
  test::UnsyncedVfs disk;
  auto store = db::Store::open(file, test::codec());
  const auto key = sweeps::trial_key(specs[0]);
  store.start(key, kCpu);
  disk.fail(test::Call::sync, 1);
  CHECK_THROWS_AS(store.finish(key, 1, sweeps::Finished{.loss = 2, .floor = {}, .steps = 8, .seconds = 1}), db::StoreError);
  CHECK(disk.has_failed());
  CHECK_THROWS_WITH(store.finish(key, 1, sweeps::Finished{.loss = 2, .floor = {}, .steps = 8, .seconds = 1}),
                    ContainsSubstring("not written to any more"));
  CHECK_THROWS_WITH(store.record("run", "x"), ContainsSubstring("not written to any more"));
}
