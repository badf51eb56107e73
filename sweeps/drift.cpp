#include "sweeps/drift.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <Eigen/LU>
#include <boost/math/distributions/fisher_f.hpp>
#include <boost/math/distributions/normal.hpp>

#include "sweeps/next_points.h"
#include "sweeps/profile_region.h"

// fit-and-drift 4: definitions 4.1, the target's fit 4.2, the decision 4.3.
namespace sweeps {
namespace {

constexpr int kFewestRuns = 7;
constexpr double kSigmaLimit = 3;  // times the tolerance
constexpr double kConflict = 2;    // prior sd between the target's curvature and the proxy's
constexpr double kDriftP = 0.01;
constexpr double kLocationP = 0.05;  // of a strict check: the 95 % interval
constexpr int kFewestWithoutPrior = 8;  // runs for a two-dimensional fit of its own
constexpr double kWidened = 4;          // the prior's sd with fewer runs than that
constexpr int kMostRuns = 999;          // "still needed": beyond this the number means nothing

/// Standard error of one coefficient, k's spread included.
double standard_error(const Optimum& fit, int index, double SkewSurface::*coefficient) {
  double mean = 0, square = 0, variance = 0;
  for (const auto& at : fit.by_skew) {
    const double value = at.surface.*coefficient;
    mean += at.probability * value, square += at.probability * value * value;
    variance += at.probability * at.covariance(index, index);
  }
  return std::sqrt(variance + std::max(square - mean * mean, 0.0));
}

/// Whether the curvatures of `fit`, known to their own standard error or exactly, deny the prior's.
bool denies(const Optimum& fit, const ShapePrior& prior, bool own_error) {
  const auto far = [&](double fitted, double expected, double sd, double error) {
    return std::abs(fitted - expected) > kConflict * std::hypot(sd, own_error ? error : 0);
  };
  if (far(fit.hx, prior.hx, prior.hx_sd(), standard_error(fit, 3, &SkewSurface::hx))) return true;
  return prior.wd && far(fit.hy, prior.hy, prior.hy_sd(), standard_error(fit, 5, &SkewSurface::hy));
}

/// Without the prior where its shape is not the target's: either the fit leaves it, or a fit that hardly
/// knows it does (a prior that is far off can also win, by making the residuals look like noise).
/// Fewer runs than a fit of its own needs keep a prior so wide that it only closes the gap.
FitResult fit_target(const std::vector<FitPoint>& points, const FitOptions& options, bool& conflict) {
  FitResult result = fit_optimum(points, options);
  FitOptions loose = options;
  loose.prior->widen = kWidened;
  loose.draws = kFewestDraws;  // coefficients are enough to compare
  const FitResult by_itself = fit_optimum(points, loose);
  const auto* fit = std::get_if<Optimum>(&result);
  const auto* loose_fit = std::get_if<Optimum>(&by_itself);
  conflict =
      fit && loose_fit && (denies(*fit, *options.prior, false) || denies(*loose_fit, *options.prior, true));
  if (!conflict) return result;
  loose.draws = options.draws;
  if (fit->num_points < kFewestWithoutPrior) return fit_optimum(points, loose);
  loose.nu0 = kPriorSigmaWeight;  // seeds are as noisy, whatever the shape
  loose.sigma0 = options.prior->sigma;
  loose.prior.reset();
  return fit_optimum(points, loose);
}

template <typename Difference>
Estimate estimate(const Optimum& fit, double value, double floor, Difference&& difference) {
  std::vector<double> draws;
  for (std::size_t i = 0; i < fit.draws.size(); ++i) draws.push_back(difference(fit.draws[i], i));
  return {value, draws_interval(value, std::move(draws), 0.95, floor)};
}

/// z_target - z_T with z_T a constant, and z_target - z_proxy with both random.
void add_location(DriftReport& report, const Optimum& fit, double x, double y, const Optimum& proxy,
                  double floor) {
  using Draw = Optimum::Draw;
  const double dx = fit.lr.estimate - x, dy = fit.wd.estimate - y;
  report.lr = estimate(fit, dx, floor, [&](const Draw& d, std::size_t) { return d.x - x; });
  report.wd = estimate(fit, dy, floor, [&](const Draw& d, std::size_t) { return d.y - y; });
  report.tau =
      estimate(fit, -(dx + dy), floor, [&](const Draw& d, std::size_t) { return -(d.x - x + d.y - y); });
  // The draws of either fit lie in order of k: walk the proxy's in strides, so that no pair shares its k or
  // its random numbers.
  constexpr std::size_t kStride = 7919;
  const auto partner = [&](std::size_t i) -> const Draw& {
    return proxy.draws[(i + 1) * kStride % proxy.draws.size()];
  };
  const double both = floor * std::sqrt(2.0);
  report.lr_from_proxy = estimate(fit, fit.lr.estimate - proxy.lr.estimate, both,
                                  [&](const Draw& d, std::size_t i) { return d.x - partner(i).x; });
  report.wd_from_proxy = estimate(fit, fit.wd.estimate - proxy.wd.estimate, both,
                                  [&](const Draw& d, std::size_t i) { return d.y - partner(i).y; });
}

/// TOST at 5 %: the 90 % intervals of both drifts inside the bounds; both at once need no correction.
bool location_equivalent(const Optimum& fit, double x, double y, const DriftOptions& options) {
  std::vector<double> lr, wd;
  for (const auto& draw : fit.draws) lr.push_back(draw.x - x), wd.push_back(draw.y - y);
  const auto inside = [](Interval interval, double bound) {
    return interval.lo > -bound && interval.hi < bound;
  };
  const double floor = options.fit.shape_floor;
  return inside(draws_interval(fit.lr.estimate - x, lr, 0.9, floor), options.lr_shift) &&
         inside(draws_interval(fit.wd.estimate - y, wd, 0.9, floor), options.wd_shift);
}

/// Of "the drift lies within the bound", from the near side of its 95 % interval: below 0.05 exactly where that
/// leaves the bound.
double location_p(const Estimate& drift, double bound) {
  const double inner = drift.value > 0 ? drift.value - drift.ci.lo : drift.ci.hi - drift.value;
  const boost::math::normal normal;
  const double z = quantile(normal, 1 - kLocationP / 2) * (std::abs(drift.value) - bound) / std::max(inner, 1e-9);
  return z <= 0 ? 1 : 2 * cdf(complement(normal, z));
}

/// What the transferred point costs: over the draws, and of the mean surface less the bias that noise in the
/// gradient puts in. Joint over LR and WD.
void add_regret(DriftReport& report, const Optimum& fit, double x, double y, const GradientAt& gradient) {
  std::vector<double> draws;
  for (const auto& draw : fit.draws) draws.push_back(evaluate(fit, draw, x, y) - draw.loss);
  const double n = static_cast<double>(draws.size());
  report.probability_within =
      static_cast<double>(std::ranges::count_if(draws, [&](double r) { return r < report.tolerance; })) / n;
  const auto upper = draws.begin() + static_cast<std::ptrdiff_t>(0.95 * (n - 1));
  std::nth_element(draws.begin(), upper, draws.end());
  report.regret_upper = *upper;
  report.regret = evaluate(fit, fit.mean, x, y) - fit.mean.loss;
  const Eigen::Matrix2d h = hessian(fit.mean, fit.mean.x - fit.centre_x);
  report.regret_debiased = report.regret;
  if (h(0, 0) > 0 && h.determinant() > 0)
    report.regret_debiased -= (h.inverse() * gradient.covariance).trace() / 2;
}

/// The F statistic of H0 "the gradient at the transferred point is zero", two degrees of freedom.
double gradient_f(const GradientAt& gradient) {
  return gradient.mean.dot(gradient.covariance.inverse() * gradient.mean) / 2;
}

/// n (half width / what is needed)^2, the way a standard error falls.
int more_runs(const DriftReport& report, double f, double f_needed, int claims) {
  double ratio = f_needed / std::max(f, 1e-9);  // a cost that is real but not yet proven
  if (report.regret_upper <= report.tolerance) {  // strict: a move that is not yet proven among so many
    const boost::math::normal normal;
    ratio = std::pow(quantile(normal, kLocationP / claims / 2) / quantile(normal, report.location_p / 2), 2);
  } else if (report.regret_debiased < report.tolerance) {
    const double width = report.regret_upper - std::max(report.regret_debiased, 0.0);
    const double needed = report.tolerance - std::max(report.regret_debiased, 0.0);
    ratio = width * width / (needed * needed);
  }
  const double more = std::ceil(report.num_points * (ratio - 1));
  return static_cast<int>(std::clamp(more, 1.0, static_cast<double>(kMostRuns)));
}

/// Outside an open edge first; a bracketed optimum is placed more closely.
std::vector<NewPoint> what_next(const Optimum& fit, const std::vector<FitPoint>& points, double x, double y,
                                const DriftOptions& options) {
  if (auto outside = extension_points(fit, points); !outside.empty()) return outside;
  return next_points(fit, points,
                     {.kappa = options.fit.kappa, .prior = options.fit.prior, .anchor_x = x, .anchor_y = y});
}

void call_drift(DriftReport& report, const Optimum& fit) {
  report.verdict = Verdict::drift;
  report.lr_factor = std::exp2(report.lr.value), report.wd_factor = std::exp2(report.wd.value);
  report.reason = fmt::format("use LR x{:.2f}, WD x{:.2f}", report.lr_factor, report.wd_factor);
  if (!fit.bracketed()) report.reason += "; at least, the optimum is not bracketed";
}

std::string why_open(const DriftReport& report, const Optimum& fit, const DriftOptions& options) {
  if (report.claim_p < 1)
    return fmt::format(
        "DRIFT by itself, but one of several: Holm's correction asks for p < {:.2g} of it among the targets, "
        "and it has {:.2g}",
        (report.regret_upper <= report.tolerance ? kLocationP : kDriftP) / options.claims,
        report.regret_upper <= report.tolerance ? report.location_p : report.gradient_p);
  return fit.bracketed() ? "the cost is neither proven small nor proven real"
                         : "the target's optimum lies on the edge of its trials, which can be extended";
}

void decide(DriftReport& report, const Optimum& fit, const std::vector<FitPoint>& points, double x, double y,
            const DriftOptions& options) {
  const double f = gradient_f(gradient_at(fit, x, y));
  const boost::math::fisher_f f_distribution(2, fit.df);
  report.gradient_p = cdf(complement(f_distribution, f));
  report.location_p =
      std::min(location_p(report.lr, options.lr_shift), location_p(report.wd, options.wd_shift));
  const bool harmless = report.regret_upper <= report.tolerance;
  const bool moved = options.strict && report.location_p < kLocationP;
  if (harmless && !moved) {
    report.verdict = Verdict::pass;
    report.reason = report.location_equivalent
                        ? "location equivalent"
                        : "moved or not placed closely, harmless: the cost is below the tolerance";
    return;
  }
  if (harmless)
    report.claim_p = report.location_p / kLocationP;
  else if (report.regret_debiased >= report.tolerance)
    report.claim_p = report.gradient_p / kDriftP;
  if (report.claim_p < 1.0 / options.claims) {
    call_drift(report, fit);
    if (harmless)
      report.reason += fmt::format(
          "; strict: the optimum is proven to have moved by more than {:g} octaves of LR or {:g} of WD, though "
          "the cost is below the tolerance",
          options.lr_shift, options.wd_shift);
    return;
  }
  if (options.extensions_left > 0) report.next = what_next(fit, points, x, y, options);
  if (!fit.bracketed() && report.next.empty()) {
    report.verdict = Verdict::not_bracketed;
    report.reason = "the target's optimum still lies on the edge of its trials";
    return;
  }
  report.verdict = Verdict::inconclusive;
  report.more_runs =
      more_runs(report, f, quantile(complement(f_distribution, kDriftP / options.claims)), options.claims);
  report.reason = why_open(report, fit, options);
}

std::optional<std::string> why_unusable(const DriftReport& report, int num_points) {
  if (2 * report.num_diverged > num_points)
    return fmt::format("{} of {} runs diverged", report.num_diverged, num_points);
  if (report.num_points < kFewestRuns)
    return fmt::format("{} of the runs finished; at least {} are needed", report.num_points, kFewestRuns);
  return std::nullopt;
}

std::optional<std::string> why_unusable(const FitResult& result, double tolerance) {
  if (const auto* few = std::get_if<TooFewTrials>(&result)) return few->message;
  if (const auto* rank = std::get_if<RankDeficient>(&result)) return rank->message;
  const Optimum& fit = std::get<Optimum>(result);
  if (!fit.wd_fitted) return "the runs have one WD level; a drift along WD could not be seen";
  if (fit.sigma > kSigmaLimit * tolerance)
    return fmt::format("noise {:.4f} {} is over {:g} times the tolerance {:.4f}; average seeds or raise it",
                       fit.sigma, fit.loss_unit, kSigmaLimit, tolerance);
  return std::nullopt;
}

/// Enough runs were made, and it was divergence that left too few.
bool asks_for_mirrors(const DriftReport& report, int num_points, const DriftOptions& options) {
  return options.extensions_left > 0 && num_points >= kFewestRuns && 2 * report.num_diverged <= num_points;
}

void count_runs(DriftReport& report, const std::vector<FitPoint>& points) {
  const double lowest = lowest_loss(points);
  for (const FitPoint& point : points)
    ++(has_diverged(point, lowest) ? report.num_diverged : report.num_points);
}

}  // namespace

ShapePrior shape_prior(const Optimum& proxy) {
  ShapePrior prior;
  prior.hx = proxy.hx, prior.hxy = proxy.hxy, prior.hy = proxy.hy;
  prior.wd = proxy.wd_fitted;
  prior.k = proxy.k;
  prior.sigma = proxy.sigma;
  return prior;
}

std::vector<int> holm_claims(const std::vector<double>& claim_p) {
  std::vector<std::size_t> order(claim_p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return claim_p[i]; });
  std::vector<int> claims(claim_p.size());
  int left = static_cast<int>(claim_p.size());
  for (const std::size_t i : order) {
    claims[i] = left;
    if (claim_p[i] * left < 1) --left;  // from the first that fails on, all others need what it needed
  }
  return claims;
}

