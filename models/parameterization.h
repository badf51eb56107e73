#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/shape.h"

namespace models {

/// How hyperparameters tuned on one shape become values for another. Every exponent of every rule stands in
/// parameterization.cpp and nowhere else; models/README.md is the table.
enum class Parameterization {
  sp,            // standard: the proxy's values as they are
  mup,           // Tensor Programs V, Table 3 (arXiv:2203.03466), fan-in rule for every matrix
  complete_mue,  // Complete-muE (arXiv:2605.23893), on top of CompleteP (depth) and Complete(d)P (batch,
                 // duration)
  completep,     // CompleteP (arXiv:2505.01618), Table 1; dense models
  complete_dp,   // Complete(d)P (arXiv:2512.22382), Table 1; dense models
  mup_moe,       // muP for MoE (arXiv:2508.09752), as in its authors' code
  jiang,         // Jiang et al. (arXiv:2601.20205), Table 1
  mssp,          // Maximally Scale-Stable Parameterization (arXiv:2605.14200), three regimes
  u_mup,         // u-muP (arXiv:2407.17465); its table only, see is_trained()
};

/// Weight decay of hidden matrices under width; the sources differ.
/// literal: lambda unchanged (blog of Complete-muE). scaled: lambda * rho_d, so lr*lambda is constant
/// (CompleteP, Complete(d)P Table 1). independent: decay is not multiplied by LR at all.
enum class WdWidth { literal, scaled, independent };

/// Final head under width m. published: std m^-1/2, LR m^-1, multiplier m^-1 (blog of Complete-muE; together
/// that is not muP). mup: multiplier m^-1 only (TP5 Table 9). complete_dp: std m^-1, LR m^-1, WD m (CdP Table
/// 1).
enum class HeadRule { published, mup, complete_dp };

struct RuleOptions {
  Parameterization rule = Parameterization::complete_mue;
  double depth_exponent = 1.0;     // alpha of CompleteP: branches times m_L^-alpha
  double duration_exponent = 0.5;  // LR, WD times (rho_B/rho_D)^exponent; 0.5 is Complete(d)P Table 1
  WdWidth wd_width = WdWidth::scaled;
  HeadRule head = HeadRule::complete_dp;  // measured: models/README.md
  /// MSSP: 1 a fixed number of experts that grow with the width, 2 more and more experts of one width, 3 both
  /// grow.
  int mssp_regime = 1;
  bool operator==(const RuleOptions&) const = default;
};

/// The options that a rule looks at; the others change nothing under it.
struct RuleUse {
  bool depth_exponent = false;
  bool duration_exponent = false;
  bool wd_width = false;
  bool head = false;
  bool mssp_regime = false;
};
RuleUse uses(Parameterization rule);

/// How a rule weighs the active experts: sigmoids or a softmax of the router's logits, over their sum or as
/// they are.
struct GateRule {
  bool softmax = false;
  bool normalised = true;
};
GateRule gate_rule(Parameterization rule);

/// MSSP regime 3: every expert of a block starts with the same weights.
bool experts_start_alike(const RuleOptions& options);

/// False where this program does not compute the rule's forward pass: its table can be printed, no model can
/// be trained under it.
bool is_trained(Parameterization rule);

/// What is trained and for how long: a shape, `batch` sequences a step, `steps` steps.
struct RunShape {
  ModelShape shape;
  std::int64_t batch = 32;
  std::int64_t steps = 1000;
  bool operator==(const RunShape&) const = default;
};

/// Factors on the proxy's values for one tensor group. All are exactly 1 when target == proxy.
struct GroupScaling {
  double init_std = 1;
  double lr = 1;
  double wd = 1;
  double eps = 1;
  double one_minus_beta = 1;  // on both 1-beta1 and 1-beta2
  double forward = 1;         // multiplier in the forward pass: of the attention branch (`attention`), of the
                              // FFN/MoE branch (`*_down`: A times depth), of the logits (`head`); 1 elsewhere
};

/// The rule: planner, initialiser and optimizer all call this one function. The proxy's expansion
/// e0 = ffn_width / width is the unit that H_act is measured in. Throws std::invalid_argument, with what
/// would work, for a MoE as the proxy and for a target that the rule's source says nothing about.
GroupScaling group_scaling(TensorGroup group, const RunShape& target, const RunShape& proxy,
                           const RuleOptions& options);

/// R, the factor on the routed sum: a under Complete-muE, 1/a under Jiang, 1 elsewhere. Shared experts
/// have 1.
double route_scale(const ModelShape& shape, const RuleOptions& options);

/// 1 - (1 - beta) * factor. Throws std::invalid_argument when 1 - beta would reach 1.
double scaled_beta(double beta, double one_minus_beta_factor, std::string_view which);

/// Norm gains are not decayed (as in CompleteP's code); everything else is.
bool decays(TensorGroup group);

/// Predicted ratio of one expert's gradient noise sigma_exp, in units of its gradient, against the dense proxy's:
/// it sees B*a/N of the batch, so sqrt(N/a) at equal batch (Complete-muE section on bridges).
double gradient_noise_ratio(const RunShape& target, const RunShape& proxy);
/// Predicted ratio of the noise level sigma_0 = eta * sigma_exp: the same times the duration's LR factor. The
/// covariate printed beside each drift.
double sigma0_ratio(const RunShape& target, const RunShape& proxy, const RuleOptions& options);

/// "width", "batch and duration", ...: in words, the formula and source behind one group's factors.
std::string_view source(TensorGroup group, Parameterization rule);

/// What a person should know before trusting the rule at this target: where this program or this proxy
/// differs from the rule's source. One sentence each.
std::vector<std::string> caveats(const RunShape& target, const RunShape& proxy, const RuleOptions& options);

std::vector<Parameterization> all_rules();
std::string_view name(Parameterization rule);
std::string_view name(WdWidth mode);
std::string_view name(HeadRule rule);
/// Throw std::invalid_argument listing the known names.
Parameterization parse_parameterization(std::string_view text);
WdWidth parse_wd_width(std::string_view text);
HeadRule parse_head_rule(std::string_view text);

}  // namespace models
