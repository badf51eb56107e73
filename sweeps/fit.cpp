#include "sweeps/fit.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include <fmt/format.h>
#include <boost/math/distributions/chi_squared.hpp>
#include <boost/math/distributions/normal.hpp>

#include "sweeps/generator.h"
#include "sweeps/skew_regression.h"

// fit-and-drift 1.5 and 2: the names and the constants are its own.
namespace sweeps {
namespace {

constexpr double kDivergedAbove = 1.0;  // nats over the best trial
constexpr double kBoxMargin = 1.0;      // octaves around the explored region
constexpr double kGuard = 1.5;          // octaves between the optimum and the best trial
constexpr double kUnbracketed = 0.025;  // share of draws on one side of the box
constexpr double kStartSigma = 0.004;   // nats
constexpr int kIterations = 24;
constexpr int kHuberIterations = 8;
constexpr double kHuber = 1.5, kTukey = 4.685;
constexpr int kTukeyFrom = 12;  // trials
constexpr int kTwoDFrom = 8;    // trials and prior rows
constexpr double kOutlier = 4;  // robust residual that is worth a note

/// The finished trials in a fixed order, so that nothing depends on the order of arrival.
struct Trials {
  std::vector<FitPoint> finished;
  int num_diverged = 0;
  std::optional<double> diverged_at;
  FitPoint best;
  double x_lo = 0, x_hi = 0, y_lo = 0, y_hi = 0;
};

std::optional<Trials> sort_trials(const std::vector<FitPoint>& points) {
  Trials trials;
  const double lowest = lowest_loss(points);
  for (const FitPoint& point : points) {
    if (!has_diverged(point, lowest)) {
      trials.finished.push_back(point);
      continue;
    }
    ++trials.num_diverged;
    trials.diverged_at = std::min(trials.diverged_at.value_or(INFINITY), point.x);
  }
  if (trials.finished.empty()) return std::nullopt;
  std::ranges::sort(trials.finished, [](const FitPoint& a, const FitPoint& b) {
    return std::tie(a.x, a.y, a.seed_block, a.loss) < std::tie(b.x, b.y, b.seed_block, b.loss);
  });
  trials.best = *std::ranges::min_element(trials.finished, {}, &FitPoint::loss);
  const auto [x_lo, x_hi] = std::ranges::minmax(trials.finished, {}, &FitPoint::x);
  const auto [y_lo, y_hi] = std::ranges::minmax(trials.finished, {}, &FitPoint::y);
  trials.x_lo = x_lo.x, trials.x_hi = x_hi.x, trials.y_lo = y_lo.y, trials.y_hi = y_hi.y;
  return trials;
}

int num_levels(const std::vector<FitPoint>& points, double FitPoint::*axis) {
  std::set<double> levels;
  for (const FitPoint& point : points) levels.insert(point.*axis);
  return static_cast<int>(levels.size());
}

std::vector<SkewDesign::PriorRow> prior_rows(const std::optional<ShapePrior>& prior, bool two_d) {
  std::vector<SkewDesign::PriorRow> rows;
  if (!prior) return rows;
  rows.push_back({3, prior->hx, prior->hx_sd() * prior->widen});
  if (!two_d || !prior->wd) return rows;
  rows.push_back({4, prior->hxy, prior->hxy_sd() * prior->widen});
  rows.push_back({5, prior->hy, prior->hy_sd() * prior->widen});
  return rows;
}

/// Too few trials for two dimensions, or one WD level: LR alone. WD levels then get an intercept each, as
/// seeds do, so that their differences in level do not look like noise.
SkewDesign make_design(const Trials& trials, const FitOptions& options) {
  SkewDesign design;
  const int n = static_cast<int>(trials.finished.size());
  const bool wd_varies = num_levels(trials.finished, &FitPoint::y) > 1;
  const int num_rows = n + static_cast<int>(prior_rows(options.prior, true).size());
  design.two_d = wd_varies && num_rows >= kTwoDFrom;
  design.prior = prior_rows(options.prior, design.two_d);
  design.x.resize(n), design.y.resize(n), design.loss.resize(n);
  std::map<std::pair<int, double>, int> blocks;
  for (const FitPoint& point : trials.finished) blocks[{point.seed_block, design.two_d ? 0 : point.y}] = 0;
  for (int next = 0; auto& [key, block] : blocks) block = next++;
  design.num_blocks = static_cast<int>(blocks.size());
  for (int i = 0; i < n; ++i) {
    const FitPoint& point = trials.finished[i];
    design.x[i] = point.x, design.y[i] = point.y;
    design.loss[i] = point.loss - trials.best.loss;  // small numbers, and the level of the loss drops out
    design.block.push_back(blocks[{point.seed_block, design.two_d ? 0 : point.y}]);
  }
  return design;
}

double median(std::vector<double> values) {
  const std::size_t middle = values.size() / 2;
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(middle));
  if (values.size() % 2) return values[middle];
  return (values[middle] +
          *std::max_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle))) /
         2;
}

