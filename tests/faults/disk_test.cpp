// The disk fills up: a small one of our own where the test may mount it, and calls that fail.
#include <algorithm>
#include <csignal>
#include <fstream>

#include <fmt/format.h>

#include "db/query.h"
#include "db/sqlite.h"
#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/invariants.h"
#include "tests/support/small_disk.h"

using test::check_finishes;
using test::check_invariants;
using test::DisturbedSweep;
using test::eventually;
using test::Random;
using test::SmallDisk;
namespace fs = std::filesystem;

namespace {

constexpr int kRoomy = 65536;

void check_full(const DisturbedSweep& sweep, const test::Ended& full) {
  INFO(full.err);
  CHECK(full.code == 6);
  CHECK_THAT(full.err, ContainsSubstring("five.db") && ContainsSubstring("full"));
  CHECK(full.err.size() < 4000);
  check_invariants(sweep, true);
}

}  // namespace

TEST_CASE(
    "the disk is full while rows are inserted: exit code 6 and what is full, with room again it goes on",
    "[faults][F6]") {
  Random random("F6 insert");
  for (int i = 0, n = test::times(6, 100); i < n; ++i) {
    const auto size = random.between(160, 600);
    INFO(size << " KiB");
    SmallDisk disk(static_cast<int>(size));
    SKIP_UNLESS_MOUNTED(disk);
    DisturbedSweep sweep({}, disk / "five.db");
    check_full(sweep, sweep.run());
    sweep.acknowledge();
    disk.grow(kRoomy);
    check_finishes(sweep);
  }
}

TEST_CASE("workers that print fill the disk: exit code 6 and what is full, with room again it goes on",
          "[faults][F6]") {
  Random random("F6 log");
  for (int i = 0, n = test::times(3, 50); i < n; ++i) {
    const auto size = random.between(1500, 6000);
    INFO(size << " KiB");
    SmallDisk disk(static_cast<int>(size));
    SKIP_UNLESS_MOUNTED(disk);
    DisturbedSweep sweep({}, disk / "five.db");
    check_full(sweep, sweep.run({.behaviour = "print_mib=1 sleep_ms=20"}));
    sweep.acknowledge();
    disk.grow(kRoomy);
    check_finishes(sweep);
  }
}

TEST_CASE("the disk is full while a database is migrated: it stays as it was, with room again it is migrated",
          "[faults][F6]") {
  for (int i = 0, n = test::times(3, 50); i < n; ++i) {
    const auto old = fs::path(TUNEONCE_SOURCE_DIR) / "tests/db/fixtures/version1.sqlite";
    const auto before = test::read_text(old);
    SmallDisk disk(static_cast<int>(before.size() / 1024) + 40 + 12 * (i % 3));
    SKIP_UNLESS_MOUNTED(disk);
    fs::copy_file(old, disk / "old.db");
    const TemporaryFolder elsewhere;
    const auto migrate = [&] {
      return test::tuneonce(elsewhere.path(), {"retry", "--failed", "--db", (disk / "old.db").string()});
    };
    const auto full = migrate();
    INFO(full.err);
    CHECK(full.code == 6);
    CHECK_THAT(full.err, ContainsSubstring("old.db") && ContainsSubstring("full"));
    CHECK(db::Reader(disk / "old.db", test::codec()).study().has_value());
    const auto version = [&] {
      return db::run_query(disk / "old.db", "PRAGMA user_version").rows.at(0).at(0);
    };
    CHECK(std::get<std::int64_t>(version()) == 1);
    disk.grow(kRoomy);
    CHECK(migrate().code == 0);
    CHECK(std::get<std::int64_t>(version()) == db::kSchemaVersion);
    CHECK(fs::exists(disk / "old.db.v1.bak"));
  }
}

TEST_CASE("no room from the n-th write on: exit code 6 and what is full, with room again it goes on",
          "[faults][F6]") {
  Random random("F6 write");
  for (int i = 0, n = test::times(12, 300); i < n; ++i) {
    const auto fault = fmt::format("who=tuneonce call=write path=five.db nth={} do=ENOSPC lasting=1",
                                   random.between(1, 500));
    INFO(fault);
    DisturbedSweep sweep;
    const auto full = sweep.run({.fault = fault});
    INFO(full.err);
    CHECK(full.code == 6);
    CHECK_THAT(full.err, ContainsSubstring("five.db") && ContainsSubstring("full"));
    sweep.acknowledge();
    check_invariants(sweep, true);
    check_finishes(sweep);
  }
}

