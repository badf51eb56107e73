#pragma once

#include <Eigen/Core>

namespace sweeps {

/// The skewed quadratic in octaves about a centre (fit-and-drift 1.5):
///   L(u, v) = c + b1 u + b2 v + hx Q_k(u) + hxy u v + hy v^2/2,   Q_k(u) = (e^{ku} - 1 - ku)/k^2.
/// Linear in its six coefficients for a fixed skew k; k = 0 is the plain quadratic.
struct SkewSurface {
  double k = 0;
  double c = 0, b1 = 0, b2 = 0, hx = 0, hxy = 0, hy = 0;
};

inline constexpr int kNumCoefficients = 6;  // c, b1, b2, hx, hxy, hy
using Coefficients = Eigen::Matrix<double, kNumCoefficients, 1>;

/// Q_k(u) and its derivative (e^{ku} - 1)/k; both go over into u^2/2 and u as k -> 0.
double skew_term(double k, double u);
double skew_slope(double k, double u);

/// The six basis functions at (u, v), and their gradients (rows d/du, d/dv).
Coefficients basis(double k, double u, double v);
Eigen::Matrix<double, 2, kNumCoefficients> basis_gradient(double k, double u, double v);

double value(const SkewSurface& surface, double u, double v);
Eigen::Matrix2d hessian(const SkewSurface& surface, double u);

/// Ends included; in the surface's own coordinates.
struct Box {
  double u_lo = 0, u_hi = 0, v_lo = 0, v_hi = 0;
};

/// The minimum inside `box`: the interior one where the surface has one there, otherwise the best point of
/// the box's edges, each a one-dimensional closed form. A box without height is the one-dimensional case.
struct BoxOptimum {
  double u = 0, v = 0, loss = 0;
  bool interior = false;  // not on an edge of the box (of its LR range where the box has no height)
};
BoxOptimum box_optimum(const SkewSurface& surface, const Box& box);

}  // namespace sweeps
