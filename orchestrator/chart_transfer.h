#pragma once

#include <optional>
#include <string>
#include <vector>

#include "orchestrator/svg.h"
#include "sweeps/fit.h"
#include "sweeps/trial.h"

namespace orchestrator {

/// One model's LR curve, in rule coordinates.
struct LrSeries {
  std::string name;
  std::vector<sweeps::TrialResult> trials;
  const sweeps::Optimum* fit = nullptr;  // its curve at the fitted WD; optimum and 95 % interval
};

/// The models that one rule was applied to.
struct LrPanel {
  std::string title;
  std::vector<LrSeries> series;  // the proxy first: series of the same place have the same colour everywhere
  std::optional<double> transferred_lr;  // log2; a vertical line
};

/// Did the optimum move, in one picture: the LR curves of all models on common axes, a panel per rule,
/// held-out loss against log2 LR. Dots: trials at the WD nearest each fit's; thick bar: 95 % interval of the
/// optimum, at the fitted lowest loss. Nothing when nothing has been trained.
std::optional<Svg> transfer_chart(const std::vector<LrPanel>& panels);

}  // namespace orchestrator
