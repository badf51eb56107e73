#pragma once

#include <utility>
#include <vector>

#include "sweeps/study.h"

namespace sweeps {

/// Plans are data: the same study gives the same trials every time. `data.fingerprint` must be filled in.
/// All trials of the proxy share their seeds ("proxy/0", "proxy/1", ... of the study's seed), hence initial
/// weights and data order; so do all trials of one target ("target/NAME"), its baseline and its copies under
/// other rules included.

/// Four significant digits. Every LR, WD and init std that is computed rather than written by a person goes
/// through this, so that a trial's key does not hang on the last bit of somebody's exp2.
double rounded(double value);

/// The values of a range in rising order: `values`, or `count` of them from min to max, both included.
std::vector<double> grid_values(const Range& range);

/// The (LR, WD) points of the sweep, as the search method orders them.
std::vector<std::pair<double, double>> sweep_points(const Study& study);

/// Proxy trials of the initial-std scan: each std at the start LR and one octave either side. Empty when the
/// study has no [space] init_std.
std::vector<TrialSpec> plan_scan(const Study& study);

/// LR x WD trials of the proxy at one initial std, each point in `search.replicates` seeds.
std::vector<TrialSpec> plan_sweep(const Study& study, double init_std);

/// More proxy trials at (log2 lr, log2 wd) points, in the sweep's seeds: where the optimum lay on an edge.
struct LogPoint {
  double log2_lr = 0;
  double log2_wd = 0;
};
std::vector<TrialSpec> plan_extension(const Study& study, double init_std,
                                      const std::vector<LogPoint>& points);

/// Trials at the proxy's fitted optimum in fresh seeds: is its loss what the fit says?
std::vector<TrialSpec> plan_confirmation(const Study& study, const Hyperparameters& optimum);

/// The adaptive search as the study asks for it; `tolerance` only where the study names one in nats.
struct AdaptiveOptions;
AdaptiveOptions adaptive_options(const Study& study);

/// The one trial of a target at the transferred point `base` (rule coordinates), and its SP baseline: the
/// same shape, seed and values, with every factor of the rule left out.
TrialSpec plan_transferred(const Study& study, const TargetSpec& target, const Hyperparameters& base);
TrialSpec plan_baseline(const Study& study, const TargetSpec& target, const Hyperparameters& base);

/// Trials of one target: the transferred point first; its SP baseline if it wants one; with drift, the other
/// points of the 7-point design around it ((0,0) (-1,0) (1,0) (0,1.5) (0,-1.5) (-1.75,0.75) (0.75,-0.75)
/// octaves of LR, WD).
std::vector<TrialSpec> plan_target(const Study& study, const TargetSpec& target, const Hyperparameters& base);
/// More drift trials at (log2 lr, log2 wd) points.
std::vector<TrialSpec> plan_drift_extension(const Study& study, const TargetSpec& target,
                                            const Hyperparameters& base, const std::vector<LogPoint>& points);

/// Cost of one trial, from its shape alone; the decays of its branches are steps like any other.
struct TrialCost {
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;
  double tokens = 0;  // trained
  double flops = 0;
};
TrialCost cost(const TrialSpec& spec);

}  // namespace sweeps
