#include "sweeps/profile_region.h"

#include <cmath>
#include <limits>

#include <Eigen/LU>
#include <boost/math/distributions/students_t.hpp>
#include <boost/math/tools/minima.hpp>

namespace sweeps {
namespace {

Coefficients coefficients(const SkewSurface& s) { return Coefficients(s.c, s.b1, s.b2, s.hx, s.hxy, s.hy); }

// g' [G V G']^-1 g: how many squared standard errors the gradient at (u, v) is from zero.
double statistic(const Optimum::AtSkew& at, double u, double v) {
  const auto rows = basis_gradient(at.surface.k, u, v);
  const Eigen::Vector2d gradient = rows * coefficients(at.surface);
  const Eigen::Matrix2d covariance = rows * at.covariance * rows.transpose();
  return gradient.dot(covariance.inverse() * gradient);
}

double profile(const Optimum::AtSkew& at, double u, double v_middle, double reach) {
  const auto along_v = [&](double v) { return statistic(at, u, v); };
  // The statistic can have several valleys in v: look at a coarse net first, then polish the best cell.
  constexpr int kCells = 48;
  double best_v = v_middle, best = along_v(v_middle);
  for (int i = 0; i <= kCells; ++i) {
    const double v = v_middle + reach * (2.0 * i / kCells - 1);
    if (const double value = along_v(v); value < best) best = value, best_v = v;
  }
  const double cell = 2 * reach / kCells;
  return boost::math::tools::brent_find_minima(along_v, best_v - cell, best_v + cell, 30).second;
}

}  // namespace

GradientAt gradient_at(const Optimum& fit, double x, double y) {
  GradientAt out{Eigen::Vector2d::Zero(), Eigen::Matrix2d::Zero()};
  Eigen::Matrix2d second_moment = Eigen::Matrix2d::Zero();
  for (const auto& at : fit.by_skew) {
    const auto rows = basis_gradient(at.surface.k, x - fit.centre_x, y - fit.centre_y);
    const Eigen::Vector2d gradient = rows * coefficients(at.surface);
    out.mean += at.probability * gradient;
    out.covariance += at.probability * (rows * at.covariance * rows.transpose());
    second_moment += at.probability * (gradient * gradient.transpose());
  }
  out.covariance += second_moment - out.mean * out.mean.transpose();
  return out;
}

Interval profile_interval_lr(const Optimum& fit, const Optimum::AtSkew& at, double reach) {
  const double t = quantile(boost::math::students_t(fit.df), 0.975);
  const BoxOptimum middle = box_optimum(at.surface, {-reach, reach, -reach, reach});
  const auto inside = [&](double u) { return profile(at, u, middle.v, reach) <= t * t; };
  const auto end = [&](double side) {
    constexpr double kStep = 0.05;
    double in = 0;
    while (in < reach && inside(middle.u + side * (in + kStep))) in += kStep;
    if (in >= reach) return side * std::numeric_limits<double>::infinity();
    double out = in + kStep;
    for (int step = 0; step < 20; ++step) {
      const double half = (in + out) / 2;
      (inside(middle.u + side * half) ? in : out) = half;
    }
    return fit.centre_x + middle.u + side * in;
  };
  return {end(-1), end(1)};
}

}  // namespace sweeps
