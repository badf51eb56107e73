#pragma once

#include <cstdint>

#include "sweeps/trial.h"

namespace worker {

/// Factor on the LR of update `step` (0-based) of `steps`; in (0, 1].
/// Warm-up: (step + 1) / W over the first W = round(warmup * steps) updates. Decay over the last D updates
/// (wsd: round(decay * steps), never into the warm-up; cosine and linear: all after the warm-up) runs from 1
/// at the update before them to 0 at the update after the last, so the last update is small and not lost:
/// linear and wsd end at 1 / (D + 1).
/// REQUIRES: 0 <= step < steps.
double schedule_factor(const sweeps::Schedule& schedule, std::int64_t step, std::int64_t steps);

/// The same of a decayed branch, at update `step` >= branch.start: what a run of branch.steps would do there.
double branch_factor(const sweeps::BranchPoint& branch, std::int64_t step);

/// Updates of the warm-up.
std::int64_t warmup_steps(const sweeps::Schedule& schedule, std::int64_t steps);

}  // namespace worker
