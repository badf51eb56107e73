#include "sweeps/skew_model.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace sweeps {
namespace {

// Below this |k u| the series is more exact than the difference of exponentials.
constexpr double kSeries = 1e-3;

// u where A + (hx/k) e^{ku} - C u = 0 and the surface, minimised over v, curves upwards.
std::optional<double> skewed_root(double k, double hx, double a, double c) {
  if (c == 0) {
    const double power = -k * a / hx;
    return power > 0 ? std::optional(std::log(power) / k) : std::nullopt;
  }
  const double turn = std::log(c / hx) / k;  // the slope changes its sign here; the minimum lies on k's side
  if ((a + c / k - c * turn) * k >= 0) return std::nullopt;
  double u = k * turn < 0 ? 0 : turn + 1 / k;
  for (int step = 0; step < 40; ++step) {
    const double power = hx * std::exp(k * u);
    const double slope = power - c;
    if (slope <= 0) {  // a clipped step went past the turn: come back to the side of the minimum
      u = turn + 0.5 * std::abs(u - turn) / k;
      continue;
    }
    const double move = std::clamp((a + power / k - c * u) / slope, -1.0, 1.0);
    u -= move;
    if (std::abs(move) < 1e-13) break;
  }
  return u;
}

// The unconstrained minimum, if the surface has one.
std::optional<Eigen::Vector2d> interior_optimum(const SkewSurface& s) {
  if (!(s.hx > 0) || !(s.hy > 0)) return std::nullopt;
  const double c = s.hxy * s.hxy / s.hy;
  const double tilt = s.b1 - s.hxy * s.b2 / s.hy;
  std::optional<double> u;
  if (std::abs(s.k) < 1e-9) {
    if (s.hx > c) u = -tilt / (s.hx - c);
  } else {
    u = skewed_root(s.k, s.hx, tilt - s.hx / s.k, c);
  }
  if (!u || !std::isfinite(*u) || !(s.hx * std::exp(s.k * *u) > c)) return std::nullopt;
  return Eigen::Vector2d(*u, -(s.b2 + s.hxy * *u) / s.hy);
}

// Best u on a line of constant v.
double best_u(const SkewSurface& s, double v, double lo, double hi) {
  const double slope = s.b1 + s.hxy * v;
  if (s.hx > 0) {
    if (std::abs(s.k) < 1e-9) return std::clamp(-slope / s.hx, lo, hi);
    const double power = 1 - s.k * slope / s.hx;
    if (power > 0) return std::clamp(std::log(power) / s.k, lo, hi);
  }
  return value(s, lo, v) <= value(s, hi, v) ? lo : hi;
}

double best_v(const SkewSurface& s, double u, double lo, double hi) {
  if (s.hy > 0) return std::clamp(-(s.b2 + s.hxy * u) / s.hy, lo, hi);
  return value(s, u, lo) <= value(s, u, hi) ? lo : hi;
}

}  // namespace

double skew_term(double k, double u) {
  const double z = k * u;
  if (std::abs(z) < kSeries) return u * u * (0.5 + z * (1.0 / 6 + z * (1.0 / 24 + z / 120)));
  return (std::expm1(z) - z) / (k * k);
}

double skew_slope(double k, double u) { return std::abs(k * u) < 1e-12 ? u : std::expm1(k * u) / k; }

Coefficients basis(double k, double u, double v) {
  return Coefficients(1, u, v, skew_term(k, u), u * v, v * v / 2);
}

Eigen::Matrix<double, 2, kNumCoefficients> basis_gradient(double k, double u, double v) {
  Eigen::Matrix<double, 2, kNumCoefficients> gradient;
  gradient << 0, 1, 0, skew_slope(k, u), v, 0,  //
      0, 0, 1, 0, u, v;
  return gradient;
}

double value(const SkewSurface& s, double u, double v) {
  return s.c + s.b1 * u + s.b2 * v + s.hx * skew_term(s.k, u) + s.hxy * u * v + s.hy * v * v / 2;
}

Eigen::Matrix2d hessian(const SkewSurface& s, double u) {
  Eigen::Matrix2d h;
  h << s.hx * std::exp(s.k * u), s.hxy, s.hxy, s.hy;
  return h;
}

BoxOptimum box_optimum(const SkewSurface& s, const Box& box) {
  if (const auto at = interior_optimum(s)) {
    const auto [u, v] = std::pair(at->x(), at->y());
    if (u > box.u_lo && u < box.u_hi && v > box.v_lo && v < box.v_hi) return {u, v, value(s, u, v), true};
  }
  BoxOptimum best{0, 0, INFINITY, false};
  const auto offer = [&](double u, double v) {
    if (const double loss = value(s, u, v); loss < best.loss) best = {u, v, loss, false};
  };
  offer(best_u(s, box.v_lo, box.u_lo, box.u_hi), box.v_lo);
  offer(best_u(s, box.v_hi, box.u_lo, box.u_hi), box.v_hi);
  offer(box.u_lo, best_v(s, box.u_lo, box.v_lo, box.v_hi));
  offer(box.u_hi, best_v(s, box.u_hi, box.v_lo, box.v_hi));
  best.interior = box.v_lo == box.v_hi && best.u > box.u_lo && best.u < box.u_hi;
  return best;
}

}  // namespace sweeps
