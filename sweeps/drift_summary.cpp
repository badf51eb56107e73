#include "sweeps/drift_summary.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sweeps/generator.h"
#include "sweeps/trend_line.h"

namespace sweeps {
namespace {

constexpr int kFewestTargets = 3;
constexpr double kSameScale = 0.1;   // doublings
constexpr double kMostOnEdge = 0.5;  // of a fit's draws

/// Of an expert, or of the dense FFN, relative to the model's width: width alone leaves it as it is.
double relative_hidden_width(const models::ModelShape& shape) {
  return static_cast<double>(shape.is_moe() ? shape.expert_width : shape.ffn_width) /
         static_cast<double>(shape.width);
}

template <typename Size>
bool differ(const std::vector<models::RunShape>& runs, Size&& size) {
  const auto [lowest, highest] = std::ranges::minmax(runs, {}, [&](const auto& run) {
    return static_cast<double>(size(run));
  });
  return size(highest) > size(lowest) * (1 + 1e-9);
}

/// Experts of every kind are as many times more as they are narrower.
bool is_granularity(const std::vector<models::RunShape>& runs) {
  const auto in_all = [](std::int64_t models::ModelShape::*count) {
    return [count](const models::RunShape& run) {
      return static_cast<double>(run.shape.*count) * relative_hidden_width(run.shape);
    };
  };
  return differ(runs, [](const auto& run) { return run.shape.num_experts; }) &&
         !differ(runs, in_all(&models::ModelShape::num_experts)) &&
         !differ(runs, in_all(&models::ModelShape::num_active)) &&
         !differ(runs, in_all(&models::ModelShape::num_shared));
}

std::vector<models::Parameterization> rules(const Study& study) {
  std::vector<models::Parameterization> all = {study.rule.rule};
  for (const auto& target : study.targets)
    if (std::ranges::find(all, target.rule.rule) == all.end()) all.push_back(target.rule.rule);
  return all;
}

/// Whether the LR axis has an optimum and not only a bound for one.
bool is_placed(const Optimum& fit) {
  return !fit.guarded && fit.hx > 0 && fit.lr.edge_low + fit.lr.edge_high < kMostOnEdge;
}

/// The targets of one rule that have a drift check, and those among them whose optimum has a place.
struct Judged {
  int num_checks = 0;
  std::vector<const TargetAnalysis*> targets;
  TrendAxis axis = TrendAxis::parameters;
  std::vector<double> scales;  // log2
  int num_scales = 0;          // different ones
};

int count_different(std::vector<double> scales) {
  std::ranges::sort(scales);
  int count = 0;
  double last = -INFINITY;
  for (const double scale : scales)
    if (scale >= last + kSameScale) ++count, last = scale;
  return count;
}

Judged judged(const Analysis& analysis, models::Parameterization rule) {
  Judged result;
  std::vector<models::RunShape> runs;
  for (const auto& target : analysis.targets) {
    if (!target.spec.drift || target.spec.rule.rule != rule) continue;
    ++result.num_checks;
    if (!target.drift || !target.drift->fit || !is_placed(*target.drift->fit)) continue;
    result.targets.push_back(&target);
    runs.push_back(target.spec.run);
  }
  if (runs.empty()) return result;
  result.axis = trend_axis(runs);
  for (const auto& run : runs) result.scales.push_back(log2_scale(result.axis, run));
  result.num_scales = count_different(result.scales);
  return result;
}

bool enough(const Judged& judged) {
  return judged.targets.size() >= kFewestTargets && judged.num_scales >= kFewestTargets;
}

/// Slopes of the fits' draws. A fit's draws lie in order of its skew k, so each fit's are picked anew: draw i of two
/// fits would share its k.
Interval slope_interval(const Judged& judged, const std::vector<double>& weights, double slope,
                        std::uint64_t seed) {
  Generator random(seed);
  std::vector<double> slopes(judged.targets.front()->drift->fit->draws.size());
  std::vector<double> drawn(judged.targets.size());
  for (auto& one : slopes) {
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      const auto& draws = judged.targets[i]->drift->fit->draws;
      drawn[i] = draws[static_cast<std::size_t>(random.uniform() * static_cast<double>(draws.size()))].x;
    }
    one = fit_line(judged.scales, drawn, weights).slope;
  }
  double square = 0;  // what one octave of each optimum does to the slope
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    std::vector<double> moved(drawn.size(), 0.0);
    moved[i] = 1;
    square += std::pow(fit_line(judged.scales, moved, weights).slope, 2);
  }
  return draws_interval(slope, std::move(slopes), 0.95, FitOptions{}.shape_floor * std::sqrt(square));
}

