#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sweeps/transfer.h"

namespace orchestrator {

/// `tuneonce transfer` without a study: shapes and values from the command line. Words as they were typed.
struct CalculatorOptions {
  std::string proxy;                 // "width=128,depth=32,steps=25000"
  std::vector<std::string> targets;  // "128e8a1s,width=1024,steps=100000"
  std::string rule = "complete-mue", family = "language_model";
  std::optional<std::string> wd_width, head;
  models::RuleOptions options;    // exponents and regime; the words above go over it
  sweeps::Hyperparameters tuned;  // the proxy's optimum
};

/// The table of each target. Throws std::invalid_argument for what parse_proxy, parse_target or the rule
/// refuses.
std::vector<sweeps::TargetConfig> calculate(const CalculatorOptions& options);

/// Throws std::invalid_argument listing the known names.
models::ModelFamily parse_family(const std::string& text);
/// A dense shape: width, depth, head_size, expansion, batch, steps; context, vocab of a language model;
/// image_size, channels, patch of a diffusion model. What is not said is the study file's default. Throws
/// std::invalid_argument with the nearest known key for one that is unknown.
models::RunShape parse_proxy(const std::string& text, models::ModelFamily family);
/// A MoE code or "dense", then width, depth, head_size, expansion (dense) or expert_width (MoE), batch,
/// steps; what is not said is the proxy's.
models::RunShape parse_target(const std::string& text, const models::RunShape& proxy);

}  // namespace orchestrator
