#include "sweeps/plan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

#include <fmt/format.h>

#include "sweeps/adaptive.h"

namespace sweeps {
namespace {

/// Octaves of LR and WD around the transferred point; the first is the point itself.
constexpr std::array<LogPoint, 7> kDriftDesign = {
    {{0, 0}, {-1, 0}, {1, 0}, {0, 1.5}, {0, -1.5}, {-1.75, 0.75}, {0.75, -0.75}}};

double between(const Range& range, double share) {
  if (!range.log_scale) return range.min + (range.max - range.min) * share;
  return range.min * std::pow(range.max / range.min, share);
}

std::vector<std::pair<double, double>> grid_points(const SpaceSpec& space) {
  std::vector<std::pair<double, double>> points;
  for (const double lr : grid_values(space.lr))
    for (const double wd : grid_values(space.wd)) points.emplace_back(lr, wd);
  return points;
}

/// The R2 sequence (plastic number): points that fill the square evenly at any length, so that a larger
/// max_trials keeps the points of a smaller one. The study's seed moves it.
std::vector<std::pair<double, double>> random_points(const Study& study) {
  constexpr double kPlastic = 1.3247179572447460260;
  constexpr double kTwoTo64 = 18446744073709551616.0;
  const auto start = [&](const char* axis) {
    return static_cast<double>(derived_seed(study.seed, axis)) / kTwoTo64;
  };
  double x = start("search/lr");
  double y = start("search/wd");
  std::vector<std::pair<double, double>> points;
  for (int i = 0; i < study.search.max_trials; ++i) {
    points.emplace_back(rounded(between(study.space.lr, x)), rounded(between(study.space.wd, y)));
    x = std::fmod(x + 1 / kPlastic, 1.0);
    y = std::fmod(y + 1 / (kPlastic * kPlastic), 1.0);
  }
  return points;
}

std::vector<std::pair<double, double>> start_points(const Study& study) {
  std::vector<std::pair<double, double>> points;
  for (const auto& at : adaptive_start(adaptive_options(study)))
    points.emplace_back(rounded(std::exp2(at.x)), rounded(std::exp2(at.y)));
  return points;
}

/// What every trial of a study has in common; shape, values, seed and name are still the proxy's.
TrialSpec common(const Study& study) {
  TrialSpec spec;
  spec.run = study.proxy;
  spec.proxy = study.proxy;
  spec.rule = study.rule;
  spec.base = study.base;
  spec.schedule = study.schedule;
  spec.clip = study.clip;
  spec.precision = study.precision;
  spec.balancing = study.balancing;
  spec.data = study.data;
  spec.eval = study.eval;
  spec.command = study.command;
  return spec;
}

std::uint64_t proxy_seed(const Study& study, int replicate) {
  return derived_seed(study.seed, fmt::format("proxy/{}", replicate));
}

std::string at(double lr, double wd) { return fmt::format("lr={} wd={}", lr, wd); }

std::vector<TrialSpec> proxy_trials(const Study& study, double init_std,
                                    const std::vector<std::pair<double, double>>& points) {
  std::vector<TrialSpec> trials;
  for (int replicate = 0; replicate < study.search.replicates; ++replicate) {
    for (const auto& [lr, wd] : points) {
      TrialSpec spec = common(study);
      spec.role = TrialRole::proxy;
      spec.name = "proxy " + at(lr, wd);
      if (replicate > 0) spec.name += fmt::format(" seed={}", replicate + 1);
      spec.base.lr = lr;
      spec.base.wd = wd;
      spec.base.init_std = init_std;
      spec.seed = proxy_seed(study, replicate);
      spec.branches = study.branches;
      trials.push_back(spec);
    }
  }
  return trials;
}

TrialSpec target_trial(const Study& study, const TargetSpec& target, const Hyperparameters& base) {
  TrialSpec spec = common(study);
  spec.target = target.name;
  spec.run = target.run;
  spec.rule = target.rule;
  spec.base = base;
  spec.seed = derived_seed(study.seed, "target/" + (target.copy_of.empty() ? target.name : target.copy_of));
  return spec;
}

TrialSpec drift_trial(const Study& study, const TargetSpec& target, const Hyperparameters& base, double lr,
                      double wd) {
  TrialSpec spec = target_trial(study, target, base);
  spec.role = TrialRole::drift;
  spec.base.lr = rounded(lr);
  spec.base.wd = rounded(wd);
  spec.name = target.name + " drift " + at(spec.base.lr, spec.base.wd);
  return spec;
}

}  // namespace

double rounded(double value) { return std::strtod(fmt::format("{:.3e}", value).c_str(), nullptr); }

std::vector<double> grid_values(const Range& range) {
  std::vector<double> values = range.values;
  if (values.empty()) {
    values.push_back(range.min);
    for (int i = 1; i + 1 < range.count; ++i)
      values.push_back(rounded(between(range, static_cast<double>(i) / (range.count - 1))));
    if (range.count > 1) values.push_back(range.max);
  }
  std::sort(values.begin(), values.end());
  return values;
}

std::vector<std::pair<double, double>> sweep_points(const Study& study) {
  switch (study.search.method) {
    case SearchMethod::grid: return grid_points(study.space);
    case SearchMethod::random: return random_points(study);
    case SearchMethod::list: return study.search.points;
    case SearchMethod::adaptive: return start_points(study);
  }
  throw std::logic_error("sweep_points: unknown SearchMethod");
}

std::vector<TrialSpec> plan_scan(const Study& study) {
  std::vector<TrialSpec> trials;
  for (const double init_std : study.space.init_std) {
    for (const double octaves : {-1.0, 0.0, 1.0}) {
      TrialSpec spec = common(study);
      spec.role = TrialRole::scan;
      spec.base.lr = rounded(study.space.scan_lr * std::exp2(octaves));
      spec.base.wd = study.space.scan_wd;
      spec.base.init_std = init_std;
      spec.seed = proxy_seed(study, 0);
      spec.name = fmt::format("scan std={} {}", init_std, at(spec.base.lr, spec.base.wd));
      trials.push_back(spec);
    }
  }
  return trials;
}

std::vector<TrialSpec> plan_sweep(const Study& study, double init_std) {
  return proxy_trials(study, init_std, sweep_points(study));
}

std::vector<TrialSpec> plan_extension(const Study& study, double init_std,
                                      const std::vector<LogPoint>& points) {
  std::vector<std::pair<double, double>> values;
  for (const auto& point : points)
    values.emplace_back(rounded(std::exp2(point.log2_lr)), rounded(std::exp2(point.log2_wd)));
  return proxy_trials(study, init_std, values);
}

std::vector<TrialSpec> plan_confirmation(const Study& study, const Hyperparameters& optimum) {
  std::vector<TrialSpec> trials;
  for (int i = 0; i < study.search.confirm; ++i) {
    TrialSpec spec = common(study);
    spec.role = TrialRole::proxy;
    spec.base = optimum;
    spec.seed = derived_seed(study.seed, fmt::format("confirm/{}", i));
    spec.name = fmt::format("proxy confirm {} {}", i + 1, at(optimum.lr, optimum.wd));
    trials.push_back(spec);
  }
  return trials;
}

AdaptiveOptions adaptive_options(const Study& study) {
  const auto& search = study.search;
  const auto octaves = [](const Range& range) -> Interval {
    return {std::log2(range.min), std::log2(range.max)};
  };
  return {.start_x = std::log2(search.start.first),
          .start_y = std::log2(search.start.second),
          .x = octaves(study.space.lr),
          .y = octaves(study.space.wd),
          .batch = search.batch,
          .stop = search.stop,
          .lr_half_width = search.lr_half_width,
          .tolerance = study.drift.tolerance_nats,
          .max_points = search.max_trials};
}

TrialSpec plan_transferred(const Study& study, const TargetSpec& target, const Hyperparameters& base) {
  TrialSpec spec = target_trial(study, target, base);
  spec.role = TrialRole::target;
  spec.name = target.name + " " + at(base.lr, base.wd);
  return spec;
}

TrialSpec plan_baseline(const Study& study, const TargetSpec& target, const Hyperparameters& base) {
  TrialSpec spec = target_trial(study, target, base);
  spec.role = TrialRole::check;
  spec.rule.rule = models::Parameterization::sp;
  spec.name = target.name + " sp " + at(base.lr, base.wd);
  return spec;
}

std::vector<TrialSpec> plan_target(const Study& study, const TargetSpec& target,
                                   const Hyperparameters& base) {
  std::vector<TrialSpec> trials{plan_transferred(study, target, base)};
  if (target.baseline) trials.push_back(plan_baseline(study, target, base));
  if (!target.drift) return trials;
  for (std::size_t i = 1; i < kDriftDesign.size(); ++i)
    trials.push_back(drift_trial(study, target, base, base.lr * std::exp2(kDriftDesign[i].log2_lr),
                                 base.wd * std::exp2(kDriftDesign[i].log2_wd)));
  return trials;
}

std::vector<TrialSpec> plan_drift_extension(const Study& study, const TargetSpec& target,
                                            const Hyperparameters& base,
                                            const std::vector<LogPoint>& points) {
  std::vector<TrialSpec> trials;
  for (const auto& point : points)
    trials.push_back(drift_trial(study, target, base, std::exp2(point.log2_lr), std::exp2(point.log2_wd)));
  return trials;
}

TrialCost cost(const TrialSpec& spec) {
  const auto parameters = models::count_parameters(spec.run.shape);
  const double tokens = static_cast<double>(spec.run.shape.context) * static_cast<double>(spec.run.batch) *
                        static_cast<double>(trained_steps(spec));
  return {.parameters = parameters.total,
          .active_parameters = parameters.active,
          .tokens = tokens,
          .flops = tokens * models::training_flops_per_token(spec.run.shape)};
}

}  // namespace sweeps