/// What the iterations carry along.
class Fitter {
 public:
  Fitter(const Trials& trials, const SkewDesign& design, const FitOptions& options);
  /// False when the weighted design does not determine the surface.
  bool run();
  Optimum summarise() const;

 private:
  bool iterate(int iteration);
  void weigh();
  bool update_posterior();
  void update_sigma(const SkewRegression& fit);
  void update_robust(int iteration);
  bool finish();
  Box box() const;
  double mean_k() const;
  double degrees_of_freedom() const;
  std::pair<double, double> estimate() const;
  Optimum::Draw draw_of(const SkewSurface& surface) const;
  void add_draws(Optimum& optimum) const;
  void add_notes(Optimum& optimum) const;

  const Trials& trials_;
  const SkewDesign& design_;
  const FitOptions& options_;
  double sigma0_ = 0, nu0_ = 0;  // pooled
  double k_mean_, k_sd_;         // prior of k
  double centre_x_, centre_y_;
  double sigma_ = kStartSigma;
  double parameters_ = 0;
  Eigen::VectorXd excess_, inflation_, robust_, weights_, residual_;  // inflation: of the variance
  std::vector<double> posterior_;
  std::vector<SkewRegression> fits_;  // one per k, the last of all
  SkewSurface mean_;
};

Fitter::Fitter(const Trials& trials, const SkewDesign& design, const FitOptions& options)
    : trials_(trials),
      design_(design),
      options_(options),
      k_mean_(options.k_mean),
      k_sd_(options.k_sd),
      centre_x_(trials.best.x),
      centre_y_(trials.best.y) {
  nu0_ = options.nu0;
  double sum = options.nu0 * options.sigma0 * options.sigma0;
  if (options.prior) {
    k_mean_ = options.prior->k, k_sd_ = options.prior->k_sd;
    nu0_ += kPriorSigmaWeight;
    sum += kPriorSigmaWeight * options.prior->sigma * options.prior->sigma;
  }
  if (nu0_ > 0) sigma0_ = std::sqrt(sum / nu0_);
  const int n = design.num_points();
  std::vector<double> losses(design.loss.begin(), design.loss.end());
  std::ranges::sort(losses);
  excess_ = (design.loss.array() - losses[std::min(1, n - 1)]).max(0.0);
  robust_ = Eigen::VectorXd::Ones(n);
  parameters_ = design.num_parameters();
}

Box Fitter::box() const {
  Box box{trials_.x_lo - kBoxMargin - centre_x_, trials_.x_hi + kBoxMargin - centre_x_,
          trials_.y_lo - kBoxMargin - centre_y_, trials_.y_hi + kBoxMargin - centre_y_};
  if (!design_.two_d) box.v_lo = box.v_hi = 0;
  return box;
}

// Excess-proportional variance: the shape is right near the optimum only, so its error grows with the excess.
void Fitter::weigh() {
  const int n = design_.num_points();
  const double wanted = std::min(9.0, n - 0.5);
  double kappa = options_.kappa;
  for (;; kappa *= 0.7) {
    inflation_ = 1 + (kappa * excess_.array() / sigma_).square();
    if (inflation_.cwiseInverse().sum() >= wanted) break;
  }
  weights_ = robust_.cwiseQuotient(inflation_);
}

double Fitter::degrees_of_freedom() const { return std::max(weights_.sum() - parameters_, 2.0) + nu0_; }

