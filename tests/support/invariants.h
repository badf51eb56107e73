#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

/// A sweep whose runs are disturbed on purpose, and what must hold whatever was done to them.
namespace test {

/// How often a fault is done: `ci` times; `soak` times where TUNEONCE_SOAK=1; a share of that, and at least
/// `ci`, where it is a number below 1.
int times(int ci, int soak);

/// Random numbers of one test. The seed is fixed, TUNEONCE_SEED, or with TUNEONCE_SOAK a new one each time;
/// it is printed with the test's name.
class Random {
 public:
  explicit Random(const std::string& test);
  std::int64_t between(std::int64_t low, std::int64_t high);  // both included
  void pause(int low_ms, int high_ms);

 private:
  std::mt19937_64 generator_;
};

/// How one run of a sweep is made.
struct RunSetup {
  std::string behaviour = {};  // of the fake worker, see there; dir is added
  std::string fault = {};      // words for the shim, see tests/support/fault_shim.cpp; empty: it is left out
  int workers = 2;             // 0: as the program chooses
  std::vector<std::string> more = {};  // arguments
  Command::Environment environment = {};
};

/// Texts of a study file and what stands there instead.
using Changes = std::map<std::string, std::string>;

/// A grid of 5 x 5 cells, its proxy only, of 20 steps with a checkpoint every second one, in a folder of its
/// own. Every process of its runs carries a mark in its environment; what the runs tell stands in told.log.
class DisturbedSweep {
 public:
  /// `database` may lie elsewhere.
  explicit DisturbedSweep(const Changes& changes = {}, const std::filesystem::path& database = "five.db");

  std::unique_ptr<Command> start(const RunSetup& setup = {}) const;
  Ended run(const RunSetup& setup = {}) const { return start(setup)->wait(120); }
  /// `tuneonce` with other arguments, marked too.
  Ended command(const std::vector<std::string>& arguments) const;

  std::filesystem::path folder() const { return folder_.path(); }
  std::filesystem::path file(const std::string& name) const { return folder_ / name; }
  std::filesystem::path database() const;

  /// How many of its runs have printed this on stderr by now?
  int said(const std::string& text) const;

  /// First column of a query, as numbers; empty while there is no database.
  std::vector<std::int64_t> numbers(const std::string& sql) const;
  std::int64_t count(const std::string& what) const;
  /// Trials that have ended.
  std::int64_t num_ended() const { return count("trial WHERE state IN (2, 3)"); }
  /// The results table and what the curves add up to, without what differs between runs.
  std::string table() const { return table(database()); }
  std::string table(const std::filesystem::path& database) const;

  /// Remembers what is on the disk now: check_invariants() asks for it again.
  void acknowledge();
  /// Processes of its runs that live.
  std::vector<pid_t> processes() const;
  /// SIGKILL to all of them, as if the machine was switched off.
  void kill_all() const;

 private:
  friend void check_invariants(const DisturbedSweep& sweep, bool killed);

  TemporaryFolder folder_;
  std::string mark_;
  std::filesystem::path database_;
  std::map<std::int64_t, std::string> acknowledged_;  // trial -> how it ended
};

/// What such a sweep comes to without a fault.
const std::string& undisturbed_table();

/// When no run is on any more:
///   I1 the database is sound, all references hold;
///   I2 what was acknowledged and what the runs told is there, unchanged, and no attempt's curve has a point
///   twice; I3 no trial has more than one accepted result, nor another than the one that was accepted; I4
///   after a run that ended by itself (not `killed`), no row is running; I5 no process is left within five
///   seconds.
void check_invariants(const DisturbedSweep& sweep, bool killed = false);

/// `num_failed` trials and no others have failed for good; these are asked for again. Then the same command,
/// without a fault: exit code 0 (I7), all of the above, and the table of a sweep that was never disturbed
/// (I6).
void check_finishes(const DisturbedSweep& sweep, std::int64_t num_failed = 0);

}  // namespace test