DriftReport judge_drift(const std::vector<FitPoint>& points, double x, double y, const Optimum& proxy,
                        const DriftOptions& given) {
  DriftOptions options = given;
  if (!options.fit.prior) options.fit.prior = shape_prior(proxy);
  DriftReport report;
  report.tolerance = options.tolerance;
  count_runs(report, points);
  if (const auto why = why_unusable(report, static_cast<int>(points.size()))) {
    report.reason = *why;
    if (asks_for_mirrors(report, static_cast<int>(points.size()), options)) {
      report.verdict = Verdict::inconclusive;
      report.next = mirrored_points(points, x);
      report.more_runs = static_cast<int>(report.next.size());
    }
    return report;
  }
  const FitResult result = fit_target(points, options.fit, report.prior_conflict);
  if (const auto* fit = std::get_if<Optimum>(&result)) report.sigma = fit->sigma;
  if (const auto why = why_unusable(result, options.tolerance)) {
    report.reason = *why;
    return report;
  }
  const Optimum& fit = std::get<Optimum>(result);
  const GradientAt gradient = gradient_at(fit, x, y);
  add_location(report, fit, x, y, proxy, options.fit.shape_floor);
  add_regret(report, fit, x, y, gradient);
  report.location_equivalent = location_equivalent(fit, x, y, options);
  report.curvature_bound = fit.hx > 0 ? std::sqrt(2 * options.tolerance / fit.hx) : INFINITY;
  report.fit = fit;
  decide(report, fit, points, x, y, options);
  return report;
}

}  // namespace sweeps