double Fitter::mean_k() const {
  return std::inner_product(posterior_.begin(), posterior_.end(), options_.k_grid.begin(), 0.0);
}

bool Fitter::update_posterior() {
  fits_.clear();
  std::vector<double> log_p;
  const double nu = degrees_of_freedom();
  for (const double k : options_.k_grid) {
    const auto fit = regress(design_, k, centre_x_, centre_y_, weights_, sigma_);
    if (!fit) return false;
    const double rss = fit->rss + fit->rss_prior + nu0_ * sigma0_ * sigma0_;
    const double floor = nu * options_.sigma_floor * options_.sigma_floor;
    const double z = (k - k_mean_) / k_sd_;
    log_p.push_back(-z * z / 2 - nu / 2 * std::log(std::max(rss, floor)));
    fits_.push_back(*fit);
  }
  const double top = *std::ranges::max_element(log_p);
  posterior_.clear();
  for (const double value : log_p) posterior_.push_back(std::exp(value - top));
  const double total = std::accumulate(posterior_.begin(), posterior_.end(), 0.0);
  for (double& p : posterior_) p /= total;
  return true;
}

void Fitter::update_sigma(const SkewRegression& fit) {
  const int n = design_.num_points();
  parameters_ = fit.parameters;
  const double df = std::max(weights_.sum() - fit.parameters, 1.0);
  double variance = fit.rss / df;
  std::vector<double> spread;
  for (int i = 0; i < n; ++i) spread.push_back(residual_[i] / std::sqrt(inflation_[i]));
  const double middle = median(spread);
  for (double& value : spread) value = std::abs(value - middle);
  const double cap = 1.5 * 1.4826 * median(spread) * std::sqrt(n / std::max(n - fit.parameters, 1.0));
  variance = std::min(variance, cap * cap);
  variance = (df * variance + nu0_ * sigma0_ * sigma0_) / (df + nu0_);
  sigma_ = std::max(std::sqrt(variance), options_.sigma_floor);
}

// A bad seed can be arbitrarily bad and is trimmed; on a smooth surface no run is lucky by five sigma, so a
// good surprise is only held back.
void Fitter::update_robust(int iteration) {
  const bool trim = iteration >= kHuberIterations && design_.num_points() >= kTukeyFrom;
  for (int i = 0; i < residual_.size(); ++i) {
    const double z = residual_[i] / std::sqrt(inflation_[i]) / sigma_;
    const double huber = std::min(1.0, kHuber / std::max(std::abs(z), 1e-300));
    const double t = 1 - z * z / (kTukey * kTukey);
    const bool best = design_.loss[i] <= 0;
    robust_[i] = trim && z > 0 && !best ? (t > 0 ? t * t : 0) : huber;
  }
}

bool Fitter::iterate(int iteration) {
  weigh();
  if (iteration == 0 || iteration == 8 || iteration == 14 || iteration == 20)
    if (!update_posterior()) return false;
  const auto fit = regress(design_, mean_k(), centre_x_, centre_y_, weights_, sigma_);
  if (!fit) return false;
  residual_ = design_.loss - fit->fitted;
  update_sigma(*fit);
  update_robust(iteration);
  const BoxOptimum best = box_optimum(fit->surface, box());
  for (int i = 0; i < design_.num_points(); ++i)
    excess_[i] =
        std::max(value(fit->surface, design_.x[i] - centre_x_, design_.two_d ? design_.y[i] - centre_y_ : 0) -
                     best.loss,
                 0.0);
  if (iteration == 5 || iteration == 11 || iteration == 17) {
    centre_x_ += best.u;
    centre_y_ += best.v;
  }
  return true;
}

// Mean over the fits that have an interior optimum; where WD is open, over those with an interior LR.
std::pair<double, double> Fitter::estimate() const {
  const Box limits = box();
  for (const bool lr_only : {false, true}) {
    double mass = 0, u = 0, v = 0;
    for (std::size_t i = 0; i < fits_.size(); ++i) {
      const BoxOptimum at = box_optimum(fits_[i].surface, limits);
      const bool counts = lr_only ? at.u > limits.u_lo && at.u < limits.u_hi : at.interior;
      if (!counts) continue;
      mass += posterior_[i], u += posterior_[i] * at.u, v += posterior_[i] * at.v;
    }
    if (mass > 0.3) return {centre_x_ + u / mass, centre_y_ + v / mass};
  }
  const BoxOptimum at = box_optimum(mean_, limits);
  return {centre_x_ + at.u, centre_y_ + at.v};
}

