#pragma once

#include "sweeps/fit.h"

namespace sweeps {

/// The gradient of the fitted surface at a point (nats per octave) with its covariance, k's spread included.
struct GradientAt {
  Eigen::Vector2d mean;
  Eigen::Matrix2d covariance;
};
GradientAt gradient_at(const Optimum& fit, double x, double y);

/// Deterministic 95 % interval of log2 LR* for one skew (Box-Hunter, in one dimension Fieller): all x where
/// min over y of g' [G V G']^-1 g <= t_0.975(df)^2. No draws; a cross-check of them. An end is infinite where
/// the region leaves `reach` octaves around the optimum: the curvature is then not significant.
/// REQUIRES: fit.wd_fitted and that the surface has an interior optimum.
Interval profile_interval_lr(const Optimum& fit, const Optimum::AtSkew& at, double reach = 6);

}  // namespace sweeps
