#pragma once

#include <optional>
#include <vector>

#include "sweeps/fit_design.h"

namespace sweeps {

/// The skewed quadratic fitted with excess-proportional weights and robust factors, at every skew of the grid
/// (fit-and-drift 1.5). Losses are counted from the best trial's, coefficients about the centre.
struct RobustFit {
  double centre_x = 0, centre_y = 0;
  Box box;              // explored region and one octave, about the centre
  double sigma = 0;     // nats
  double df = 0;        // of sigma, seeds and prior pooled
  bool pooled = false;  // whether they were
  double n_eff = 0;     // sum of the weights
  double k = 0, k_sd = 0;
  std::vector<double> posterior;        // of each skew of the grid
  std::vector<SkewRegression> at_skew;  // in the grid's order
  SkewSurface mean;                     // at the mean skew
  double x = 0, y = 0;                  // the optimum, in octaves
  Eigen::VectorXd residual;             // of the points, in their own standard deviations
};

/// Empty when the weighted design does not determine the surface.
std::optional<RobustFit> robust_fit(const FinishedTrials& trials, const SkewDesign& design,
                                    const FitOptions& options);

}  // namespace sweeps
