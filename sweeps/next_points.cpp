#include "sweeps/next_points.h"

#include <algorithm>
#include <cmath>

#include <Eigen/Cholesky>
#include <Eigen/LU>

namespace sweeps {
namespace {

constexpr int kColumns = kNumCoefficients + 1;  // and the skew's error, hx u^3/6
using Row = Eigen::Matrix<double, kColumns, 1>;
using Information = Eigen::Matrix<double, kColumns, kColumns>;

constexpr double kSkewSd = 0.3;    // of the nuisance column's coefficient
constexpr double kWdWeight = 0.2;  // of Var(y*) against Var(x*)
constexpr double kReach = 2.5;     // octaves around the optimum
constexpr double kOutside = 1;     // octaves outside what has finished
constexpr double kBarrier = 0.5;   // octaves below a diverged LR
constexpr double kStepX = 0.25, kStepY = 0.5;

/// The surface about its own optimum, as the criterion needs it.
class Criterion {
 public:
  Criterion(const Optimum& fit, const std::vector<FitPoint>& points, const NextPointsOptions& options);
  /// How much one more trial at (x, y) lowers the summed variance of the optimum's place.
  double gain(double x, double y) const;
  void add(double x, double y);

 private:
  Row row(double x, double y) const;
  double weight(double x, double y) const;
  void aim(double u, double v);

