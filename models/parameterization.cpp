#include "models/parameterization.h"

#include <array>
#include <cmath>
#include <stdexcept>
#include <string>

namespace models {
namespace {

double ratio(std::int64_t a, std::int64_t b) { return static_cast<double>(a) / static_cast<double>(b); }

/// Batch and duration, all groups alike. rho_B = B'/B in tokens a step, rho_D = B'T'/(BT).
/// Complete(d)P Table 1, quoted by Complete-muE: LR, WD sqrt(rho_B/rho_D); eps its inverse; 1-beta
/// rho_B/rho_D.
GroupScaling duration_scaling(const RunShape& target, const RunShape& proxy, const RuleOptions& options) {
  const double rho_T = ratio(target.steps, proxy.steps);  // = rho_D / rho_B
  const double factor = std::pow(rho_T, -options.duration_exponent);
  return {.lr = factor, .wd = factor, .eps = 1 / factor, .one_minus_beta = 1 / rho_T};
}

GroupScaling times(GroupScaling a, const GroupScaling& b) {
  a.init_std *= b.init_std;
  a.lr *= b.lr;
  a.wd *= b.wd;
  a.eps *= b.eps;
  a.one_minus_beta *= b.one_minus_beta;
  a.forward *= b.forward;
  return a;
}

double hidden_wd(double rho_d, const RuleOptions& options) {
  return options.wd_width == WdWidth::scaled ? rho_d : 1.0;
}

/// muP by fan-in (TP5 Table 3): std fan_in^-1/2, LR fan_in^-1, and no MoE-specific factor.
GroupScaling mup_matrix(double rho_fan_in, const RuleOptions& options) {
  return {.init_std = 1 / std::sqrt(rho_fan_in),
          .lr = 1 / rho_fan_in,
          .wd = hidden_wd(rho_fan_in, options),
          .eps = 1 / rho_fan_in};
}

GroupScaling mup(TensorGroup group, const ModelShape& target, const ModelShape& proxy,
                 const RuleOptions& options) {
  const double rho_d = ratio(target.width, proxy.width);
  const double rho_hidden = ratio(target.is_moe() ? target.expert_width : target.ffn_width, proxy.ffn_width);
  switch (group) {
    case TensorGroup::embedding:
    case TensorGroup::norm:
    case TensorGroup::final_norm: return {};
    case TensorGroup::attention:
    case TensorGroup::ffn_up:
    case TensorGroup::router:
    case TensorGroup::expert_up:
    case TensorGroup::shared_up:
    case TensorGroup::modulation: return mup_matrix(rho_d, options);
    case TensorGroup::ffn_down:
    case TensorGroup::expert_down: return mup_matrix(rho_hidden, options);
    // The shared experts are stored as one FFN of width s*h, but each is a matrix of fan-in h.
    case TensorGroup::shared_down: return mup_matrix(rho_hidden, options);
    case TensorGroup::head: return {.forward = 1 / rho_d};
  }
  throw std::logic_error("mup: unknown TensorGroup");
}

GroupScaling complete_mue_head(double rho_d, HeadRule rule, const RuleOptions& options) {
  switch (rule) {
    case HeadRule::published:
      return {.init_std = 1 / std::sqrt(rho_d),
              .lr = 1 / rho_d,
              .wd = hidden_wd(rho_d, options),
              .forward = 1 / rho_d};
    case HeadRule::mup: return {.forward = 1 / rho_d};
    case HeadRule::complete_dp:
      return {.init_std = 1 / rho_d, .lr = 1 / rho_d, .wd = hidden_wd(rho_d, options)};
  }
  throw std::logic_error("complete_mue_head: unknown HeadRule");
}

/// Width and active width: Complete-muE; depth: CompleteP Table 1; eps: Complete(d)P Table 1.
GroupScaling complete_mue(TensorGroup group, const ModelShape& target, const ModelShape& proxy,
                          const RuleOptions& options) {
  const double rho_d = ratio(target.width, proxy.width);
  const double m_L = ratio(target.depth, proxy.depth);
  const double branch = std::pow(m_L, -options.depth_exponent);
  const double block_lr = std::pow(m_L, options.depth_exponent - 1);
  // H_act / (e0 * d), e0 the proxy's expansion: 1 for the proxy itself, whatever its expansion.
  const double expansion = ratio(active_width(target), target.width) / ratio(proxy.ffn_width, proxy.width);
  const GroupScaling hidden{.init_std = 1 / std::sqrt(rho_d),
                            .lr = block_lr / rho_d,
                            .wd = hidden_wd(rho_d, options),
                            .eps = branch / rho_d};
  switch (group) {
    case TensorGroup::embedding: return {.eps = 1 / rho_d};
    case TensorGroup::norm: return {.lr = block_lr, .eps = branch / rho_d};
    case TensorGroup::final_norm: return {};
    case TensorGroup::ffn_up:
    case TensorGroup::router:
    case TensorGroup::expert_up:
    case TensorGroup::shared_up:
    case TensorGroup::modulation: return hidden;
    case TensorGroup::attention: return times(hidden, {.forward = branch});
    case TensorGroup::ffn_down:
    case TensorGroup::expert_down:
    case TensorGroup::shared_down:
      return times(hidden, {.init_std = std::sqrt(expansion), .forward = branch / expansion});
    case TensorGroup::head: return complete_mue_head(rho_d, options.head, options);
  }
  throw std::logic_error("complete_mue: unknown TensorGroup");
}

template <class Enum, std::size_t n>
Enum parse(std::string_view text, const std::array<Enum, n>& all, const char* what) {
  std::string known;
  for (const Enum value : all) {
    if (name(value) == text) return value;
    known += (known.empty() ? "" : ", ") + std::string(name(value));
  }
  throw std::invalid_argument("unknown " + std::string(what) + " \"" + std::string(text) +
                              "\"; known: " + known);
}

}  // namespace

RuleUse uses(Parameterization rule) {
  switch (rule) {
    case Parameterization::sp: return {};
    case Parameterization::mup: return {.wd_width = true};
    case Parameterization::complete_mue:
      return {.depth_exponent = true, .duration_exponent = true, .wd_width = true, .head = true};
  }
  throw std::logic_error("uses: unknown Parameterization");
}

GroupScaling group_scaling(TensorGroup group, const RunShape& target, const RunShape& proxy,
                           const RuleOptions& options) {
  if (proxy.shape.is_moe())
    throw std::invalid_argument("the proxy must be dense; it is the unit of the rule");
  switch (options.rule) {
    case Parameterization::sp: return {};
    case Parameterization::mup: return mup(group, target.shape, proxy.shape, options);
    case Parameterization::complete_mue:
      return times(complete_mue(group, target.shape, proxy.shape, options),
                   duration_scaling(target, proxy, options));
  }
  throw std::logic_error("group_scaling: unknown Parameterization");
}

double route_scale(const ModelShape& shape, const RuleOptions& options) {
  return shape.is_moe() && options.rule == Parameterization::complete_mue
             ? static_cast<double>(shape.num_active)
             : 1.0;
}

double scaled_beta(double beta, double one_minus_beta_factor, std::string_view which) {
  if (one_minus_beta_factor == 1) return beta;  // identity to the last bit
  const double one_minus = (1 - beta) * one_minus_beta_factor;
  if (one_minus >= 1)
    throw std::invalid_argument(std::string(which) + ": the target's 1-beta would be " +
                                std::to_string(one_minus) + " (the proxy's " + std::to_string(1 - beta) +
                                " times " + std::to_string(one_minus_beta_factor) +
                                "); raise the proxy's beta or give the target more steps");
  return 1 - one_minus;
}

bool decays(TensorGroup group) { return group != TensorGroup::norm && group != TensorGroup::final_norm; }

double sigma0_ratio(const RunShape& target, const RunShape& proxy, const RuleOptions& options) {
  const double rho_B = ratio(target.batch * target.shape.context, proxy.batch * proxy.shape.context);
  const double load = target.shape.is_moe() ? ratio(target.shape.num_active, target.shape.num_experts) : 1.0;
  const double lr =
      options.rule == Parameterization::complete_mue ? duration_scaling(target, proxy, options).lr : 1.0;
  return lr / std::sqrt(rho_B * load);
}

std::string_view source(TensorGroup group, Parameterization rule) {
  switch (rule) {
    case Parameterization::sp: return "SP: the proxy's values";
    case Parameterization::mup:
      return group == TensorGroup::head ? "muP: logits / rho_d (TP5 Table 9)"
                                        : "muP: fan-in rule (TP5 Table 3)";
    case Parameterization::complete_mue: break;
  }
  switch (group) {
    case TensorGroup::embedding: return "CompleteP Table 1: 1; eps Complete(d)P Table 1";
    case TensorGroup::norm: return "CompleteP Table 1: depth only";
    case TensorGroup::final_norm: return "CompleteP Table 1: 1";
    case TensorGroup::attention:
    case TensorGroup::ffn_up:
    case TensorGroup::router:
    case TensorGroup::expert_up:
    case TensorGroup::shared_up: return "Complete-muE width; CompleteP depth; eps Complete(d)P";
    case TensorGroup::modulation: return "hidden (Zheng et al., arXiv:2505.15270); starts at zero";
    case TensorGroup::ffn_down:
    case TensorGroup::expert_down:
    case TensorGroup::shared_down:
      return "Complete-muE bridge I: sqrt(H_act/e0 d), A = e0 d/H_act; CompleteP depth";
    case TensorGroup::head: return "Complete-muE head (see [transfer] head)";
  }
  throw std::logic_error("source: unknown TensorGroup");
}

std::string_view name(Parameterization rule) {
  switch (rule) {
    case Parameterization::sp: return "sp";
    case Parameterization::mup: return "mup";
    case Parameterization::complete_mue: return "complete-mue";
  }
  throw std::logic_error("name: unknown Parameterization");
}

std::string_view name(WdWidth mode) {
  switch (mode) {
    case WdWidth::literal: return "literal";
    case WdWidth::scaled: return "scaled";
    case WdWidth::independent: return "independent";
  }
  throw std::logic_error("name: unknown WdWidth");
}

std::string_view name(HeadRule rule) {
  switch (rule) {
    case HeadRule::published: return "published";
    case HeadRule::mup: return "mup";
    case HeadRule::complete_dp: return "complete-dp";
  }
  throw std::logic_error("name: unknown HeadRule");
}

Parameterization parse_parameterization(std::string_view text) {
  return parse(text, std::array{Parameterization::sp, Parameterization::mup, Parameterization::complete_mue},
               "rule");
}
WdWidth parse_wd_width(std::string_view text) {
  return parse(text, std::array{WdWidth::literal, WdWidth::scaled, WdWidth::independent}, "wd_width");
}
HeadRule parse_head_rule(std::string_view text) {
  return parse(text, std::array{HeadRule::published, HeadRule::mup, HeadRule::complete_dp}, "head");
}

}  // namespace models
