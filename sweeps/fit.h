#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <Eigen/Core>

#include "sweeps/skew_model.h"

namespace sweeps {

/// The optimum of a LR x WD sweep by the skewed quadratic "SKEW" in octaves: x = log2 LR, y = log2 WD,
///   L = c + b1 u + b2 v + hx (e^{ku} - 1 - ku)/k^2 + hxy u v + hy v^2/2,   u = x - xc, v = y - yc,
/// averaged over the skew k, with excess-proportional weights, robust factors and t draws of the box optimum.

/// One trial as the fit sees it. Diverged trials are excluded from least squares and kept as a barrier.
struct FitPoint {
  double x = 0;     // log2 LR
  double y = 0;     // log2 WD
  double loss = 0;  // nats; meaningless when diverged
  bool diverged = false;
  int seed_block = 0;  // one intercept per block
};

/// Whether the fit leaves the point out as diverged: it says so, is not finite, or lies more than one nat
/// above the best finite loss.
bool has_diverged(const FitPoint& point, double lowest_loss);
/// Of the points that did not diverge; infinite when there are none.
double lowest_loss(const std::vector<FitPoint>& points);

/// Shape of another fit as a prior (a target's fit uses the proxy's): pseudo-rows of weight sigma/sd with
/// sd 0.5 hx + 0.002, 0.35 sqrt(hx hy) + 0.002, 0.6 hy + 0.002. Location and level stay free.
inline constexpr double kPriorSigmaWeight = 6;  // nu0 of the prior's sigma
struct ShapePrior {
  double hx = 0, hxy = 0, hy = 0;
  bool wd = true;  // false: hxy and hy are not known
  double k = 0.3, k_sd = 0.25;
  double sigma = 0;  // pooled as kPriorSigmaWeight degrees of freedom
  double widen = 1;  // times every sd of the pseudo-rows

  double hx_sd() const;
  double hxy_sd() const;
  double hy_sd() const;
};

/// What is believed of the skew k before the sweep. Mostly N(0.3, 0.3^2), steeper towards large LRs, as
/// public sweeps of long runs are; with a smaller share a wide normal, since short runs of small models can
/// be far steeper towards small LRs (k of -1 to -2), and a skew that is ruled out would count as noise.
struct SkewPrior {
  double mean = 0.3, sd = 0.3;
  double wide_share = 0.2, wide_mean = -0.5, wide_sd = 1.0;

  double log_density(double k) const;  // up to a constant
};

inline constexpr int kFewestDraws = 100;

struct FitOptions {
  double kappa = 0.10;
  std::vector<double> k_grid = {-2.4, -1.8, -1.4, -1.1, -0.85, -0.65, -0.45, -0.3,
                                -0.1, 0.1,  0.25, 0.4,  0.55,  0.75,  1.0};
  SkewPrior skew = {};
  double sigma_floor = 2e-4;
  double sigma0 = 0, nu0 = 0;  // replicate-seed estimate to pool with
  double shape_floor = 0.05;   // octaves, standard error
  int draws = 3000;            // at least kFewestDraws
  std::uint64_t seed = 1;      // of the draws; from the study
  std::optional<ShapePrior> prior = {};
  double regret_tolerance = 0.003;  // nats, for the near-optimal box
  std::string loss_unit = "nats";   // as texts call it
};

struct Interval {
  double lo = 0, hi = 0;
};

/// One fitted axis: octaves and a 95 % interval, with the share of draws on either end of the box.
struct AxisOptimum {
  double estimate = 0;
  Interval ci;
  double edge_low = 0, edge_high = 0;
  bool bracketed = false;
};

/// A fitted optimum with its uncertainty.
struct Optimum {
  AxisOptimum lr;         // log2 LR
  AxisOptimum wd;         // log2 WD; absent variation: see wd_fitted
  bool wd_fitted = true;  // false: one WD level (or too few points), 1-D fit in LR
  AxisOptimum log2_tau;   // -(x + y): AdamW time scale in steps
  double best_loss = 0;   // fitted minimum
  std::string loss_unit;  // of every loss and regret here
  double sigma = 0;       // nats
  double df = 0;
  std::string sigma_source;  // where it came from: "residuals", "residuals and seeds", "residuals and proxy"
  double k = 0, k_sd = 0;
  double n_eff = 0;
  int num_points = 0, num_diverged = 0;
  std::optional<double> diverged_at;  // smallest diverged log2 LR above the best trial's
  double hx = 0, hxy = 0, hy = 0;
  FitPoint best_observed;
  double regret_tolerance = 0;                     // nats
  Interval near_lr, near_wd;                       // near-optimal box (regret <= tolerance, 95 %), octaves
  double one_octave_low = 0, one_octave_high = 0;  // nats that one octave of LR costs, low and high side
  bool guarded = false;       // the estimate was distrusted and the observed edge reported
  bool best_on_edge = false;  // the best trial lies on the edge of the explored LR
  bool bracketed() const { return lr.bracketed && !best_on_edge && !guarded; }
  std::vector<std::string> notes;  // checks, outliers, warnings

  // For regret, drift, and pictures: surfaces of the draws. Loss of draw i at (x, y):
  struct Draw : SkewSurface {  // about the centre below
    double x = 0, y = 0;       // its box optimum
    double loss = 0;           // its minimum
  };
  /// The least-squares fit at one k of the grid: its posterior weight and its coefficients' covariance.
  struct AtSkew {
    double probability = 0;
    SkewSurface surface;
    Eigen::Matrix<double, kNumCoefficients, kNumCoefficients> covariance;
  };
  std::vector<AtSkew> by_skew;
  double centre_x = 0, centre_y = 0;
  Draw mean;  // the surface at the posterior mean
  std::vector<Draw> draws;
  Interval box_x, box_y;  // explored region + 1 octave
};
double evaluate(const Optimum& fit, const Optimum::Draw& draw, double x, double y);

/// What the point (x, y) costs against the optimum, in nats: the 95 % quantile over every third draw (a
/// thousand are enough for it).
double regret_bound(const Optimum& fit, double x, double y);

/// Central interval of draws around `estimate`, each side widened in quadrature by the shape floor (a
/// standard error): an optimum is never known better than the shape of its surface.
Interval draws_interval(double estimate, std::vector<double> draws, double coverage, double floor);

/// The design does not determine an optimum; says what is missing.
struct TooFewTrials {
  std::string message;
};
struct RankDeficient {
  std::string message;
};
using FitResult = std::variant<Optimum, TooFewTrials, RankDeficient>;

/// Throws std::invalid_argument for options that make no sense (an empty k grid, too few draws).
FitResult fit_optimum(const std::vector<FitPoint>& points, const FitOptions& options);

/// Where to add trials when the optimum lies on an edge: one octave outside the flagged side at the profile
/// WD, plus a WD partner; never above diverged_at - 0.5. Empty when nothing can be added.
struct NewPoint {
  double x = 0, y = 0;
};
std::vector<NewPoint> extension_points(const Optimum& fit, const std::vector<FitPoint>& points);

/// The printout of a fit, many lines, no trailing newline. `label` names the model, `steps` scales tau (0: in steps).
std::string describe(const Optimum& fit, const std::string& label, std::int64_t steps);

}  // namespace sweeps
