#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sweeps/analysis.h"

namespace sweeps {

/// The drift checks of several targets in one line, fit-and-drift 4.5 (after Kalra & Barkeshli,
/// arXiv:2605.21486).

/// What the targets of one rule differ along. Granularity: experts of every kind times c, each 1/c as wide, so
/// that the active width stays.
enum class TrendAxis {
  width,
  depth,
  batch,
  steps,
  experts,
  active,
  granularity,
  shared,
  groups,
  parameters,  // active ones: the targets do not differ along exactly one of the above
};
std::string_view name(TrendAxis axis);

/// The axis along which `runs` differ; an expert's hidden width is seen relative to the model's. `parameters` where
/// it is none of its own, or more than one. REQUIRES: at least one run.
TrendAxis trend_axis(const std::vector<models::RunShape>& runs);
/// log2 of the size along an axis; of shared experts log2(1 + s), since s may be 0.
double log2_scale(TrendAxis axis, const models::RunShape& run);

/// How the targets' LR drift goes with their scale. Over the targets of one rule whose optimum is placed: less than
/// half of its draws lie on an edge. (A proven DRIFT asks for no more trials, so few of those are bracketed; their wide
/// intervals give them little weight. With most draws on the edge it would look as if the edge were the place.)
struct DriftTrend {
  models::Parameterization rule = {};
  TrendAxis axis = TrendAxis::parameters;
  int num_targets = 0;
  int num_left_out = 0;  // targets with a drift check and no placed optimum, or none yet
  /// Octaves of dLR per doubling: least squares with weights 1 / (95 % width of dLR)^2. The interval (95 %) is that of
  /// the slopes of the fits' draws, taken independently of each other, with the shape floor of each optimum. It knows
  /// nothing of targets that scatter about the line by more than their fits say; `rms` does.
  double slope = 0;
  Interval ci;
  double rms = 0;  // octaves, of dLR about its line, each target alike
  /// Lowest and highest curvature along LR over the proxy's; the fits take the proxy's as their prior, so both are
  /// rather too close to 1. Absent where the proxy's is not positive.
  std::optional<Interval> curvature_ratio;
  double curvature_slope = 0;    // of log2 curvature per doubling: above 0, the same mistake gets dearer
  double regret_at_largest = 0;  // nats, at the transferred point of the largest target; the worst of several
};

/// The study's own rule first. Only rules with at least three such targets at three scales, a tenth of a doubling
/// or more apart.
std::vector<DriftTrend> drift_trends(const Study& study, const Analysis& analysis);
/// A line a rule, no trailing newline; where three targets or more have a drift check and there is no trend, why. Empty
/// with fewer.
std::string describe_trends(const Study& study, const Analysis& analysis);

/// "2 PASS, 1 DRIFT" of the targets of the study's own rule that have a drift check; empty when none has.
std::string describe_verdicts(const Study& study, const Analysis& analysis);

}  // namespace sweeps
