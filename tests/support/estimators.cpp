#include "tests/support/estimators.h"

#include <algorithm>
#include <cmath>

#include "sweeps/profile_region.h"
#include "sweeps/skew_regression.h"

namespace estimators {
namespace {

using sweeps::FitPoint;
using sweeps::Interval;

constexpr double kCell = 1;  // octaves between trials of the grid

std::vector<FitPoint> finished(const std::vector<FitPoint>& points) {
  const double lowest = sweeps::lowest_loss(points);
  std::vector<FitPoint> finished;
  for (const auto& point : points)
    if (!sweeps::has_diverged(point, lowest)) finished.push_back(point);
  return finished;
}

/// How far the vertex of the parabola through `best` and its neighbours one cell off along (dx, dy) lies.
double vertex(const std::vector<FitPoint>& points, const FitPoint& best, double dx, double dy) {
  const auto at = [&](double side) {
    return std::ranges::find_if(points, [&](const FitPoint& point) {
      return std::hypot(point.x - best.x - side * dx, point.y - best.y - side * dy) < 1e-9;
    });
  };
  const auto low = at(-kCell), high = at(kCell);
  if (low == points.end() || high == points.end()) return 0;
  const double bend = low->loss - 2 * best.loss + high->loss;
  return bend > 0 ? kCell / 2 * (low->loss - high->loss) / bend : 0;
}

double median(std::vector<double> values) {
  if (values.empty()) return NAN;
  std::ranges::sort(values);
  return values[values.size() / 2];
}

}  // namespace

Estimate skewed_fit(const std::vector<FitPoint>& points) {
  const auto fit = std::get<sweeps::Optimum>(sweeps::fit_optimum(points, {}));
  return {fit.lr.estimate, fit.wd.estimate, fit.lr.ci, fit.sigma};
}

Estimate argmin(const std::vector<FitPoint>& points) {
  const auto left = finished(points);
  const FitPoint best = *std::ranges::min_element(left, {}, &FitPoint::loss);
  return {.x = best.x, .y = best.y, .lr = Interval{best.x - kCell / 2, best.x + kCell / 2}};
}

Estimate three_points(const std::vector<FitPoint>& points) {
  const auto left = finished(points);
  const FitPoint best = *std::ranges::min_element(left, {}, &FitPoint::loss);
  return {.x = best.x + vertex(left, best, 1, 0), .y = best.y + vertex(left, best, 0, 1)};
}

Estimate least_squares(const std::vector<FitPoint>& points) {
  const auto left = finished(points);
  const auto n = static_cast<Eigen::Index>(left.size());
  sweeps::SkewDesign design;
  design.x.resize(n), design.y.resize(n), design.loss.resize(n);
  design.block.assign(left.size(), 0);
  for (Eigen::Index i = 0; i < n; ++i) {
    const FitPoint& point = left[static_cast<std::size_t>(i)];
    design.x[i] = point.x, design.y[i] = point.y, design.loss[i] = point.loss;
  }
  const auto quadratic = sweeps::regress(design, 0, 0, 0, Eigen::VectorXd::Ones(n), 1);
  const auto [x_lo, x_hi] = std::ranges::minmax(points, {}, &FitPoint::x);
  const auto [y_lo, y_hi] = std::ranges::minmax(points, {}, &FitPoint::y);
  const auto at =
      sweeps::box_optimum(quadratic.value().surface, {x_lo.x - 1, x_hi.x + 1, y_lo.y - 1, y_hi.y + 1});

  sweeps::Optimum fit;
  fit.df = static_cast<double>(n - sweeps::kNumCoefficients);
  const double variance = quadratic->rss / fit.df;
  Interval lr{-INFINITY, INFINITY};
  if (at.interior)
    lr = sweeps::profile_interval_lr(fit, {1, quadratic->surface, variance * quadratic->unit_covariance()});
  return {at.u, at.v, lr, std::sqrt(variance)};
}

const std::vector<Estimator>& all() {
  static const std::vector<Estimator> all = {{"fit", skewed_fit},
                                             {"argmin", argmin},
                                             {"3-point vertex", three_points},
                                             {"2-D quadratic", least_squares}};
  return all;
}

Scores score(const surfaces::Surface& surface, std::uint64_t stream, const Estimator& estimator,
             int replicates, std::uint64_t first_seed) {
  Scores s;
  std::vector<double> half_widths;
  for (int i = 0; i < replicates; ++i) {
    sweeps::Generator random(first_seed + static_cast<std::uint64_t>(i), stream);
    const double x0 = random.uniform(-1, 1), y0 = random.uniform(-1, 1);
    const auto placed = surfaces::place(surface, x0, y0);
    const Estimate found = estimator.estimate(surfaces::grid_7x5(placed, random));
    const double lr = found.x - placed.true_x(), wd = found.y - placed.true_y();
    s.rmse_lr += lr * lr, s.rmse_wd += wd * wd, s.bias_lr += lr;
    s.regret += placed.regret(found.x, found.y);
    s.sigma += found.sigma.value_or(NAN);
    s.coverage += found.lr ? found.lr->lo <= placed.true_x() && placed.true_x() <= found.lr->hi : NAN;
    if (found.lr) half_widths.push_back((found.lr->hi - found.lr->lo) / 2);
  }
  for (double* sum : {&s.rmse_lr, &s.rmse_wd, &s.bias_lr, &s.coverage, &s.regret, &s.sigma})
    *sum /= replicates;
  s.rmse_lr = std::sqrt(s.rmse_lr), s.rmse_wd = std::sqrt(s.rmse_wd);
  s.half_width = median(std::move(half_widths));
  return s;
}

}  // namespace estimators