bool Fitter::finish() {
  for (int pass = 0; pass < 2; ++pass) {  // once to find the optimum, once more about it
    weigh();
    if (!update_posterior()) return false;
    const auto fit = regress(design_, mean_k(), centre_x_, centre_y_, weights_, sigma_);
    if (!fit) return false;
    mean_ = fit->surface;
    if (pass == 0) std::tie(centre_x_, centre_y_) = estimate();
  }
  return true;
}

bool Fitter::run() {
  for (int iteration = 0; iteration < kIterations; ++iteration)
    if (!iterate(iteration)) return false;
  return finish();
}

Optimum::Draw Fitter::draw_of(const SkewSurface& surface) const {
  const BoxOptimum at = box_optimum(surface, box());
  Optimum::Draw draw;
  static_cast<SkewSurface&>(draw) = surface;
  draw.c += trials_.best.loss;
  draw.x = centre_x_ + at.u, draw.y = centre_y_ + at.v;
  draw.loss = at.loss + trials_.best.loss;
  return draw;
}

// beta ~ t_df(beta_hat, s^2 (X'WX)^-1) for every k in proportion to its posterior.
void Fitter::add_draws(Optimum& optimum) const {
  using namespace boost::math::policies;  // not in long double: twelve digits of a random number are enough
  const boost::math::chi_squared_distribution<double, policy<promote_double<false>, digits10<12>>>
      chi_squared(optimum.df);
  for (std::size_t i = 0; i < fits_.size(); ++i) {
    const int count = static_cast<int>(std::lround(options_.draws * posterior_[i]));
    Generator generator(options_.seed, i);
    Eigen::VectorXd normal(fits_[i].root.cols());
    for (int d = 0; d < count; ++d) {
      const double scale = sigma_ * std::sqrt(optimum.df / quantile(chi_squared, generator.uniform()));
      for (double& z : normal) z = scale * generator.normal();
      optimum.draws.push_back(draw_of(fits_[i].surface_at(normal)));
    }
  }
}