double regret_at_largest(const Judged& judged) {
  const double largest = std::ranges::max(judged.scales);
  double regret = 0;
  for (std::size_t i = 0; i < judged.targets.size(); ++i)
    if (judged.scales[i] > largest - kSameScale) regret = std::max(regret, judged.targets[i]->drift->regret);
  return regret;
}

DriftTrend trend(const Judged& judged, const Study& study, models::Parameterization rule,
                 const Optimum& proxy) {
  std::vector<double> moved, curvatures, log2_curvatures, weights;
  for (const auto* target : judged.targets) {
    const auto& report = *target->drift;
    moved.push_back(report.lr.value);
    curvatures.push_back(report.fit->hx);
    log2_curvatures.push_back(std::log2(report.fit->hx));
    weights.push_back(1 / std::pow(report.lr.ci.hi - report.lr.ci.lo, 2));
  }
  const auto line = fit_line(judged.scales, moved, weights);
  DriftTrend result;
  result.rule = rule;
  result.axis = judged.axis;
  result.num_targets = static_cast<int>(judged.targets.size());
  result.num_left_out = judged.num_checks - result.num_targets;
  result.slope = line.slope;
  const auto purpose = fmt::format("drift/trend/{}", models::name(rule));
  result.ci = slope_interval(judged, weights, line.slope, derived_seed(study.seed, purpose));
  double squares = 0;
  for (std::size_t i = 0; i < moved.size(); ++i)
    squares += std::pow(moved[i] - line.level - line.slope * judged.scales[i], 2);
  result.rms = std::sqrt(squares / static_cast<double>(moved.size()));
  const auto [flattest, steepest] = std::ranges::minmax(curvatures);
  if (proxy.hx > 0) result.curvature_ratio = Interval{flattest / proxy.hx, steepest / proxy.hx};
  result.curvature_slope = fit_line(judged.scales, log2_curvatures, weights).slope;
  result.regret_at_largest = regret_at_largest(judged);
  return result;
}

std::string over(TrendAxis axis) {
  switch (axis) {
    case TrendAxis::shared: return "log2(1 + shared experts)";
    case TrendAxis::parameters: return "log2(active parameters), as not exactly one axis differs";
    default: return fmt::format("log2({})", name(axis));
  }
}

std::string describe(const DriftTrend& trend, const std::string& whose, std::string_view loss_unit) {
  std::string text = fmt::format(
      "trend over {}{}: dLR slope {:+.2f} [{:+.2f},{:+.2f}] oct/doubling; E(rms about the line)={:.2f} oct; ",
      over(trend.axis), whose, trend.slope, trend.ci.lo, trend.ci.hi, trend.rms);
  if (trend.curvature_ratio)
    text += fmt::format("curvature ratio target/proxy {:.2g}..{:.2g}; ", trend.curvature_ratio->lo,
                        trend.curvature_ratio->hi);
  text += fmt::format("log2 h slope {:+.2f} /doubling; R at the largest {:.4f} {}", trend.curvature_slope,
                      trend.regret_at_largest, loss_unit);
  if (trend.num_left_out > 0)
    text += fmt::format("; {} target{} without a placed optimum left out", trend.num_left_out,
                        trend.num_left_out == 1 ? "" : "s");
  return text;
}

}  // namespace

std::string_view name(TrendAxis axis) {
  switch (axis) {
    case TrendAxis::width: return "width";
    case TrendAxis::depth: return "depth";
    case TrendAxis::batch: return "batch";
    case TrendAxis::steps: return "steps";
    case TrendAxis::experts: return "experts";
    case TrendAxis::active: return "active experts";
    case TrendAxis::granularity: return "granularity";
    case TrendAxis::shared: return "shared experts";
    case TrendAxis::groups: return "groups";
    case TrendAxis::parameters: return "active parameters";
  }
  throw std::logic_error("name: unknown TrendAxis");
}

