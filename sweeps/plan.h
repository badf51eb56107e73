#pragma once

#include <vector>

#include "sweeps/study.h"

namespace sweeps {

/// Plans are data: the same study gives the same trials every time. `data.fingerprint` must be filled in.

/// Proxy trials of the initial-std scan: each std at the start LR and one octave either side. Empty when the
/// study has no [space] init_std.
std::vector<TrialSpec> plan_scan(const Study& study);

/// LR x WD trials of the proxy at one initial std.
std::vector<TrialSpec> plan_sweep(const Study& study, double init_std);

/// More proxy trials at (log2 lr, log2 wd) points, in the sweep's seeds: where the optimum lay on an edge.
struct LogPoint {
  double log2_lr = 0;
  double log2_wd = 0;
};
std::vector<TrialSpec> plan_extension(const Study& study, double init_std,
                                      const std::vector<LogPoint>& points);

/// Trials of one target at the transferred point `base` (rule coordinates): the target itself first; its SP
/// baseline; with drift, the other points of the 7-point design around it (fit-and-drift: (0,0) (-1,0) (1,0)
/// (0,1.5) (0,-1.5) (-1.75,0.75) (0.75,-0.75) octaves).
std::vector<TrialSpec> plan_target(const Study& study, const TargetSpec& target, const Hyperparameters& base);
std::vector<TrialSpec> plan_drift_extension(const Study& study, const TargetSpec& target,
                                            const Hyperparameters& base, const std::vector<LogPoint>& points);

/// Cost of one trial, from its shape alone.
struct TrialCost {
  std::int64_t parameters = 0;
  std::int64_t active_parameters = 0;
  double tokens = 0;  // trained
  double flops = 0;
};
TrialCost cost(const TrialSpec& spec);

}  // namespace sweeps
