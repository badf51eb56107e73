// What holds without a fault, too: every cell once, the same numbers at any width, one owner, readers at
// work.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

#include <fmt/format.h>

#include "db/sqlite.h"
#include "orchestrator/build_info.h"
#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/invariants.h"

using test::check_finishes;
using test::check_invariants;
using test::DisturbedSweep;
using test::eventually;

namespace {

/// How those who are refused are told of it.
std::string as_owner(const test::Command& run) {
  return fmt::format("pid {} on {}", run.pid(), db::host_name());
}

}  // namespace

TEST_CASE("requirement 1: readers and a writer do not lock each other out", "[faults][requirement][slow]") {
  // Eight workers send 1000 rows a second each for ten seconds or so, 32 readers ask without a pause.
  const DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = "rows=3000", .workers = 8});
  REQUIRE(eventually([&] { return sweep.count("attempt WHERE state = 1") == 8; }));
  std::atomic<int> num_reads = 0, num_failed = 0;
  std::vector<std::string> complaints(32);
  std::vector<double> longest(32);  // seconds that a reader waited for an answer
  std::vector<std::thread> readers;
  const std::array<std::string, 4> questions = {"status", "results", "best", "query"};
  for (int i = 0; i < 32; ++i)
    readers.emplace_back([&, i] {
      std::string command = "cd '" + sweep.folder().string() + "' && nice '" TUNEONCE_PROGRAM "' " +
                            questions[static_cast<std::size_t>(i) % questions.size()];
      if (i % 4 == 3) command += " 'SELECT count(*) FROM curve_chunk'";
      command += fmt::format(" five.db >/dev/null 2>reader-{}", i);
      while (!run->has_ended() && complaints[static_cast<std::size_t>(i)].empty()) {
        ++num_reads;
        const auto asked = std::chrono::steady_clock::now();
        const bool answered = std::system(command.c_str()) == 0;
        auto& seconds = longest[static_cast<std::size_t>(i)];
        seconds = std::max(seconds,
                           std::chrono::duration<double>(std::chrono::steady_clock::now() - asked).count());
        if (!answered) {
          ++num_failed;
          complaints[static_cast<std::size_t>(i)] = test::read_text(sweep.file(fmt::format("reader-{}", i)));
        }
      }
    });
  CHECK(eventually([&] { return run->has_ended(); }, 100));
  for (auto& reader : readers) reader.join();
  CAPTURE(complaints);
  CHECK(num_failed == 0);
  CHECK(num_reads > 32);
  // Asked for is a second, on a machine that has one for each reader; one that is locked out waits for ten.
  CAPTURE(longest);
  CHECK(*std::ranges::max_element(longest) < 10);
  const auto ended = run->wait();
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt") == 25);
  CHECK(sweep.count("curve_chunk WHERE metric = 'more'") == 25 * 3000);
}

TEST_CASE("requirement 2: of 32 runs started at once on a path that does not exist one becomes the owner",
          "[faults][requirement][F10]") {
  const DisturbedSweep sweep;
  std::vector<std::unique_ptr<test::Command>> runs;
  for (int i = 0; i < 32; ++i) runs.push_back(sweep.start({.behaviour = "sleep_ms=1000", .workers = 1}));
  std::vector<std::string> owners;
  std::vector<test::Ended> refused;
  for (auto& run : runs) {
    const auto name = as_owner(*run);
    const auto ended = run->wait(120);
    if (ended.code == 0)
      owners.push_back(name);
    else
      refused.push_back(ended);
  }
  REQUIRE(owners.size() == 1);
  for (const auto& ended : refused) {
    INFO(ended.err);
    CHECK(ended.code == 5);
    CHECK_THAT(ended.err, ContainsSubstring(owners[0]));
  }
  CHECK(sweep.count("run") == 1);
  CHECK(sweep.count("attempt") == 25);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
}

TEST_CASE("of two runs started at once, again and again, one is told who the other is", "[faults][F10]") {
  const DisturbedSweep sweep;  // at first there is no file, then one whose owner was killed
  for (int i = 0, n = test::times(20, 200); i < n; ++i) {
    CAPTURE(i);
    const std::array runs = {sweep.start({.behaviour = "sleep_ms=60000"}),
                             sweep.start({.behaviour = "sleep_ms=60000"})};
    REQUIRE(eventually([&] { return runs[0]->has_ended() || runs[1]->has_ended(); }));
    auto &refused = *runs[runs[0]->has_ended() ? 0 : 1], &owner = *runs[runs[0]->has_ended() ? 1 : 0];
    const auto ended = refused.wait();
    INFO(ended.err);
    CHECK(ended.code == 5);
    CHECK_THAT(ended.err, ContainsSubstring(as_owner(owner)));
    REQUIRE(eventually([&] { return sweep.count("attempt WHERE state = 1") == 2; }));
    CHECK_FALSE(owner.has_ended());
    owner.signal(SIGKILL);
    owner.wait();
  }
  check_finishes(sweep);
}

