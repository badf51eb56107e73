#include "sweeps/censoring.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <utility>

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

/// The lowest losses of a sweep, step by step, each put in order once: a sweep may have thousands of trials.
class LowestLosses {
 public:
  explicit LowestLosses(const std::vector<TrialResult>& sweep) : sweep_(sweep) {}

  /// Of the trials whose LR is at least `lowest_lr`, the first of those with the lowest loss at `step`; null
  /// when there is none.
  const TrialResult* at(std::int64_t step, double lowest_lr = 0) {
    const auto [of_step, is_new] = steps_.try_emplace(step);
    auto& entries = of_step->second;
    if (is_new) fill(entries, step);
    const auto end =
        std::ranges::partition_point(entries, [&](const Entry& entry) { return entry.lr >= lowest_lr; });
    return end == entries.begin() ? nullptr : std::prev(end)->lowest;
  }

 private:
  struct Entry {
    double lr = 0;
    const TrialResult* lowest = nullptr;  // of this and of those before
  };

  /// By falling LR.
  void fill(std::vector<Entry>& entries, std::int64_t step) const {
    for (const auto& trial : sweep_)
      if (std::isfinite(loss_at(trial, step))) entries.push_back({trial.spec.base.lr, &trial});
    std::ranges::stable_sort(entries, std::ranges::greater{}, &Entry::lr);
    const auto rank = [&](const TrialResult* trial) { return std::pair(loss_at(*trial, step), trial); };
    for (std::size_t i = 1; i < entries.size(); ++i)
      if (rank(entries[i - 1].lowest) < rank(entries[i].lowest)) entries[i].lowest = entries[i - 1].lowest;
  }

  const std::vector<TrialResult>& sweep_;
  std::map<std::int64_t, std::vector<Entry>> steps_;
};

std::int64_t warmup_steps(const TrialSpec& spec) {
  return std::llround(spec.schedule.warmup * static_cast<double>(spec.run.steps));
}

bool is_as_good_as_diverged(LowestLosses& lowest, const TrialResult& trial, std::int64_t step) {
  const auto interval = eval_interval(trial.spec);
  if (step - (kEvaluations - 1) * interval <= warmup_steps(trial.spec)) return false;
  for (std::int64_t i = 0; i < kEvaluations; ++i) {
    const auto at = step - i * interval;
    const auto* best = lowest.at(at);
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
  LowestLosses lowest(sweep);
  for (const auto& trial : sweep) {
    const auto step = decision_step(trial.spec);
    if (step == 0 || !std::isfinite(loss_at(trial, step))) continue;
    const auto* best = lowest.at(step, trial.spec.base.lr);  // there is one: the trial itself
    if (is_as_good_as_diverged(lowest, trial, step))
      result.push_back(censoring(trial, *lowest.at(step), step, "as good as diverged"));
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
    const auto decision = decision_step(found->spec);
    const auto decides = [&](std::int64_t step) {
      return step <= decision && step > decision - kEvaluations * eval_interval(found->spec);
    };
    return std::ranges::any_of(steps, decides) ? censored(sweep) : std::vector<Censoring>{};
  }
  return {};
}

}  // namespace sweeps
