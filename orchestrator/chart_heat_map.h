#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "orchestrator/svg.h"
#include "sweeps/fit.h"
#include "sweeps/trial.h"

namespace orchestrator {

/// Trials over log2 LR and log2 WD, coloured by their excess over the lowest loss (replicates averaged, the
/// colour scale clipped), diverged cells hatched; with a fit its optimum and 95 % region.
/// Nothing without trials.
std::optional<Svg> heat_map(const std::vector<sweeps::TrialResult>& trials, const sweeps::Optimum* fit);

/// Convex outline of the 95 % of the draws' optima that lie nearest to their mean (Mahalanobis), in octaves;
/// empty when WD was not fitted.
std::vector<std::pair<double, double>> optimum_region(const sweeps::Optimum& fit);

/// A colour from a dark blue (0) to a light yellow (1), and the text colour that is readable on it.
struct CellColour {
  std::string fill;
  std::string text;
};
CellColour cell_colour(double share);

}  // namespace orchestrator
