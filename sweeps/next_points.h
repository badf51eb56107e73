#pragma once

#include <cmath>
#include <optional>
#include <vector>

#include "sweeps/fit.h"

namespace sweeps {

/// Where more trials tell most about an optimum that a fit has already found: Bayesian c-optimality for its
/// place, with the skew as a nuisance (fit-and-drift 3.2). Not expected improvement: that gathers on the flat
/// floor, where a trial says nothing about where the middle is.
struct NextPointsOptions {
  int count = 2;
  double kappa = 0.10;                   // as in the fit
  std::optional<ShapePrior> prior = {};  // as in the fit
  double anchor_x = 0, anchor_y = 0;     // candidates lie on a lattice of 0.25 x 0.5 octaves about this point
  Interval x = {-INFINITY, INFINITY}, y = {-INFINITY, INFINITY};  // and in here
};

/// At most one octave outside what has finished, never above diverged_at - 0.5. Does not depend on outcomes
/// that are still open. Empty when the fit is one-dimensional or has no interior optimum: see
/// extension_points.
std::vector<NewPoint> next_points(const Optimum& fit, const std::vector<FitPoint>& points,
                                  const NextPointsOptions& options);

/// Each run that diverged once more, at its mirror image about the LR x on the side of small ones, an octave
/// further down where that is taken. With nothing finished every run counts; otherwise those above the best.
std::vector<NewPoint> mirrored_points(const std::vector<FitPoint>& points, double x);

}  // namespace sweeps
