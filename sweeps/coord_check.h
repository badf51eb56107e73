#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sweeps/trial.h"

namespace sweeps {

/// Does a parameterization keep its promise: sizes of activations and updates that do not move with scale?
/// Some steps at several scales along an axis, and the slope of log(rms) on log(scale) in every layer kind
/// (microsoft/mup, CompleteP, MSSP arXiv:2605.14200). Plain arithmetic; the training is a worker's.

enum class Axis { width, depth, experts, active, granularity, shared };
inline constexpr Axis kAxes[] = {Axis::width,  Axis::depth,       Axis::experts,
                                 Axis::active, Axis::granularity, Axis::shared};
std::string_view name(Axis axis);
/// Throws std::invalid_argument listing the known names.
Axis parse_axis(std::string_view text);

struct CoordOptions {
  std::vector<Axis> axes{std::begin(kAxes), std::end(kAxes)};
  std::vector<int> scales{1, 2, 4};  // rising powers of two, at least three
  int seeds = 3;                        // at least three
  std::int64_t steps = 10;
};

/// One model that is looked at: `proxy` stretched by `scale` along `axis`.
struct CoordRun {
  Axis axis;
  int scale = 1;
  TrialSpec spec;
};

/// The runs, in the order axis, scale, seed. `base` is a trial of the dense proxy (its run, rule, values and
/// data). Width and depth stretch a 4e2a1s of it; experts 4e2a1s -> 8e2a1s ...; active Ne2a -> Ne4a ... with N
/// = 2 * the largest; granularity 8e2a -> 16e4a with half the expert width; shared 8e2a1s -> 8e2a2s ....
/// The LR is constant, nothing is clipped, and one sequence of 8 tokens is learnt: so few tokens that an
/// update is aligned with what it meets, also in a narrow model.
/// Throws std::invalid_argument for fewer than three scales or seeds, no step, or a width that does not do.
std::vector<CoordRun> plan_coord(const TrialSpec& base, const CoordOptions& options);

/// The same models before their first update, on more tokens, for judge_init.
std::vector<CoordRun> plan_init(const TrialSpec& base, const CoordOptions& options);

/// A model's dense proxy, small enough to be looked at in seconds: width at most 64, depth at most 2. The init
/// std follows the width (fan-in), the head size is a divisor.
TrialSpec small_proxy(const TrialSpec& proxy);

using QuantityKey = std::pair<std::string, std::string>;  // layer, quantity, as in worker::ProbedSeries
using Quantities = std::map<QuantityKey, std::vector<double>>;

/// Slopes that an implementation of the rule may show. Not every one is zero: `why` names the reason.
struct Band {
  double lo = -0.1, hi = 0.1;
  bool gated = true;  // else only shown
  std::string why = {};
};
/// What is expected of a quantity along an axis under a rule that keeps its promise. Depth takes alpha from
/// `rule`; a rule without depth control is held to alpha = 1, so that it fails there.
Band expected_slope(Axis axis, const QuantityKey& key, const models::RuleOptions& rule);

/// One quantity along one axis. Index 0 is the first step that has it (`first_step`: 0 or 1 updates done).
struct CoordRow {
  Axis axis;
  QuantityKey key;
  Band band;
  int first_step = 0;
  std::vector<double> slope = {}, standard_error = {};
  std::vector<std::vector<double>> mean_log = {};  // [scale][step]: mean over seeds of ln(rms)
  std::size_t worst = 0;                      // the step that lies farthest outside the band, or nearest to its edge
  bool pass = true;
};
/// `seen[i]` belongs to `runs[i]`. A step fails when its slope lies outside the band by more than two standard
/// errors; the slope before the first update is not judged. A run that ended early (not finite) fails every
/// row of its axis.
std::vector<CoordRow> judge_coord(const std::vector<CoordRun>& runs, const std::vector<Quantities>& seen,
                                  const CoordOptions& options);

/// What one branch adds to the residual stream at the start, at one scale.
struct InitRow {
  Axis axis;
  std::string layer;  // "attention", "ffn"
  int scale = 1;
  double rms = 0;    // over seeds
  double ratio = 1;  // to the smallest scale, less the rule's m^-alpha along depth
  bool pass = true;  // within the tolerance
};
inline constexpr double kInitTolerance = 0.08;
/// Of attention along depth: later blocks read tokens that earlier ones have mixed, so an average over them
/// cancels less; that is no matter of the rule.
inline constexpr double kInitDepthTolerance = 0.3;
std::vector<InitRow> judge_init(const std::vector<CoordRun>& runs, const std::vector<Quantities>& seen,
                                const CoordOptions& options);

/// Least squares of y on x: slope and its standard error. REQUIRES: at least three points, two different x.
std::pair<double, double> slope_of(const std::vector<std::pair<double, double>>& points);

}  // namespace sweeps
