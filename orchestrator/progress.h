#pragma once

#include <chrono>
#include <map>
#include <string>

#include "orchestrator/console.h"
#include "orchestrator/scheduler.h"

namespace orchestrator {

/// The progress line of a run: what is being done, how much of it, and when all of it may be done, from the
/// FLOPs trained so far.
class Progress {
 public:
  /// `planned_flops`: of the whole study, from its plan.
  Progress(Console& console, double planned_flops);

  /// A stage begins: `results` are all trials of the study so far, the waiting ones included.
  void begin(std::string_view stage, const std::vector<sweeps::TrialResult>& results);
  void started(const db::WaitingTrial& trial);
  void stepped(const db::WaitingTrial& trial, std::int64_t step);
  void ended(const db::WaitingTrial& trial, const sweeps::Outcome& outcome, bool again);
  void show();

  std::string line() const;

 private:
  std::string eta() const;

  Console& console_;
  double planned_flops_;
  double ended_flops_ = 0;      // of all trials that have ended, in this run or earlier
  double trained_flops_ = 0;    // in this run
  double remaining_flops_ = 0;  // of the trials that wait now
  std::string stage_;
  std::size_t num_ended_ = 0, num_trials_ = 0, num_failed_ = 0, num_diverged_ = 0, num_pruned_ = 0;
  std::optional<double> best_;
  std::map<std::int64_t, double> running_;  // trial id -> FLOPs of the steps done
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// "42 s", "3 min", "2 h 5 min", "3 d 4 h".
std::string duration_text(double seconds);

}  // namespace orchestrator
