#include "orchestrator/progress.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "sweeps/plan.h"

namespace orchestrator {
namespace {

using sweeps::TrialState;

bool has_ended(TrialState state) { return state != TrialState::waiting && state != TrialState::running; }

}  // namespace

std::string duration_text(double seconds) {
  const auto s = static_cast<std::int64_t>(std::llround(std::max(0.0, seconds)));
  if (s < 90) return fmt::format("{} s", s);
  if (s < 90 * 60) return fmt::format("{} min", (s + 30) / 60);
  if (s < 36 * 3600) return fmt::format("{} h {} min", s / 3600, s % 3600 / 60);
  return fmt::format("{} d {} h", s / 86400, s % 86400 / 3600);
}

Progress::Progress(Console& console, double planned_flops)
    : console_(console), planned_flops_(planned_flops) {}

void Progress::begin(std::string_view stage, const std::vector<sweeps::TrialResult>& results) {
  stage_ = stage;
  num_ended_ = num_failed_ = num_diverged_ = num_pruned_ = 0;
  num_trials_ = results.size();
  ended_flops_ = remaining_flops_ = 0;
  best_.reset();
  for (const auto& result : results) {
    const double flops = sweeps::cost(result.spec).flops;
    (has_ended(result.state) ? ended_flops_ : remaining_flops_) += flops;
    num_ended_ += has_ended(result.state);
    num_failed_ += result.state == TrialState::failed;
    num_diverged_ += result.state == TrialState::diverged;
    num_pruned_ += result.state == TrialState::pruned;
    if (result.loss) best_ = best_ ? std::min(*best_, *result.loss) : *result.loss;
  }
  show();
}

void Progress::started(const db::WaitingTrial& trial) {
  running_[trial.id] = 0;
  console_.detail(
      fmt::format("trial {} \"{}\": attempt {} started", trial.id, trial.spec.name, trial.num_attempts + 1));
  show();
}

void Progress::stepped(const db::WaitingTrial& trial, std::int64_t step) {
  running_[trial.id] =
      sweeps::cost(trial.spec).flops * static_cast<double>(step) / static_cast<double>(trial.spec.run.steps);
  show();
}

void Progress::ended(const db::WaitingTrial& trial, const sweeps::Outcome& outcome, bool again) {
  const auto who = fmt::format("trial {} \"{}\"", trial.id, trial.spec.name);
  running_.erase(trial.id);
  if (!again) {
    const double flops = sweeps::cost(trial.spec).flops;
    ++num_ended_;
    ended_flops_ += flops;
    trained_flops_ += flops;
    remaining_flops_ -= flops;
  }
  if (const auto* finished = std::get_if<sweeps::Finished>(&outcome)) {
    best_ = best_ ? std::min(*best_, finished->loss) : finished->loss;
    console_.detail(
        fmt::format("{}: loss {:.5f} in {}", who, finished->loss, duration_text(finished->seconds)));
  } else if (const auto* diverged = std::get_if<sweeps::Diverged>(&outcome)) {
    ++num_diverged_;
    console_.detail(fmt::format("{}: diverged at step {}", who, diverged->step));
  } else if (const auto& failed = std::get<sweeps::Failed>(outcome);
             !again && failed.failure == sweeps::FailureClass::cancelled) {
    ++num_pruned_;
    console_.detail(fmt::format("{}: stopped early: {}", who, failed.message));
  } else if (!again) {
    ++num_failed_;
  }
  show();
}

void Progress::show() { console_.progress(line()); }

std::string Progress::line() const {
  std::string text =
      fmt::format("{} {}/{} trials, {} running", stage_, num_ended_, num_trials_, running_.size());
  if (num_diverged_ > 0) text += fmt::format(", {} diverged", num_diverged_);
  if (num_pruned_ > 0) text += fmt::format(", {} stopped early", num_pruned_);
  if (num_failed_ > 0) text += fmt::format(", {} failed", num_failed_);
  if (best_) text += fmt::format(", best loss {:.4f}", *best_);
  return text + eta();
}

std::string Progress::eta() const {
  double under_way = 0;
  for (const auto& [id, flops] : running_) under_way += flops;
  const double trained = trained_flops_ + under_way;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  if (trained <= 0 || seconds < 1) return "";
  const double left = std::max(planned_flops_ - ended_flops_, remaining_flops_) - under_way;
  return fmt::format(", all done in about {}", duration_text(std::max(0.0, left) * seconds / trained));
}

}  // namespace orchestrator