  const Optimum& fit_;
  double kappa_;
  double hx_, hxy_, hy_;
  Information covariance_;
  std::vector<std::pair<Row, double>> aims_;  // gradients of x* and y* in the coefficients, and their weight
};

Row Criterion::row(double x, double y) const {
  const double u = x - fit_.lr.estimate, v = y - fit_.wd.estimate;
  Row row;
  row << basis(fit_.k, u, v), hx_ * u * u * u / 6;
  return row;
}

double Criterion::weight(double x, double y) const {
  const double excess = std::max(evaluate(fit_, fit_.mean, x, y) - fit_.mean.loss, 0.0);
  return 1 / (1 + std::pow(kappa_ * excess / fit_.sigma, 2));
}

// An optimum at (u, v) moves by -H^-1 times the change of the gradient there.
void Criterion::aim(double u, double v) {
  Eigen::Matrix<double, 2, kColumns> gradient;
  gradient << basis_gradient(fit_.k, u, v), Eigen::Vector2d(hx_ * u * u / 2, 0);
  Eigen::Matrix2d h;
  h << hx_, hxy_, hxy_, hy_;
  const Eigen::Matrix<double, 2, kColumns> moves = h.inverse() * gradient;
  aims_.emplace_back(moves.row(0).transpose(), 1.0);
  aims_.emplace_back(moves.row(1).transpose(), kWdWeight);
}

Criterion::Criterion(const Optimum& fit, const std::vector<FitPoint>& points,
                     const NextPointsOptions& options)
    : fit_(fit), kappa_(options.kappa), hx_(fit.hx), hxy_(fit.hxy), hy_(fit.hy) {
  Information information = Information::Zero();
  double lowest = fit.best_observed.loss;
  for (const FitPoint& point : points) {
    if (has_diverged(point, lowest)) continue;
    const Row at = row(point.x, point.y);
    information += weight(point.x, point.y) * at * at.transpose();
  }
  const auto know = [&](int column, double sd) {
    information(column, column) += std::pow(fit.sigma / sd, 2);
  };
  know(kNumCoefficients, kSkewSd);
  if (options.prior) {
    know(3, options.prior->hx_sd());
    if (options.prior->wd) know(4, options.prior->hxy_sd()), know(5, options.prior->hy_sd());
  }
  covariance_ = information.llt().solve(Information::Identity());
  const auto half = [](const AxisOptimum& axis) { return std::min((axis.ci.hi - axis.ci.lo) / 4, 1.0); };
  const double du = half(fit.lr), dv = half(fit.wd);
  for (const auto& [u, v] : {std::pair(0.0, 0.0), {du, 0.0}, {-du, 0.0}, {0.0, dv}, {0.0, -dv}}) aim(u, v);
}

double Criterion::gain(double x, double y) const {
  const Row at = row(x, y);
  const double w = weight(x, y);
  const Row c = covariance_ * at;
  double sum = 0;
  for (const auto& [a, share] : aims_) sum += share * std::pow(a.dot(c), 2);
  return w * sum / (1 + w * at.dot(c));
}

void Criterion::add(double x, double y) {
  const Row at = row(x, y);
  const double w = weight(x, y);
  const Row c = covariance_ * at;
  covariance_ -= w * c * c.transpose() / (1 + w * at.dot(c));
}

std::vector<NewPoint> candidates(const Optimum& fit, const std::vector<FitPoint>& points,
                                 const NextPointsOptions& options) {
  Interval x{INFINITY, -INFINITY}, y{INFINITY, -INFINITY};
  for (const FitPoint& point : points) {
    if (has_diverged(point, fit.best_observed.loss)) continue;
    x = {std::min(x.lo, point.x), std::max(x.hi, point.x)};
    y = {std::min(y.lo, point.y), std::max(y.hi, point.y)};
  }
  x = {std::max(x.lo - kOutside, fit.lr.estimate - kReach),
       std::min(x.hi + kOutside, fit.lr.estimate + kReach)};
  y = {std::max(y.lo - kOutside, fit.wd.estimate - kReach),
       std::min(y.hi + kOutside, fit.wd.estimate + kReach)};
  x = {std::max(x.lo, options.x.lo), std::min(x.hi, options.x.hi)};
  y = {std::max(y.lo, options.y.lo), std::min(y.hi, options.y.hi)};
  if (fit.diverged_at) x.hi = std::min(x.hi, *fit.diverged_at - kBarrier);
  const auto first = [](double lo, double anchor, double step) { return std::ceil((lo - anchor) / step); };
  std::vector<NewPoint> lattice;
  for (double i = first(x.lo, options.anchor_x, kStepX); options.anchor_x + i * kStepX <= x.hi; ++i)
    for (double j = first(y.lo, options.anchor_y, kStepY); options.anchor_y + j * kStepY <= y.hi; ++j)
      lattice.push_back({options.anchor_x + i * kStepX, options.anchor_y + j * kStepY});
  // A seed is common to all trials: the same point again would give the same number again.
  constexpr double kSame = 0.1;
  std::erase_if(lattice, [&](const NewPoint& c) {
    return std::ranges::any_of(points,
                               [&](const FitPoint& p) { return std::hypot(p.x - c.x, p.y - c.y) < kSame; });
  });
  return lattice;
}

}  // namespace

std::vector<NewPoint> next_points(const Optimum& fit, const std::vector<FitPoint>& points,
                                  const NextPointsOptions& options) {
  if (!fit.wd_fitted || !(fit.hx > 0) || !(fit.hx * fit.hy > fit.hxy * fit.hxy)) return {};
  Criterion criterion(fit, points, options);
  std::vector<NewPoint> lattice = candidates(fit, points, options);
  std::vector<NewPoint> chosen;
  while (static_cast<int>(chosen.size()) < options.count && !lattice.empty()) {
    const auto best = std::ranges::max_element(
        lattice, {}, [&](const NewPoint& point) { return criterion.gain(point.x, point.y); });
    criterion.add(best->x, best->y);
    chosen.push_back(*best);
    lattice.erase(best);
  }
  return chosen;
}

std::vector<NewPoint> mirrored_points(const std::vector<FitPoint>& points, double x) {
  std::vector<NewPoint> taken, added;
  for (const FitPoint& point : points) taken.push_back({point.x, point.y});
  const double lowest = lowest_loss(points);
  double best = -INFINITY;
  for (const FitPoint& point : points)
    if (!has_diverged(point, lowest) && point.loss == lowest) best = point.x;
  for (const FitPoint& point : points) {
    if (!has_diverged(point, lowest) || point.x <= best) continue;
    NewPoint mirror{x - std::abs(point.x - x), point.y};
    const auto near_mirror = [&](const NewPoint& other) {
      return std::hypot(other.x - mirror.x, other.y - mirror.y) < 0.1;
    };
    while (std::ranges::any_of(taken, near_mirror)) mirror.x -= 1;
    taken.push_back(mirror);
    added.push_back(mirror);
  }
  return added;
}

}  // namespace sweeps
