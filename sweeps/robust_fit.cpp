#include "sweeps/robust_fit.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

// The names and the constants are those of fit-and-drift 1.5.
namespace sweeps {
namespace {

constexpr double kBoxMargin = 1.0;     // octaves around the explored region
constexpr double kStartSigma = 0.004;  // nats
constexpr int kIterations = 24;
constexpr int kHuberIterations = 8;
constexpr double kHuber = 1.5, kTukey = 4.685;
constexpr int kTukeyFrom = 12;  // trials

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
  Fitter(const FinishedTrials& trials, const SkewDesign& design, const FitOptions& options);
  /// False when the weighted design does not determine the surface.
  bool run();
  RobustFit result() const;

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

  const FinishedTrials& trials_;
  const SkewDesign& design_;
  const FitOptions& options_;
  double sigma0_ = 0, nu0_ = 0;  // pooled
  SkewPrior skew_;               // prior of k
  double centre_x_, centre_y_;
  double sigma_ = kStartSigma;
  double parameters_ = 0;
  Eigen::VectorXd excess_, inflation_, robust_, weights_, residual_;  // inflation: of the variance
  std::vector<double> posterior_;
  std::vector<SkewRegression> fits_;  // one per k, the last of all
  SkewSurface mean_;
};

Fitter::Fitter(const FinishedTrials& trials, const SkewDesign& design, const FitOptions& options)
    : trials_(trials),
      design_(design),
      options_(options),
      skew_(options.skew),
      centre_x_(trials.best.x),
      centre_y_(trials.best.y) {
  nu0_ = options.nu0;
  double sum = options.nu0 * options.sigma0 * options.sigma0;
  if (options.prior) {
    skew_ = {.mean = options.prior->k, .sd = options.prior->k_sd, .wide_share = 0};
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
    log_p.push_back(skew_.log_density(k) - nu / 2 * std::log(std::max(rss, floor)));
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

RobustFit Fitter::result() const {
  RobustFit result;
  result.centre_x = centre_x_, result.centre_y = centre_y_;
  result.box = box();
  result.sigma = sigma_;
  result.df = degrees_of_freedom();
  result.pooled = nu0_ > 0;
  result.n_eff = weights_.sum();
  result.k = mean_k();
  double variance = 0;
  for (std::size_t i = 0; i < posterior_.size(); ++i)
    variance += posterior_[i] * std::pow(options_.k_grid[i] - result.k, 2);
  result.k_sd = std::sqrt(variance);
  result.posterior = posterior_;
  result.at_skew = fits_;
  result.mean = mean_;
  std::tie(result.x, result.y) = estimate();
  result.residual = residual_.array() / inflation_.array().sqrt() / sigma_;
  return result;
}

}  // namespace

std::optional<RobustFit> robust_fit(const FinishedTrials& trials, const SkewDesign& design,
                                    const FitOptions& options) {
  Fitter fitter(trials, design, options);
  if (!fitter.run()) return std::nullopt;
  return fitter.result();
}

}  // namespace sweeps