void Fitter::add_notes(Optimum& optimum) const {
  for (int i = 0; i < design_.num_points(); ++i) {
    const double z = residual_[i] / std::sqrt(inflation_[i]) / sigma_;
    if (std::abs(z) < kOutlier) continue;
    optimum.notes.push_back(fmt::format("outlier: LR {:.3g} WD {:.3g} lies {:.1f} sigma {} the surface",
                                        std::exp2(design_.x[i]), std::exp2(design_.y[i]), std::abs(z),
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

/// 95 % quantile over every third draw (a thousand are enough for it) of what the point (x, y) costs.
double regret_bound(const Optimum& fit, double x, double y, std::vector<double>& buffer) {
  buffer.clear();
  for (std::size_t i = 0; i < fit.draws.size(); i += 3)
    buffer.push_back(evaluate(fit, fit.draws[i], x, y) - fit.draws[i].loss);
  const auto at = buffer.begin() + static_cast<std::ptrdiff_t>(0.95 * static_cast<double>(buffer.size() - 1));
  std::nth_element(buffer.begin(), at, buffer.end());
  return *at;
}

/// The largest box, in the proportions of the two axes' own tolerances, whose four corners are all within
/// the tolerance: a surface that bends upwards is worst at a corner.
void add_near_optimal_box(Optimum& fit, double tolerance) {
  std::vector<double> buffer;
  const double x = fit.lr.estimate, y = fit.wd.estimate;
  fit.near_lr = {x, x}, fit.near_wd = {y, y};
  if (regret_bound(fit, x, y, buffer) > tolerance) {
    fit.notes.push_back("no point is within the tolerance with 95 % confidence yet");
    return;
  }
  const auto reach = [&](double dx, double dy) {  // how far along (dx, dy) the bound holds
    double inside = 0, outside = 8;
    for (int step = 0; step < 12; ++step) {
      const double middle = (inside + outside) / 2;
      (regret_bound(fit, x + middle * dx, y + middle * dy, buffer) <= tolerance ? inside : outside) = middle;
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

Optimum Fitter::summarise() const {
  Optimum fit;
  fit.wd_fitted = design_.two_d;
  fit.sigma = sigma_;
  fit.df = degrees_of_freedom();
  fit.sigma_source = options_.prior ? "residuals and proxy" : nu0_ > 0 ? "residuals and seeds" : "residuals";
  fit.regret_tolerance = options_.regret_tolerance;
  fit.k = mean_k();
  double spread = 0;
  for (std::size_t i = 0; i < posterior_.size(); ++i)
    spread += posterior_[i] * (options_.k_grid[i] - fit.k) * (options_.k_grid[i] - fit.k);
  fit.k_sd = std::sqrt(spread);
  fit.n_eff = weights_.sum();
  fit.num_points = design_.num_points();
  fit.num_diverged = trials_.num_diverged;
  fit.diverged_at = trials_.diverged_at;
  fit.best_observed = trials_.best;
  fit.best_on_edge = trials_.best.x <= trials_.x_lo || trials_.best.x >= trials_.x_hi;
  fit.centre_x = centre_x_, fit.centre_y = centre_y_;
  const Box limits = box();
  fit.box_x = {centre_x_ + limits.u_lo, centre_x_ + limits.u_hi};
  fit.box_y = {centre_y_ + limits.v_lo, centre_y_ + limits.v_hi};
  fit.mean = draw_of(mean_);
  fit.best_loss = fit.mean.loss;
  fit.hx = mean_.hx, fit.hxy = mean_.hxy, fit.hy = mean_.hy;
  for (std::size_t i = 0; i < fits_.size(); ++i) {
    Optimum::AtSkew at{posterior_[i], fits_[i].surface, sigma_ * sigma_ * fits_[i].unit_covariance()};
    at.surface.c += trials_.best.loss;
    fit.by_skew.push_back(at);
  }
  add_draws(fit);
  const auto [x, y] = estimate();
  const double floor = options_.shape_floor;
  fit.lr = axis(x, over_draws(fit, [](const auto& d) { return d.x; }), floor, fit.box_x);
  fit.wd = axis(y, over_draws(fit, [](const auto& d) { return d.y; }), floor, fit.box_y);
  fit.log2_tau = axis(-(x + y), over_draws(fit, [](const auto& d) { return -(d.x + d.y); }), floor,
                      {-INFINITY, INFINITY});
  if (!fit.wd_fitted) fit.wd = {y, {y, y}, 0, 0, false};
  guard(fit);
  add_near_optimal_box(fit, options_.regret_tolerance);
  fit.one_octave_low = evaluate(fit, fit.mean, fit.mean.x - 1, fit.mean.y) - fit.mean.loss;
  fit.one_octave_high = evaluate(fit, fit.mean, fit.mean.x + 1, fit.mean.y) - fit.mean.loss;
  add_notes(fit);
  return fit;
}

RankDeficient explain_rank(const Trials& trials, const SkewDesign& design) {
  const int lr_levels = num_levels(trials.finished, &FitPoint::x);
  if (lr_levels < 3)
    return {fmt::format("{} LR level{} among the finished trials; the optimum needs at least 3", lr_levels,
                        lr_levels == 1 ? "" : "s")};
  if (!design.two_d) return {"the LR levels are spread over too many seeds or WD levels to be compared"};
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

FitResult fit_optimum(const std::vector<FitPoint>& points, const FitOptions& options) {
  const auto trials = sort_trials(points);
  if (!trials) return TooFewTrials{"no trial finished"};
  const SkewDesign design = make_design(*trials, options);
  const int num_rows = design.num_points() + static_cast<int>(design.prior.size());
  if (num_rows < design.num_parameters() + 1)
    return TooFewTrials{fmt::format("{} finished trials; this design needs at least {}", design.num_points(),
                                    design.num_parameters() + 1 - static_cast<int>(design.prior.size()))};
  Fitter fitter(*trials, design, options);
  if (!fitter.run()) return explain_rank(*trials, design);
  return fitter.summarise();
}

}  // namespace sweeps
