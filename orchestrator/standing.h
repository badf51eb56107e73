#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "db/query.h"
#include "sweeps/trial.h"

namespace orchestrator {

/// Where a study stands, from its database alone: while a run is on, after it died, or of a read-only copy.
struct Standing {
  struct Running {
    std::int64_t trial = 0;
    std::string name, device;
    std::int64_t attempt = 1, step = 0, steps = 0;
    std::optional<double> eta_seconds;
  };
  struct Best {
    std::string model;  // "proxy" or the target
    std::int64_t trial = 0;
    double lr = 0, wd = 0, init_std = 0, loss = 0;
  };
  struct Cell {
    double lr = 0, wd = 0;
    sweeps::TrialState state = sweeps::TrialState::waiting;
    std::optional<double> loss;
  };
  struct Failure {
    std::int64_t trial = 0;
    std::string name, message, log, time;
  };

  std::string study;
  std::filesystem::path database;
  std::optional<std::string> owner;  // "pid 12 on host" while a run is on
  std::int64_t interrupted = 0;      // of those that wait: they ran when the last run ended
  std::string stage;                 // role of what runs or waits next; "done" when nothing does
  std::int64_t waiting = 0, running = 0, complete = 0, diverged = 0, pruned = 0, failed = 0;
  std::vector<Running> trials;    // those that run
  std::vector<Best> best;         // the proxy first
  std::vector<Cell> sweep;        // the proxy's trials, of the initial std that it has or that is best so far
  std::vector<Failure> failures;  // the last three, the latest first
  std::optional<double> eta_seconds;  // of the whole study, from the FLOPs trained since the run began

  std::int64_t num_ended() const { return complete + diverged + pruned + failed; }
  std::int64_t num_trials() const { return num_ended() + waiting + running; }
};

/// Throws ExitError{kUsage} where the database holds no study yet, db::StoreError.
Standing read_standing(const std::filesystem::path& database);

/// The best trial of each model: model, trial, name, lr, wd, init_std, loss, excess. The SP baselines ("check") are
/// there to be compared with, not to be best.
db::Table best_trials(const std::filesystem::path& database);

/// "proxy 7/26 trials, best 2.5343, 3 min to go, 2 running, 1 failed"
std::string summary_line(const Standing& standing);

}  // namespace orchestrator