TEST_CASE("an owner that was stopped while another took over writes nothing more", "[faults][F10]") {
  for (int i = 0, n = test::times(8, 80); i < n; ++i) {
    const bool at_work = i % 2 == 0;  // the other one, when this one wakes up
    CAPTURE(i, at_work);
    DisturbedSweep sweep;
    const auto stale = sweep.start({.behaviour = "sleep_ms=60"});
    REQUIRE(eventually([&] { return sweep.num_ended() >= 2; }));
    // Not within a transaction, which would keep everybody out.
    REQUIRE(eventually([&] {
      stale->signal(SIGSTOP);
      try {
        test::run_sql(sweep.database(), "BEGIN IMMEDIATE; ROLLBACK");
        return true;
      } catch (const SQLite::Exception&) {
        stale->signal(SIGCONT);
        return false;
      }
    }));
    sweep.acknowledge();
    std::filesystem::remove(sweep.file("five.db.lock"));  // by hand, say
    const auto owner = sweep.start({.behaviour = "sleep_ms=40"});
    const auto name = as_owner(*owner);
    REQUIRE(eventually([&] { return sweep.count("run") == 2; }));
    const auto wait_for_owner = [&] {
      const auto ended = owner->wait();
      INFO(ended.err);
      CHECK(ended.code == 0);
    };
    if (!at_work) wait_for_owner();
    stale->signal(SIGCONT);
    const auto late = stale->wait();
    INFO(late.err);
    CHECK(late.code == 5);
    CHECK_THAT(late.err, ContainsSubstring(name));
    if (at_work) wait_for_owner();
    check_invariants(sweep);
    CHECK(sweep.table() == test::undisturbed_table());
  }
}

TEST_CASE("a database that is removed or replaced under a run is noticed", "[faults][F10]") {
  const bool replaced = GENERATE(false, true);
  CAPTURE(replaced);
  const DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = "sleep_ms=100"});
  REQUIRE(eventually([&] { return sweep.num_ended() >= 2; }));
  if (replaced) {
    std::filesystem::copy_file(sweep.database(), sweep.file("copy"));
    std::filesystem::rename(sweep.file("copy"), sweep.database());
  } else {
    std::filesystem::remove(sweep.database());
  }
  const auto ended = run->wait();
  INFO(ended.err);
  CHECK(ended.code == 6);
  CHECK_THAT(ended.err, ContainsSubstring("was removed, or replaced by another file"));
  CHECK(eventually([&] { return sweep.processes().empty(); }, 5));
}

TEST_CASE("requirement 7: every cell exactly once at 1, 2, 8 and 32 workers", "[faults][requirement]") {
  for (const int workers : {1, 2, 8, 32}) {
    const int repeats = workers == 8 ? 100 : 1;
    for (int i = 0; i < repeats; ++i) {
      INFO(workers << " workers, repeat " << i);
      const DisturbedSweep sweep;
      CHECK(sweep.run({.workers = workers}).code == 0);
      CHECK(sweep.count("trial WHERE state = 2") == 25);
      CHECK(sweep.count("(SELECT DISTINCT lr, wd FROM trial)") == 25);
      CHECK(sweep.count("attempt") == 25);
      check_invariants(sweep);
    }
  }
}

TEST_CASE("requirement 13: the results table is the same at 1, 2 and 8 workers, byte by byte",
          "[faults][requirement]") {
  for (const int workers : {1, 2, 8}) {
    INFO(workers << " workers");
    const DisturbedSweep sweep;
    CHECK(sweep.run({.behaviour = workers == 8 ? "sleep_ms=30" : "", .workers = workers}).code == 0);
    CHECK(sweep.table() == test::undisturbed_table());
    CHECK(sweep.count("trial WHERE seed = ''") == 0);
    CHECK(sweep.count("study WHERE length(hash) < 8 OR text = '' OR program = '' OR fingerprint = ''") == 0);
    CHECK(sweep.count("attempt WHERE device IS NULL OR worker_build IS NULL OR host IS NULL") == 0);
    const auto commit = orchestrator::git_commit();
    CHECK((commit == "unknown" || commit.size() >= 40));
    CHECK(sweep.count("run WHERE length(program_hash) = 32 AND length(worker_hash) = 32 AND git_commit = '" +
                      commit + "'") == 1);
  }
}

