// What holds without a fault, too: every cell once, the same numbers at any width, one owner, readers at
// work.
#include <array>
#include <atomic>
#include <cstdlib>
#include <thread>

#include <fmt/format.h>

#include "tests/support/catch.h"
#include "tests/support/invariants.h"

using test::check_invariants;
using test::DisturbedSweep;
using test::eventually;

TEST_CASE("requirement 1: readers and a writer do not lock each other out", "[faults][requirement][slow]") {
  // Eight workers send 1000 rows a second each for ten seconds or so, 32 readers ask without a pause.
  const DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = "rows=3000", .workers = 8});
  REQUIRE(eventually([&] { return sweep.count("attempt WHERE state = 1") == 8; }));
  std::atomic<int> num_reads = 0, num_failed = 0;
  std::vector<std::string> complaints(32);
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
        if (std::system(command.c_str()) != 0) {
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
  const auto ended = run->wait();
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt") == 25);
  CHECK(sweep.count("curve_chunk WHERE metric = 'more'") == 25 * 3000);
}

TEST_CASE("requirement 2: of 32 runs started at once on a path that does not exist one becomes the owner",
          "[faults][requirement]") {
  const DisturbedSweep sweep;
  std::vector<std::unique_ptr<test::Command>> runs;
  for (int i = 0; i < 32; ++i) runs.push_back(sweep.start({.behaviour = "sleep_ms=1000", .workers = 1}));
  int owners = 0;
  for (auto& run : runs) {
    const auto ended = run->wait(120);
    owners += ended.code == 0;
    if (ended.code == 0) continue;
    INFO(ended.err);
    CHECK(ended.code == 5);
    CHECK_THAT(ended.err, ContainsSubstring("pid ") && ContainsSubstring(" on "));
  }
  CHECK(owners == 1);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
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
  }
}

TEST_CASE("requirement 13: nor does the order of the cells change it", "[faults][requirement]") {
  const auto rows = [](const DisturbedSweep& sweep) {
    return sweep.command({"query", "SELECT lr, wd, seed, state, loss, steps FROM results ORDER BY lr, wd", "five.db",
                          "--format", "csv"})
        .out;
  };
  const DisturbedSweep sweep;
  const DisturbedSweep shuffled(test::Changes{
      {"[8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2]", "[3.2e-3, 1.28e-2, 8e-4, 6.4e-3, 1.6e-3]"},
      {"[0.05, 0.07, 0.1, 0.14, 0.2]", "[0.2, 0.07, 0.14, 0.05, 0.1]"}});
  CHECK(sweep.run().code == 0);
  CHECK(shuffled.run({.workers = 8}).code == 0);
  CHECK(shuffled.count("trial") == 25);
  CHECK(rows(shuffled) == rows(sweep));
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
