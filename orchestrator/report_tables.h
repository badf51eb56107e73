#pragma once

#include <string>
#include <vector>

#include "sweeps/analysis.h"

namespace orchestrator {

/// The report's tables as HTML. Pure.

/// Each target's size and cost, its loss at the transferred point, and the same shape under SP.
std::string targets_section(const sweeps::Study& study, const sweeps::Analysis& analysis);
/// One row per target with a drift check: octaves, regret, verdict, runs still needed.
std::string drift_section(const sweeps::Study& study, const sweeps::Analysis& analysis);
/// One table per target: a row per tensor group with each value, its factor and its source.
std::string factors_section(const sweeps::Study& study, const sweeps::Analysis& analysis);
/// Every trial of the analysis, once.
std::string trials_section(const sweeps::Analysis& analysis);

/// Every planned trial of the analysis, in the order of the stages, each key once.
std::vector<const sweeps::TrialResult*> all_trials(const sweeps::Analysis& analysis);

/// A verdict as a coloured word.
std::string badge(sweeps::Verdict verdict);

}  // namespace orchestrator
