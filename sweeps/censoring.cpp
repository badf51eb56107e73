#include "sweeps/censoring.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace sweeps {
namespace {

constexpr std::int64_t kEvaluations = 3;  // that must agree on a divergence

/// Held-out loss after `step` updates; NaN where there is none.
double loss_at(const TrialResult& trial, std::int64_t step) {
  const auto& [steps, losses] = trial.evaluations;
  const auto found = std::lower_bound(steps.begin(), steps.end(), step);
  if (found == steps.end() || *found != step) return std::nan("");
  return losses[static_cast<std::size_t>(found - steps.begin())];
}

/// The lowest loss at a step of the trials whose LR is at least `lowest_lr`; null when there is none.
const TrialResult* best_at(const std::vector<TrialResult>& sweep, std::int64_t step, double lowest_lr) {
  const TrialResult* best = nullptr;
  for (const auto& trial : sweep)
    if (trial.spec.base.lr >= lowest_lr && std::isfinite(loss_at(trial, step)) &&
        (!best || loss_at(trial, step) < loss_at(*best, step)))
      best = &trial;
  return best;
}

std::int64_t warmup_steps(const TrialSpec& spec) {
  return std::llround(spec.schedule.warmup * static_cast<double>(spec.run.steps));
}

bool is_as_good_as_diverged(const std::vector<TrialResult>& sweep, const TrialResult& trial,
                            std::int64_t step) {
  const auto interval = eval_interval(trial.spec);
  if (step - (kEvaluations - 1) * interval <= warmup_steps(trial.spec)) return false;
  for (std::int64_t i = 0; i < kEvaluations; ++i) {
    const auto at = step - i * interval;
    const auto* best = best_at(sweep, at, 0);
    if (!best || !(loss_at(trial, at) > loss_at(*best, at) + kDivergedNats)) return false;
  }
  return true;
}

Censoring censoring(const TrialResult& trial, const TrialResult& best, std::int64_t step, const char* what) {
  return {trial.key, step,
          fmt::format("{} at step {}: held-out loss {:.4f}, {:.4f} above \"{}\"", what, step,
                      loss_at(trial, step), loss_at(trial, step) - loss_at(best, step), best.spec.name)};
}

}  // namespace

std::int64_t decision_step(const TrialSpec& spec) {
  const auto interval = eval_interval(spec);
  if (interval < 1) return 0;
  const auto earliest = std::max((spec.run.steps + 1) / 2, warmup_steps(spec) + 1);
  const auto step = (earliest + interval - 1) / interval * interval;
  return step < spec.run.steps ? step : 0;
}

std::vector<Censoring> censored(const std::vector<TrialResult>& sweep) {
  std::vector<Censoring> result;
  for (const auto& trial : sweep) {
    const auto step = decision_step(trial.spec);
    if (step == 0 || !std::isfinite(loss_at(trial, step))) continue;
    const auto* best = best_at(sweep, step, trial.spec.base.lr);  // there is one: the trial itself
    if (is_as_good_as_diverged(sweep, trial, step))
      result.push_back(censoring(trial, *best_at(sweep, step, 0), step, "as good as diverged"));
    else if (loss_at(trial, step) > loss_at(*best, step) + kHopelessNats)
      result.push_back(censoring(trial, *best, step, "hopeless"));
  }
  return result;
}

std::vector<Censoring> SweepWatch::add(const TrialKey& trial, const std::vector<std::int64_t>& steps,
                                       const std::vector<double>& losses) {
  for (auto& sweep : sweeps_) {
    const auto found = std::ranges::find(sweep, trial, &TrialResult::key);
    if (found == sweep.end()) continue;
    auto& curve = found->evaluations;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      if (!curve.steps.empty() && steps[i] <= curve.steps.back()) continue;  // sent again by a later attempt
      curve.steps.push_back(steps[i]);
      curve.losses.push_back(losses[i]);
    }
    return censored(sweep);
  }
  return {};
}

}  // namespace sweeps
