#pragma once

#include <vector>

#include "sweeps/trial.h"

namespace sweeps {

/// Early stopping within one sweep. Losses before the decay favour small LRs, so no run is ranked by them;
/// only runs that the fit would give no weight are stopped:
/// * as good as diverged: the last three evaluations lie more than kDivergedNats above the lowest held-out
///   loss of the sweep at the same step;
/// * hopeless: more than kHopelessNats above the lowest of the same or a higher LR.
/// Both are decided once, at decision_step(). No trial is stopped before it, so every trial that gets there
/// has its losses up to there whatever was stopped, and the set does not depend on when or in which order
/// trials ran: more trials can only add to it.

inline constexpr double kDivergedNats = 1;
/// Ten times sigma / kappa, the excess at which the fit's weight has halved: a weight below 0.01. kappa =
/// 0.10 is the fit's; sigma = 0.004 nats is a constant and not the fit's, so that curves alone decide.
inline constexpr double kHopelessNats = 10 * 0.004 / 0.10;

struct Censoring {
  TrialKey trial;
  std::int64_t step = 0;  // the evaluation that decided
  std::string reason;
};

/// The first evaluation at or after half of the run and after the warm-up; 0 when only the last one is left.
std::int64_t decision_step(const TrialSpec& spec);

/// Those of one sweep that are as good as diverged or hopeless, in order.
/// REQUIRES: trials of one model with one schedule, which differ in LR, WD and seed only.
std::vector<Censoring> censored(const std::vector<TrialResult>& sweep);

/// Sweeps under way, and their held-out losses as they come in.
class SweepWatch {
 public:
  SweepWatch() = default;
  explicit SweepWatch(std::vector<std::vector<TrialResult>> sweeps) : sweeps_(std::move(sweeps)) {}

  /// Adds points to a trial's curve; equal steps may come again. Returns what of its sweep is censored now if
  /// these points have a say in it; nothing for a trial of none of the sweeps.
  std::vector<Censoring> add(const TrialKey& trial, const std::vector<std::int64_t>& steps,
                             const std::vector<double>& losses);

 private:
  std::vector<std::vector<TrialResult>> sweeps_;
};

}  // namespace sweeps
