#pragma once

#include <vector>

#include "sweeps/plan.h"
#include "sweeps/transfer.h"

namespace orchestrator {

/// Trials of one model and stage, as far as they are known before anything is trained.
struct PlannedPart {
  std::string what;  // "init std scan", "proxy sweep", "target 8e2a"
  std::vector<sweeps::TrialSpec> trials;
};

/// A whole study with its optimum taken to be the middle of the space; number and cost of the trials are
/// right but for extensions, the targets' values are for illustration.
struct NominalPlan {
  sweeps::Hyperparameters optimum;
  std::vector<PlannedPart> parts;
  std::vector<sweeps::TargetConfig> targets;
};

/// Throws std::invalid_argument where the rule refuses.
NominalPlan nominal_plan(const sweeps::Study& study);

/// Training FLOPs of all its trials.
double total_flops(const NominalPlan& plan);

}  // namespace orchestrator
