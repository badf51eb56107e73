#pragma once

#include <optional>
#include <vector>

#include <Eigen/Core>

#include "sweeps/skew_model.h"

namespace sweeps {

/// What least squares sees: finished trials in octaves, one intercept per seed block, and the rows of a
/// prior on the shape. `two_d` false leaves out the WD coefficients.
struct SkewDesign {
  Eigen::VectorXd x, y, loss;
  std::vector<int> block;  // 0 .. num_blocks - 1
  int num_blocks = 1;
  bool two_d = true;
  struct PriorRow {
    int coefficient = 0;  // index into Coefficients
    double mean = 0, sd = 1;
  };
  std::vector<PriorRow> prior;

  int num_points() const { return static_cast<int>(x.size()); }
  int num_parameters() const { return (two_d ? kNumCoefficients : 3) + num_blocks - 1; }
};

/// Weighted least squares for one skew k. Prior rows have weight (sigma/sd)^2.
struct SkewRegression {
  SkewSurface surface;            // c is the mean of the blocks' intercepts
  Eigen::VectorXd fitted;         // of the points, block intercepts included
  Eigen::VectorXd leverage;       // of the points, unweighted: x'(X'WX)^-1 x
  double rss = 0;                 // sum of w r^2 over the points
  double rss_prior = 0;           // the same over the prior's rows
  double parameters = 0;          // that the points, not the prior, had to pay for: tr of their hat matrix
  Eigen::MatrixXd root;           // R^-1: (X'WX)^-1 = root root', rows in the order below
  std::vector<int> coefficients;  // the coefficient of each of root's first rows
  SkewSurface surface_at(const Eigen::VectorXd& shift) const;  // surface with root * shift added
  /// (X'WX)^-1 of the six coefficients; zero rows for those not fitted.
  Eigen::Matrix<double, kNumCoefficients, kNumCoefficients> unit_covariance() const;
};

/// Empty when the weighted design does not determine every parameter. Never a pseudo-inverse: that would
/// report no variance at all in the unseen direction.
std::optional<SkewRegression> regress(const SkewDesign& design, double k, double centre_x, double centre_y,
                                      const Eigen::VectorXd& weights, double sigma);

}  // namespace sweeps
