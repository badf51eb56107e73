#pragma once

#include <string>
#include <vector>

#include "sweeps/study.h"

namespace sweeps {

/// One row of the transfer table: a tensor group of the target with every factor and the values they give.
struct TransferRow {
  models::TensorGroup group;
  models::GroupScaling factor;
  double init_std = 0;
  double lr = 0;
  double wd = 0;
  double eps = 0;
  double beta1 = 0;
  double beta2 = 0;
  bool decays = true;
  std::string source;
};

/// What a target is trained with: the proxy's optimum turned into values by the rule.
struct TargetConfig {
  std::string target;
  std::string moe;  // "dense" or the name code
  models::RunShape run;
  models::RuleOptions rule;
  Hyperparameters base;     // rule coordinates, as tuned on the proxy
  double route_scale = 1;   // R
  double branch_scale = 1;  // A (times depth)
  double sigma0_ratio = 1;  // predicted gradient-noise covariate
  std::vector<std::string> caveats;
  std::vector<TransferRow> rows;  // groups that the target has, in the order of TensorGroup
};

/// Throws std::invalid_argument where the rule refuses (1 - beta >= 1).
TargetConfig transfer(const std::string& target, const models::RunShape& run, const models::RunShape& proxy,
                      const Hyperparameters& optimum, const models::RuleOptions& options);

}  // namespace sweeps
