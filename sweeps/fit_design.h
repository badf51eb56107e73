#pragma once

#include <optional>
#include <vector>

#include "sweeps/fit.h"
#include "sweeps/skew_regression.h"

namespace sweeps {

/// The finished trials in a fixed order, so that nothing depends on the order of arrival.
struct FinishedTrials {
  std::vector<FitPoint> points;
  int num_diverged = 0;
  std::optional<double> diverged_at;  // a barrier: above the best trial's LR, where steps are too large
  FitPoint best;
  double x_lo = 0, x_hi = 0, y_lo = 0, y_hi = 0;  // explored
};

/// Empty when none finished.
std::optional<FinishedTrials> sort_trials(const std::vector<FitPoint>& points);

int num_levels(const std::vector<FitPoint>& points, double FitPoint::*axis);

/// What least squares is asked. Two dimensions from eight rows, the prior's included; with fewer, or with one
/// WD level, LR alone: WD levels then get an intercept each, as seeds do, so that their differences in level
/// do not look like noise. Losses are counted from the best trial's.
SkewDesign make_design(const FinishedTrials& trials, const FitOptions& options);

}  // namespace sweeps