TEST_CASE("no room for one write: the run ends with code 6 and has told nothing that is not there",
          "[faults][F6]") {
  Random random("F6 once");
  for (int i = 0, n = test::times(8, 300); i < n; ++i) {
    const auto fault =
        fmt::format("who=tuneonce call=write path=five.db-wal nth={} do=ENOSPC", random.between(100, 500));
    INFO(fault);
    DisturbedSweep sweep;
    const auto full = sweep.run({.fault = fault});
    INFO(full.err);
    CHECK(full.code == 6);
    check_invariants(sweep, true);
    check_finishes(sweep);
  }
}

TEST_CASE("a write or a sync that fails once ends the run with code 6, and the same command goes on",
          "[faults][F7]") {
  Random random("F7");
  for (int i = 0, n = test::times(12, 300); i < n; ++i) {
    const bool sync = i % 2 == 1;
    const auto fault = fmt::format("who=tuneonce call={} path=five.db nth={} do=EIO", sync ? "sync" : "write",
                                   sync ? random.between(1, 100) : random.between(1, 500));
    INFO(fault);
    DisturbedSweep sweep;
    const auto failed = sweep.run({.fault = fault});
    INFO(failed.err);
    CHECK(failed.code == 6);
    CHECK_THAT(failed.err, ContainsSubstring("five.db") && ContainsSubstring("failed"));
    sweep.acknowledge();
    check_invariants(sweep, true);
    check_finishes(sweep);
  }
}

TEST_CASE("a write that stops half-way is gone on with", "[faults][F7]") {
  Random random("F7 short");
  for (int i = 0, n = test::times(4, 100); i < n; ++i) {
    const auto fault =
        fmt::format("who=tuneonce call=write path=five.db nth={} do=short lasting=1", random.between(1, 500));
    INFO(fault);
    const DisturbedSweep sweep;
    const auto ended = sweep.run({.fault = fault});
    INFO(ended.err);
    CHECK(ended.code == 0);
    check_invariants(sweep);
    CHECK(sweep.table() == test::undisturbed_table());
  }
}

TEST_CASE("doctor says that a disk has no room for a run, and ends with code 6", "[faults][F6]") {
  SmallDisk disk(500);
  SKIP_UNLESS_MOUNTED(disk);
  const auto ended = test::tuneonce(disk / "", {"doctor"}, {{"TUNEONCE_WORKER", TUNEONCE_FAKE_WORKER}});
  CHECK(ended.code == 6);
  CHECK_THAT(ended.out, ContainsSubstring("disk      problem") && ContainsSubstring("locks     ok"));
}

TEST_CASE("requirement 14: results read the same while a run is on, after it died and from a read-only disk",
          "[faults][requirement]") {
  DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = "sleep_ms=200"});
  REQUIRE(eventually([&] { return sweep.num_ended() >= 10; }));
  const auto ended_rows = [&](const std::string& database) {
    return sweep
        .command({"query", "SELECT * FROM results WHERE state = 'complete' ORDER BY trial LIMIT 10", database,
                  "--format", "csv"})
        .out;
  };
  const auto live = ended_rows("five.db");
  CHECK(std::count(live.begin(), live.end(), '\n') == 11);
  run->signal(SIGKILL);
  run->wait();
  CHECK(ended_rows("five.db") == live);
  for (const std::string format : {"csv", "json", "jsonl", "table"})
    CHECK(sweep.command({"results", "five.db", "--format", format}).code == 0);
  SmallDisk disk(kRoomy);
  SKIP_UNLESS_MOUNTED(disk);
  for (const std::string suffix : {"", "-wal"})
    fs::copy_file(sweep.file("five.db" + suffix), disk / ("five.db" + suffix));
  check_finishes(sweep);
  const auto whole = sweep.command({"results", "five.db", "--format", "csv"}).out;
  fs::copy_file(sweep.file("five.db"), disk / "whole.db");
  disk.make_read_only(kRoomy);
  const auto read_only = sweep.command({"results", (disk / "whole.db").string(), "--format", "csv"});
  INFO(read_only.err);
  CHECK(read_only.out == whole);
  // Rows that only the log holds cannot be read there: no answer is better than one without them.
  const auto without_log = sweep.command({"results", (disk / "five.db").string()});
  CHECK(without_log.code == 6);
  CHECK_THAT(without_log.err, ContainsSubstring("five.db-wal"));
}