TrendAxis trend_axis(const std::vector<models::RunShape>& runs) {
  std::vector<TrendAxis> axes;
  const auto look = [&](TrendAxis axis, auto size) {
    if (differ(runs, size)) axes.push_back(axis);
  };
  look(TrendAxis::width, [](const auto& run) { return run.shape.width; });
  look(TrendAxis::depth, [](const auto& run) { return run.shape.depth; });
  look(TrendAxis::batch, [](const auto& run) { return run.batch; });
  look(TrendAxis::steps, [](const auto& run) { return run.steps; });
  look(TrendAxis::groups, [](const auto& run) { return run.shape.num_groups; });
  look(TrendAxis::parameters, [](const auto& run) { return run.shape.head_size; });  // no axis of its own
  if (is_granularity(runs)) {
    axes.push_back(TrendAxis::granularity);
  } else {
    look(TrendAxis::experts, [](const auto& run) { return run.shape.num_experts; });
    look(TrendAxis::active, [](const auto& run) { return run.shape.num_active; });
    look(TrendAxis::shared, [](const auto& run) { return run.shape.num_shared; });
    look(TrendAxis::parameters, [](const auto& run) { return relative_hidden_width(run.shape); });
  }
  return axes.size() == 1 ? axes.front() : TrendAxis::parameters;
}

double log2_scale(TrendAxis axis, const models::RunShape& run) {
  const auto& shape = run.shape;
  const auto size = [&]() -> std::int64_t {
    switch (axis) {
      case TrendAxis::width: return shape.width;
      case TrendAxis::depth: return shape.depth;
      case TrendAxis::batch: return run.batch;
      case TrendAxis::steps: return run.steps;
      case TrendAxis::experts:
      case TrendAxis::granularity: return shape.num_experts;
      case TrendAxis::active: return shape.num_active;
      case TrendAxis::shared: return 1 + shape.num_shared;
      case TrendAxis::groups: return shape.num_groups;
      case TrendAxis::parameters: return models::count_parameters(shape).active;
    }
    throw std::logic_error("log2_scale: unknown TrendAxis");
  };
  return std::log2(static_cast<double>(size()));
}

std::vector<DriftTrend> drift_trends(const Study& study, const Analysis& analysis) {
  std::vector<DriftTrend> trends;
  for (const auto rule : rules(study))
    if (const auto targets = judged(analysis, rule); enough(targets))
      trends.push_back(trend(targets, study, rule, std::get<Optimum>(*analysis.fit)));
  return trends;
}

std::string describe_trends(const Study& study, const Analysis& analysis) {
  const auto trends = drift_trends(study, analysis);
  std::string text;
  for (const auto rule : rules(study)) {
    const auto targets = judged(analysis, rule);
    if (targets.num_checks < kFewestTargets) continue;
    const std::string whose =
        rule == study.rule.rule ? "" : fmt::format(", rule {}", models::name(rule));
    const auto found = std::ranges::find(trends, rule, &DriftTrend::rule);
    text += text.empty() ? "" : "\n";
    text += found != trends.end()
                ? describe(*found, whose, loss_unit(study.proxy.shape))
                : fmt::format("no trend{}: {} of {} targets with a placed optimum, at {} scale{}; it takes {} at {}",
                              whose, targets.targets.size(), targets.num_checks, targets.num_scales,
                              targets.num_scales == 1 ? "" : "s", kFewestTargets, kFewestTargets);
  }
  return text;
}

std::string describe_verdicts(const Study& study, const Analysis& analysis) {
  std::map<Verdict, int> counts;
  int num_open = 0;
  for (const auto& target : analysis.targets) {
    if (!target.spec.drift || is_comparator(study, target.spec)) continue;
    target.drift ? ++counts[target.drift->verdict] : ++num_open;
  }
  std::vector<std::string> parts;
  for (const auto& [verdict, count] : counts) parts.push_back(fmt::format("{} {}", count, name(verdict)));
  if (num_open > 0) parts.push_back(fmt::format("{} not judged yet", num_open));
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace sweeps
