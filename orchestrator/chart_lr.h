#pragma once

#include <optional>
#include <string>
#include <vector>

#include "orchestrator/svg.h"
#include "sweeps/fit.h"
#include "sweeps/trial.h"

namespace orchestrator {

/// Loss against log2 LR of one model, in rule coordinates so that proxy and targets share the axis.
struct LrChart {
  std::string title;
  std::string loss_unit = "nats";
  std::vector<sweeps::TrialResult> trials;
  const sweeps::Optimum* fit = nullptr;              // its curve at the fitted WD, optimum and 95 % interval
  const sweeps::TrialResult* transferred = nullptr;  // ringed, with a vertical line
  const sweeps::TrialResult* baseline = nullptr;     // the same shape under SP
  std::optional<double> transferred_lr;              // of the line, when there is no trial yet
};

/// `lo`, `hi`: log2 LR of the axis, the same for charts that stand side by side.
Svg lr_chart(const LrChart& chart, double lo, double hi);

}  // namespace orchestrator
