#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sweeps/fit.h"

namespace sweeps {

/// Did a target's optimum move from the transferred point, and what does that cost?
/// Decided by equivalence: PASS only when the cost is proven small, DRIFT only when it is proven real.
enum class Verdict { pass = 0, drift = 1, not_bracketed = 2, inconclusive = 3, unusable = 4 };  // stored

struct DriftOptions {
  double tolerance = 0.003;  // eps, nats
  double lr_shift = 0.5;     // D0, octaves
  double wd_shift = 1.0;
  bool strict = false;      // a location that is proven to have moved past D0 is DRIFT, though harmless
  int claims = 1;           // targets that this one shares its error rate with, see holm_claims
  int extensions_left = 0;  // above 0: the pipeline can still add points on an edge
  FitOptions fit;           // its prior is the proxy's shape, shape_prior(proxy) when it names none
};

struct Estimate {
  double value = 0;
  Interval ci;
};

struct DriftReport {
  Verdict verdict = Verdict::unusable;
  std::string reason;  // one sentence
  int num_points = 0, num_diverged = 0;
  double tolerance = 0;
  double sigma = 0;
  Estimate lr, wd, tau;                   // octaves, target optimum minus transferred point (a constant)
  Estimate lr_from_proxy, wd_from_proxy;  // minus the proxy's optimum, both random
  double regret = 0;                      // nats, at the transferred point
  double regret_debiased = 0;
  double regret_upper = 0;              // 95 %
  double probability_within = 0;        // P(regret < tolerance)
  double gradient_p = 1;                // F test of "the gradient at the transferred point is zero"
  double location_p = 1;                // of "neither LR nor WD moved past D0"; below 0.05: a 95 % interval does
  double claim_p = 1;                   // p over the level of a single claim of DRIFT; DRIFT needs 1 / claims
  bool location_equivalent = false;     // 90 % interval of the LR (and WD) drift inside the bounds
  int more_runs = 0;                    // still needed, when inconclusive
  double curvature_bound = 0;           // sqrt(2 eps / hx), octaves
  double lr_factor = 1, wd_factor = 1;  // correction, when DRIFT
  bool prior_conflict = false;          // posterior curvature > 2 sd from the prior; refitted without it
  std::optional<Optimum> fit;
  std::vector<NewPoint> next;  // the runs that would tell most, when undecided and extensions are left
};

/// What a target's fit may take from the proxy's: curvatures, skew, noise; never location or level.
ShapePrior shape_prior(const Optimum& proxy);

/// `points` are the target's trials in rule coordinates; (x, y) the transferred point; `proxy` the proxy's
/// fit.
DriftReport judge_drift(const std::vector<FitPoint>& points, double x, double y, const Optimum& proxy,
                        const DriftOptions& options);

/// Holm's step-down correction over several targets: for each the number of claims that its level must be
/// divided by, so that with the chance of a single check at most one of all claims of DRIFT is false.
/// `claim_p` is DriftReport::claim_p of every target that was judged.
std::vector<int> holm_claims(const std::vector<double>& claim_p);

/// The table of fit-and-drift 4.5: one line of column heads, and one line per target. No trailing newlines.
std::string drift_table_header(std::string_view loss_unit = "nats");
std::string describe(const DriftReport& report, const std::string& target);

std::string_view name(Verdict verdict);
/// Design 7: pass 0, drift 3, everything undecided 4.
int exit_code(Verdict verdict);

}  // namespace sweeps
