#include "worker/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace worker {
namespace {

std::int64_t part(double fraction, std::int64_t steps) {
  return std::clamp<std::int64_t>(std::llround(fraction * static_cast<double>(steps)), 0, steps);
}

}  // namespace

double branch_factor(const sweeps::BranchPoint& branch, std::int64_t step) {
  return 1 -
         static_cast<double>(step + 1 - branch.start) / static_cast<double>(branch.steps + 1 - branch.start);
}

std::int64_t warmup_steps(const sweeps::Schedule& schedule, std::int64_t steps) {
  return part(schedule.warmup, steps);
}

double schedule_factor(const sweeps::Schedule& schedule, std::int64_t step, std::int64_t steps) {
  const std::int64_t warmup = warmup_steps(schedule, steps);
  if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup);

  const bool holds = schedule.kind == sweeps::ScheduleKind::wsd;
  const std::int64_t start = holds ? std::max(warmup, steps - part(schedule.decay, steps)) : warmup;
  if (step < start) return 1;
  const double progress = static_cast<double>(step + 1 - start) / static_cast<double>(steps + 1 - start);
  if (schedule.kind == sweeps::ScheduleKind::cosine) return (1 + std::cos(std::numbers::pi * progress)) / 2;
  return 1 - progress;
}

}  // namespace worker