TEST_CASE("requirement 13: nor does the order of the cells change it", "[faults][requirement]") {
  const std::array lrs = {"8e-4", "1.6e-3", "3.2e-3", "6.4e-3", "1.28e-2"},
                   wds = {"0.05", "0.07", "0.1", "0.14", "0.2"};
  std::string points;
  for (std::size_t i = 0; i < 25; ++i)
    points += fmt::format("[{}, {}], ", lrs[i * 7 % 25 / 5], wds[i * 7 % 5]);
  const DisturbedSweep sweep;
  const DisturbedSweep shuffled(
      test::Changes{{"[space]\nlr = { values = [8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2] }\n"
                     "wd = { values = [0.05, 0.07, 0.1, 0.14, 0.2] }\n[search]\nmethod = \"grid\"",
                     "[search]\nmethod = \"list\"\npoints = [" + points + "]"}});
  const auto rows = [](const DisturbedSweep& some, const std::string& order) {
    return some
        .command({"query", "SELECT lr, wd, seed, state, loss, steps FROM results ORDER BY " + order,
                  "five.db", "--format", "csv"})
        .out;
  };
  CHECK(sweep.run({.workers = 1}).code == 0);
  CHECK(shuffled.run({.workers = 1}).code == 0);
  CHECK(shuffled.count("trial") == 25);
  const std::string start = "(SELECT started FROM attempt WHERE trial_id = trial)";
  CHECK(rows(shuffled, start) != rows(sweep, start));
  CHECK(rows(shuffled, "lr, wd") == rows(sweep, "lr, wd"));
}

TEST_CASE("another worker program and other GPUs between stop and resume change no trial", "[faults][F20]") {
  const auto [before, after] = GENERATE(table<int, int>({{4, 2}, {2, 4}}));
  CAPTURE(before, after);
  DisturbedSweep sweep;
  const auto gpus = [&](int number) {
    std::ofstream file(sweep.file("gpus"));
    for (int i = 0; i < number; ++i) file << fmt::format("GPU-{} Fake 24576 1024\n", i);
    return test::Command::Environment{{"LD_LIBRARY_PATH", TUNEONCE_FAKE_NVML_FOLDER},
                                      {"TUNEONCE_FAKE_NVML", sweep.file("gpus").string()}};
  };
  const auto first = sweep.start({.behaviour = "sleep_ms=100", .workers = 0, .environment = gpus(before)});
  REQUIRE(eventually([&] { return sweep.num_ended() >= 5; }));
  first->signal(SIGINT);
  CHECK(first->wait().code == 130);
  sweep.acknowledge();
  const auto worker = sweep.file("another-worker");
  std::filesystem::copy_file(TUNEONCE_FAKE_WORKER, worker);
  std::ofstream(worker, std::ios::app) << '\n';
  auto environment = gpus(after);
  environment["TUNEONCE_WORKER"] = worker.string();
  const auto second = sweep.run({.behaviour = "sleep_ms=100", .workers = 0, .environment = environment});
  INFO(second.err);
  CHECK(second.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt AS a JOIN attempt AS b USING (trial_id) WHERE a.run_id = 1 AND a.state = 2 "
                    "AND b.run_id = 2") == 0);
  CHECK(sweep.count("(SELECT DISTINCT device_uuid FROM attempt WHERE run_id = 1)") == before);
  CHECK(sweep.count("(SELECT DISTINCT device_uuid FROM attempt WHERE run_id = 2)") == after);
  CHECK(sweep.count("(SELECT DISTINCT worker_hash FROM run)") == 2);
  CHECK(sweep.count("(SELECT DISTINCT program_hash FROM run)") == 1);
}

TEST_CASE("runs in different folders whose databases have the same name do not touch each other",
          "[faults]") {
  const DisturbedSweep one, other;
  const auto run = one.start({.behaviour = "sleep_ms=100"});
  for (int i = 0; i < 3; ++i) {
    const auto ended = other.run({.behaviour = "sleep_ms=10"});
    CHECK(ended.err.find("left behind") == std::string::npos);
    std::filesystem::remove(other.database());
  }
  CHECK(run->wait().code == 0);
  check_invariants(one);
  CHECK(one.count("attempt") == 25);
}
