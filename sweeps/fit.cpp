#include "sweeps/fit.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <boost/math/distributions/chi_squared.hpp>
#include <boost/math/distributions/normal.hpp>

#include "sweeps/generator.h"
#include "sweeps/robust_fit.h"

// From fitted surfaces to an optimum with its uncertainty: fit-and-drift 2.
namespace sweeps {
namespace {

constexpr double kDivergedAbove = 1.0;  // nats over the best trial
constexpr double kGuard = 1.5;          // octaves between the optimum and the best trial
constexpr double kUnbracketed = 0.025;  // share of draws on one side of the box
constexpr double kOnLine = 0.02;        // octaves, root mean square across a line through the trials
constexpr double kOutlier = 4;          // robust residual that is worth a note

/// A surface of `robust` with its optimum, its loss counted from zero again.
Optimum::Draw make_draw(const RobustFit& robust, const SkewSurface& surface, double reference) {
  const BoxOptimum at = box_optimum(surface, robust.box);
  Optimum::Draw draw;
  static_cast<SkewSurface&>(draw) = surface;
  draw.c += reference;
  draw.x = robust.centre_x + at.u, draw.y = robust.centre_y + at.v;
  draw.loss = at.loss + reference;
  return draw;
}

/// beta ~ t_df(beta_hat, s^2 (X'WX)^-1) for every k in proportion to its posterior.
std::vector<Optimum::Draw> make_draws(const RobustFit& robust, const FitOptions& options, double reference) {
  using namespace boost::math::policies;  // not in long double: twelve digits of a random number are enough
  const boost::math::chi_squared_distribution<double, policy<promote_double<false>, digits10<12>>>
      chi_squared(robust.df);
  std::vector<Optimum::Draw> draws;
  for (std::size_t i = 0; i < robust.at_skew.size(); ++i) {
    const SkewRegression& fit = robust.at_skew[i];
    const int count = static_cast<int>(std::lround(options.draws * robust.posterior[i]));
    Generator generator(options.seed, i);
    Eigen::VectorXd shift(fit.root.cols());
    for (int d = 0; d < count; ++d) {
      const double scale = robust.sigma * std::sqrt(robust.df / quantile(chi_squared, generator.uniform()));
      for (double& z : shift) z = scale * generator.normal();
      draws.push_back(make_draw(robust, fit.surface_at(shift), reference));
    }
  }
  return draws;
}

void add_outliers(Optimum& optimum, const RobustFit& robust, const SkewDesign& design) {
  for (int i = 0; i < design.num_points(); ++i) {
    const double z = robust.residual[i];
    if (std::abs(z) < kOutlier) continue;
    optimum.notes.push_back(fmt::format("outlier: LR {:.3g} WD {:.3g} lies {:.1f} sigma {} the surface",
                                        std::exp2(design.x[i]), std::exp2(design.y[i]), std::abs(z),
                                        z > 0 ? "above" : "below"));
  }
}

AxisOptimum axis(double estimate, std::vector<double> draws, double floor, Interval box) {
  AxisOptimum axis;
  axis.estimate = estimate;
  axis.ci = draws_interval(estimate, draws, 0.95, floor);
  const double n = static_cast<double>(draws.size());
  const auto share = [&](auto on_edge) {
    return static_cast<double>(std::ranges::count_if(draws, on_edge)) / n;
  };
  constexpr double kTouch = 1e-9;  // a box optimum on an edge is put there exactly, but for rounding
  axis.edge_low = share([&](double value) { return value <= box.lo + kTouch; });
  axis.edge_high = share([&](double value) { return value >= box.hi - kTouch; });
  axis.bracketed = axis.edge_low < kUnbracketed && axis.edge_high < kUnbracketed;
  return axis;
}

/// With the optimum outside the grid the fit can flip to the opposite edge: an open one that is far from the
/// best trial is not believed, and the best trial's place is reported.
void guard(Optimum& optimum) {
  const double observed = optimum.best_observed.x;
  if (optimum.lr.bracketed || std::abs(optimum.lr.estimate - observed) <= kGuard) return;
  optimum.notes.push_back(
      fmt::format("the fitted LR* {:.3g} is {:.1f} octaves from the best trial and was not believed",
                  std::exp2(optimum.lr.estimate), std::abs(optimum.lr.estimate - observed)));
  optimum.guarded = true;
  optimum.lr.estimate = observed;
  optimum.lr.bracketed = false;
  optimum.lr.ci = {std::min(optimum.lr.ci.lo, observed), std::max(optimum.lr.ci.hi, observed)};
  if (optimum.wd_fitted) optimum.wd.estimate = optimum.best_observed.y;
  optimum.wd.ci = {std::min(optimum.wd.ci.lo, optimum.wd.estimate),
                   std::max(optimum.wd.ci.hi, optimum.wd.estimate)};
  optimum.log2_tau.estimate = -(optimum.lr.estimate + optimum.wd.estimate);
}

/// The largest box, in the proportions of the two axes' own tolerances, whose four corners are all within
/// the tolerance: a surface that bends upwards is worst at a corner.
void add_near_optimal_box(Optimum& fit, double tolerance) {
  const double x = fit.lr.estimate, y = fit.wd.estimate;
  fit.near_lr = {x, x}, fit.near_wd = {y, y};
  if (regret_bound(fit, x, y) > tolerance) {
    fit.notes.push_back("no point is within the tolerance with 95 % confidence yet");
    return;
  }
  const auto reach = [&](double dx, double dy) {  // how far along (dx, dy) the bound holds
    double inside = 0, outside = 8;
    for (int step = 0; step < 12; ++step) {
      const double middle = (inside + outside) / 2;
      (regret_bound(fit, x + middle * dx, y + middle * dy) <= tolerance ? inside : outside) = middle;
    }
    return inside;
  };
  const double low = reach(-1, 0), high = reach(1, 0);
  const double down = fit.wd_fitted ? reach(0, -1) : 0, up = fit.wd_fitted ? reach(0, 1) : 0;
  double scale = 1;
  if (fit.wd_fitted)
    for (const double dx : {-low, high})
      for (const double dy : {-down, up}) scale = std::min(scale, reach(dx, dy));
  fit.near_lr = {x - scale * low, x + scale * high};
  fit.near_wd = {y - scale * down, y + scale * up};
}

std::vector<double> over_draws(const Optimum& fit, auto&& value_of) {
  std::vector<double> values;
  values.reserve(fit.draws.size());
  for (const auto& draw : fit.draws) values.push_back(value_of(draw));
  return values;
}

/// The three axes with their intervals.
void add_axes(Optimum& fit, double x, double y, double floor) {
  fit.lr = axis(x, over_draws(fit, [](const auto& d) { return d.x; }), floor, fit.box_x);
  fit.wd = axis(y, over_draws(fit, [](const auto& d) { return d.y; }), floor, fit.box_y);
  const auto tau = over_draws(fit, [](const auto& d) { return -(d.x + d.y); });
  fit.log2_tau = axis(-(x + y), tau, floor, {-INFINITY, INFINITY});
  if (!fit.wd_fitted) fit.wd = {y, {y, y}, 0, 0, false};
}

void add_trials(Optimum& fit, const FinishedTrials& trials) {
  fit.num_points = static_cast<int>(trials.points.size());
  fit.num_diverged = trials.num_diverged;
  fit.diverged_at = trials.diverged_at;
  fit.best_observed = trials.best;
  fit.best_on_edge = trials.best.x <= trials.x_lo || trials.best.x >= trials.x_hi;
}

void add_surfaces(Optimum& fit, const RobustFit& robust, const FitOptions& options) {
  const double reference = fit.best_observed.loss;
  fit.centre_x = robust.centre_x, fit.centre_y = robust.centre_y;
  fit.box_x = {robust.centre_x + robust.box.u_lo, robust.centre_x + robust.box.u_hi};
  fit.box_y = {robust.centre_y + robust.box.v_lo, robust.centre_y + robust.box.v_hi};
  fit.mean = make_draw(robust, robust.mean, reference);
  fit.hx = robust.mean.hx, fit.hxy = robust.mean.hxy, fit.hy = robust.mean.hy;
  for (std::size_t i = 0; i < robust.at_skew.size(); ++i) {
    const SkewRegression& at = robust.at_skew[i];
    fit.by_skew.push_back(
        {robust.posterior[i], at.surface, robust.sigma * robust.sigma * at.unit_covariance()});
    fit.by_skew.back().surface.c += reference;
  }
  fit.draws = make_draws(robust, options, reference);
}

Optimum summarise(const RobustFit& robust, const FinishedTrials& trials, const SkewDesign& design,
                  const FitOptions& options) {
  Optimum fit;
  fit.wd_fitted = design.two_d;
  fit.loss_unit = options.loss_unit;
  fit.sigma = robust.sigma, fit.df = robust.df;
  fit.sigma_source = options.prior   ? "residuals and proxy"
                     : robust.pooled ? "residuals and seeds"
                                     : "residuals";
  fit.k = robust.k, fit.k_sd = robust.k_sd;
  fit.n_eff = robust.n_eff;
  add_trials(fit, trials);
  add_surfaces(fit, robust, options);
  fit.best_loss = fit.mean.loss;
  fit.one_octave_low = evaluate(fit, fit.mean, fit.mean.x - 1, fit.mean.y) - fit.mean.loss;
  fit.one_octave_high = evaluate(fit, fit.mean, fit.mean.x + 1, fit.mean.y) - fit.mean.loss;
  add_axes(fit, robust.x, robust.y, options.shape_floor);
  guard(fit);
  fit.regret_tolerance = options.regret_tolerance;
  add_near_optimal_box(fit, options.regret_tolerance);
  add_outliers(fit, robust, design);
  return fit;
}

/// Whether the trials lie on one line of LR and WD, but for the rounding of planned values (1e-3 octaves).
/// Least squares would read a slope across the line, many nats an octave, off that rounding.
bool on_one_line(const std::vector<FitPoint>& points) {
  double x = 0, y = 0, xx = 0, xy = 0, yy = 0;
  const double n = static_cast<double>(points.size());
  for (const FitPoint& point : points) x += point.x / n, y += point.y / n;
  for (const FitPoint& point : points) {
    const double dx = point.x - x, dy = point.y - y;
    xx += dx * dx / n, xy += dx * dy / n, yy += dy * dy / n;
  }
  const double across = (xx + yy) / 2 - std::hypot((xx - yy) / 2, xy);  // smaller eigenvalue: mean square
  return across < kOnLine * kOnLine;
}

RankDeficient explain_rank(const FinishedTrials& trials, const SkewDesign& design) {
  const int lr_levels = num_levels(trials.points, &FitPoint::x);
  if (lr_levels < 3) {
    std::string message = fmt::format("{} LR level{} among the finished trials; the optimum needs at least 3",
                                      lr_levels, lr_levels == 1 ? "" : "s");
    if (trials.diverged_at)
      message += fmt::format(" ({} diverged, from LR {:.2g} on: start lower)", trials.num_diverged,
                             std::exp2(*trials.diverged_at));
    return {message};
  }
  if (!design.two_d) return {"the LR levels are spread over too many seeds or WD levels to be compared"};
  if (num_levels(trials.points, &FitPoint::y) == 2)
    return {"2 WD levels among the finished trials; the optimum needs at least 3, or one for LR alone"};
  return {"LR and WD were not varied independently; add trials off the line they lie on"};
}

}  // namespace

bool has_diverged(const FitPoint& point, double lowest_loss) {
  return point.diverged || !std::isfinite(point.loss) || point.loss > lowest_loss + kDivergedAbove;
}

double lowest_loss(const std::vector<FitPoint>& points) {
  double lowest = INFINITY;
  for (const FitPoint& point : points)
    if (!point.diverged && std::isfinite(point.loss)) lowest = std::min(lowest, point.loss);
  return lowest;
}

double SkewPrior::log_density(double k) const {
  const auto log_normal = [&](double share, double middle, double width) {
    const double z = (k - middle) / width;
    return std::log(share / width) - z * z / 2;
  };
  const double near = log_normal(1 - wide_share, mean, sd), far = log_normal(wide_share, wide_mean, wide_sd);
  const double top = std::max(near, far);
  return top + std::log(std::exp(near - top) + std::exp(far - top));
}

double ShapePrior::hx_sd() const { return 0.5 * std::max(hx, 0.0) + 0.002; }
double ShapePrior::hxy_sd() const { return 0.35 * std::sqrt(std::max(hx, 0.0) * std::max(hy, 0.0)) + 0.002; }
double ShapePrior::hy_sd() const { return 0.6 * std::max(hy, 0.0) + 0.002; }

Interval draws_interval(double estimate, std::vector<double> draws, double coverage, double floor) {
  std::ranges::sort(draws);
  const auto at = [&](double p) {
    const double position = p * static_cast<double>(draws.size() - 1);
    const auto below = static_cast<std::size_t>(position);
    const std::size_t above = std::min(below + 1, draws.size() - 1);
    return draws[below] + (position - static_cast<double>(below)) * (draws[above] - draws[below]);
  };
  const double tail = (1 - coverage) / 2;
  const double extra = floor * quantile(boost::math::normal(), 1 - tail);
  const double below = std::max(estimate - at(tail), 0.0), above = std::max(at(1 - tail) - estimate, 0.0);
  return {estimate - std::hypot(below, extra), estimate + std::hypot(above, extra)};
}

double evaluate(const Optimum& fit, const Optimum::Draw& draw, double x, double y) {
  return value(draw, x - fit.centre_x, fit.wd_fitted ? y - fit.centre_y : 0);
}

double regret_bound(const Optimum& fit, double x, double y) {
  std::vector<double> regrets;
  regrets.reserve(fit.draws.size() / 3 + 1);
  for (std::size_t i = 0; i < fit.draws.size(); i += 3)
    regrets.push_back(evaluate(fit, fit.draws[i], x, y) - fit.draws[i].loss);
  const auto at =
      regrets.begin() + static_cast<std::ptrdiff_t>(0.95 * static_cast<double>(regrets.size() - 1));
  std::nth_element(regrets.begin(), at, regrets.end());
  return *at;
}

FitResult fit_optimum(const std::vector<FitPoint>& points, const FitOptions& options) {
  if (options.k_grid.empty()) throw std::invalid_argument("fit_optimum: the k grid is empty");
  if (options.draws < kFewestDraws)
    throw std::invalid_argument(
        fmt::format("fit_optimum: {} draws; at least {}", options.draws, kFewestDraws));
  const auto trials = sort_trials(points);
  if (!trials) return TooFewTrials{"no trial finished"};
  const SkewDesign design = make_design(*trials, options);
  const int num_rows = design.num_points() + static_cast<int>(design.prior.size());
  if (num_rows < design.num_parameters() + 1)
    return TooFewTrials{fmt::format("{} finished trials; this design needs at least {}", design.num_points(),
                                    design.num_parameters() + 1 - static_cast<int>(design.prior.size()))};
  if (design.two_d && on_one_line(trials->points)) return explain_rank(*trials, design);
  const auto robust = robust_fit(*trials, design, options);
  if (!robust) return explain_rank(*trials, design);
  return summarise(*robust, *trials, design, options);
}

}  // namespace sweeps
