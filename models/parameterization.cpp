#include "models/parameterization.h"

#include <array>
#include <cmath>
#include <stdexcept>
#include <string>

namespace models {
namespace {

double ratio(std::int64_t a, std::int64_t b) { return static_cast<double>(a) / static_cast<double>(b); }

/// What a rule sees of a tensor group. A new group needs one line in kind_of and nothing in the rules.
enum class Kind {
  input,        // looked up, fan-in of no size
  gain,         // norm gains inside the blocks
  final_gain,   // of the last norm
  attention,    // hidden matrices whose output joins the residual stream
  hidden,       // matrices of fan-in d
  down,         // dense down: fan-in H, its output joins the residual stream
  router,       // fan-in d, fan-out N
  expert_up,    // fan-in d, one for each expert
  expert_down,  // fan-in h, one for each expert
  output,       // the head
};

Kind kind_of(TensorGroup group) {
  switch (group) {
    case TensorGroup::embedding: return Kind::input;
    case TensorGroup::attention: return Kind::attention;
    case TensorGroup::norm: return Kind::gain;
    case TensorGroup::ffn_up: return Kind::hidden;
    case TensorGroup::ffn_down: return Kind::down;
    case TensorGroup::router: return Kind::router;
    // The shared experts are stored as one FFN of width s*h, but each is a matrix of fan-in h.
    case TensorGroup::expert_up:
    case TensorGroup::shared_up: return Kind::expert_up;
    case TensorGroup::expert_down:
    case TensorGroup::shared_down: return Kind::expert_down;
    case TensorGroup::final_norm: return Kind::final_gain;
    case TensorGroup::head: return Kind::output;
    case TensorGroup::modulation: return Kind::hidden;
  }
  throw std::logic_error("kind_of: unknown TensorGroup");
}

/// Target over proxy, along every axis that some rule knows; models/README.md has the same letters.
struct Ratios {
  double r;  // width, d/d*
  double m;  // depth, L/L*
  double q;  // hidden width of one FFN or expert, H/H* or h/H*
  double e;  // active expansion, (H_act/d) / (H*/d*): 1 for the proxy itself, whatever its expansion
  double M;  // experts, N; a dense FFN is one
  double t;  // steps, T/T* = rho_D / rho_B
};

Ratios ratios(const RunShape& target, const RunShape& proxy) {
  const ModelShape &to = target.shape, &from = proxy.shape;
  return {.r = ratio(to.width, from.width),
          .m = ratio(to.depth, from.depth),
          .q = ratio(to.is_moe() ? to.expert_width : to.ffn_width, from.ffn_width),
          .e = ratio(active_width(to), to.width) / ratio(from.ffn_width, from.width),
          .M = to.is_moe() ? static_cast<double>(to.num_experts) : 1.0,
          .t = ratio(target.steps, proxy.steps)};
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

/// WD of a hidden matrix under width, w() of the table.
double width_wd(double fan_in, const RuleOptions& options) {
  return options.wd_width == WdWidth::scaled ? fan_in : 1.0;
}

/// The fan-in rule (TP5 Table 3): std fan_in^-1/2, LR fan_in^-1.
GroupScaling fan_in_matrix(double fan_in, const RuleOptions& options) {
  return {.init_std = 1 / std::sqrt(fan_in),
          .lr = 1 / fan_in,
          .wd = width_wd(fan_in, options),
          .eps = 1 / fan_in};
}

// --- one function a rule: what it does to a kind of group. Sources: models/README.md ---

GroupScaling sp(Kind, const Ratios&, const RuleOptions&) { return {}; }

GroupScaling mup(Kind kind, const Ratios& x, const RuleOptions& options) {
  switch (kind) {
    case Kind::input:
    case Kind::gain:
    case Kind::final_gain: return {};
    case Kind::attention:
    case Kind::hidden:
    case Kind::router:
    case Kind::expert_up: return fan_in_matrix(x.r, options);
    case Kind::down:
    case Kind::expert_down: return fan_in_matrix(x.q, options);
    case Kind::output: return {.forward = 1 / x.r};
  }
  throw std::logic_error("mup: unknown Kind");
}

/// Depth: what CompleteP does to a block, matrices and gains alike.
GroupScaling block_depth(const Ratios& x, const RuleOptions& options) {
  return {.lr = std::pow(x.m, options.depth_exponent - 1), .eps = std::pow(x.m, -options.depth_exponent)};
}
GroupScaling branch_depth(const Ratios& x, const RuleOptions& options) {
  return times(block_depth(x, options), {.forward = std::pow(x.m, -options.depth_exponent)});
}

GroupScaling completep(Kind kind, const Ratios& x, const RuleOptions& options) {
  switch (kind) {
    case Kind::gain: return times({.eps = 1 / x.r}, block_depth(x, options));
    case Kind::hidden: return times(mup(kind, x, options), block_depth(x, options));
    case Kind::attention:
    case Kind::down: return times(mup(kind, x, options), branch_depth(x, options));
    default: return mup(kind, x, options);
  }
}

GroupScaling complete_dp_output(const Ratios& x, const RuleOptions& options) {
  return {.init_std = 1 / x.r, .lr = 1 / x.r, .wd = width_wd(x.r, options)};
}

GroupScaling complete_dp(Kind kind, const Ratios& x, const RuleOptions& options) {
  switch (kind) {
    case Kind::input: return {.eps = 1 / x.r};
    case Kind::output: return complete_dp_output(x, options);
    default: return completep(kind, x, options);
  }
}

GroupScaling complete_mue_output(const Ratios& x, const RuleOptions& options) {
  switch (options.head) {
    case HeadRule::published:
      return {
          .init_std = 1 / std::sqrt(x.r), .lr = 1 / x.r, .wd = width_wd(x.r, options), .forward = 1 / x.r};
    case HeadRule::mup: return {.forward = 1 / x.r};
    case HeadRule::complete_dp: return complete_dp_output(x, options);
  }
  throw std::logic_error("complete_mue_output: unknown HeadRule");
}

GroupScaling complete_mue(Kind kind, const Ratios& x, const RuleOptions& options) {
  const GroupScaling hidden = times(fan_in_matrix(x.r, options), block_depth(x, options));
  switch (kind) {
    case Kind::router:
    case Kind::expert_up: return hidden;
    case Kind::down:
    case Kind::expert_down:
      return times(times(fan_in_matrix(x.r, options), branch_depth(x, options)),
                   {.init_std = std::sqrt(x.e), .forward = 1 / x.e});
    case Kind::output: return complete_mue_output(x, options);
    default: return complete_dp(kind, x, options);
  }
}

GroupScaling mup_moe(Kind kind, const Ratios& x, const RuleOptions&) {
  switch (kind) {
    case Kind::input:
    case Kind::gain:
    case Kind::final_gain:
    case Kind::router: return {};
    case Kind::attention:
    case Kind::hidden:
    case Kind::down:
    case Kind::expert_up:
    case Kind::expert_down: return {.init_std = 1 / std::sqrt(x.r), .lr = 1 / x.r};
    case Kind::output: return {.forward = 1 / x.r};
  }
  throw std::logic_error("mup_moe: unknown Kind");
}

GroupScaling jiang(Kind kind, const Ratios& x, const RuleOptions&) {
  const double eps = 1 / (x.r * x.m);
  const double alpha_ffn = x.q / x.r;
  switch (kind) {
    case Kind::input: return {.eps = 1 / x.r};
    case Kind::gain: return {.eps = eps};
    case Kind::final_gain: return {};
    case Kind::attention:
      return {.init_std = 1 / std::sqrt(x.r), .lr = 1 / x.r, .eps = eps, .forward = 1 / x.m};
    case Kind::hidden:
    case Kind::router:
    case Kind::expert_up: return {.init_std = 1 / std::sqrt(x.r), .lr = 1 / x.r, .eps = eps};
    case Kind::down:
    case Kind::expert_down:
      return {.init_std = 1 / (alpha_ffn * std::sqrt(x.r)),
              .lr = 1 / (alpha_ffn * x.r),
              .eps = eps,
              .forward = 1 / x.m};
    case Kind::output: return {.forward = 1 / x.r};
  }
  throw std::logic_error("jiang: unknown Kind");
}

GroupScaling mssp(Kind kind, const Ratios& x, const RuleOptions& options) {
  const GroupScaling hidden{.init_std = 1 / std::sqrt(x.r), .lr = 1 / x.r, .eps = 1 / x.r};
  const bool counts_experts = options.mssp_regime > 1;
  const bool fixed_width = options.mssp_regime == 2;
  switch (kind) {
    case Kind::input:
    case Kind::gain:
    case Kind::final_gain: return {.eps = 1 / x.r};
    case Kind::attention:
    case Kind::hidden:
    case Kind::down: return hidden;
    case Kind::router:
      if (!counts_experts) return {.init_std = 1 / x.r, .lr = 1 / x.r};
      return {.init_std = 1 / std::sqrt(x.r), .lr = 1 / x.r, .eps = 1 / x.M};
    case Kind::expert_up:
      if (!counts_experts) return hidden;
      return {.init_std = hidden.init_std, .lr = hidden.lr, .eps = fixed_width ? 1 / x.M : 1 / (x.r * x.M)};
    case Kind::expert_down:
      if (!counts_experts) return hidden;
      if (fixed_width) return {.init_std = std::sqrt(x.M), .eps = 1 / (x.r * x.M)};
      return {.init_std = hidden.init_std, .lr = hidden.lr, .eps = 1 / (x.r * x.M)};
    case Kind::output: return {.init_std = 1 / x.r, .lr = 1 / x.r};
  }
  throw std::logic_error("mssp: unknown Kind");
}

GroupScaling u_mup(Kind kind, const Ratios& x, const RuleOptions&) {
  const double depth = 1 / std::sqrt(x.m);
  switch (kind) {
    case Kind::input: return {.lr = 1 / std::sqrt(x.r)};
    case Kind::gain: return {.lr = depth};
    case Kind::final_gain: return {};
    case Kind::attention:
    case Kind::hidden:
    case Kind::router:
    case Kind::expert_up: return {.lr = depth / std::sqrt(x.r), .forward = 1 / std::sqrt(x.r)};
    case Kind::down:
    case Kind::expert_down: return {.lr = depth / std::sqrt(x.q), .forward = 1 / std::sqrt(x.q)};
    case Kind::output: return {.forward = 1 / x.r};
  }
  throw std::logic_error("u_mup: unknown Kind");
}

// --- the list of rules ---

/// Axes that a source says nothing about; a target that differs there is refused. Width is every rule's; so
/// are batch and duration, where a rule without `duration` leaves the values as they are.
struct Covers {
  bool depth = true;
  bool experts = true;            // routers and experts at all
  bool shared_and_groups = true;  // shared experts, groups
};

struct Rule {
  Parameterization rule;
  std::string_view name;
  GroupScaling (*scale)(Kind, const Ratios&, const RuleOptions&);
  RuleUse use;
  Covers covers;
  GateRule gates;
};

constexpr Covers kDenseOnly{.experts = false};
constexpr Covers kNoDepth{.depth = false, .shared_and_groups = false};

constexpr std::array kRules = {
    Rule{Parameterization::sp, "sp", sp, {}, {}, {}},
    Rule{Parameterization::mup, "mup", mup, {.wd_width = true}, {}, {}},
    Rule{Parameterization::complete_mue,
         "complete-mue",
         complete_mue,
         {.depth_exponent = true, .duration_exponent = true, .wd_width = true, .head = true},
         {},
         {}},
    Rule{Parameterization::completep,
         "completep",
         completep,
         {.depth_exponent = true, .wd_width = true},
         kDenseOnly,
         {}},
    Rule{Parameterization::complete_dp,
         "complete-dp",
         complete_dp,
         {.depth_exponent = true, .duration_exponent = true, .wd_width = true},
         kDenseOnly,
         {}},
    Rule{Parameterization::mup_moe, "mup-moe", mup_moe, {}, kNoDepth, {.softmax = true, .normalised = false}},
    Rule{Parameterization::jiang, "jiang", jiang, {}, {.shared_and_groups = false}, {.normalised = false}},
    Rule{Parameterization::mssp, "mssp", mssp, {.mssp_regime = true}, kNoDepth, {.softmax = true}},
    Rule{Parameterization::u_mup, "u-mup", u_mup, {}, kDenseOnly, {}},
};

const Rule& find(Parameterization rule) {
  for (const Rule& entry : kRules)
    if (entry.rule == rule) return entry;
  throw std::logic_error("find: unknown Parameterization");
}

[[noreturn]] void refuse(const Rule& rule, const std::string& why) {
  throw std::invalid_argument("rule " + std::string(rule.name) + " " + why);
}

/// MSSP ties the hidden width to the regime; see its three tables.
void require_mssp_width(const Rule& rule, const RunShape& target, const RunShape& proxy,
                        const RuleOptions& options) {
  if (options.mssp_regime < 1 || options.mssp_regime > 3)
    refuse(rule, "has the regimes 1, 2 and 3; mssp_regime is " + std::to_string(options.mssp_regime));
  const Ratios x = ratios(target, proxy);
  const bool fixed_width = options.mssp_regime == 2 && target.shape.is_moe();
  if (x.q == (fixed_width ? 1.0 : x.r)) return;
  const auto wanted = fixed_width ? static_cast<double>(proxy.shape.ffn_width)
                                  : x.r * static_cast<double>(proxy.shape.ffn_width);
  const std::string key = target.shape.is_moe() ? "expert_width" : "expansion";
  const std::string found =
      std::to_string(target.shape.is_moe() ? target.shape.expert_width : target.shape.ffn_width);
  refuse(rule, (fixed_width ? "regime 2 keeps the proxy's hidden width: "
                            : "scales the hidden width with the width: ") +
                   key + " must give " + std::to_string(static_cast<std::int64_t>(wanted)) + ", not " +
                   found);
}

/// A shape that the rule's source says nothing about is refused; the message says what would work.
void require_covered(const RunShape& target, const RunShape& proxy, const RuleOptions& options) {
  const Rule& rule = find(options.rule);
  const ModelShape& shape = target.shape;
  if (proxy.shape.is_moe())
    throw std::invalid_argument("the proxy must be dense; it is the unit of the rule");
  if (shape.is_moe() && !rule.covers.experts)
    refuse(rule,
           "is for dense models and says nothing about routers and experts; leave moe out, or use "
           "complete-mue, mup or sp");
  if (!rule.covers.shared_and_groups && shape.num_shared > 0)
    refuse(rule, "says nothing about shared experts; leave the s out of moe, or use complete-mue, mup or sp");
  if (!rule.covers.shared_and_groups && shape.num_groups > 1)
    refuse(rule,
           "says nothing about groups of experts; leave the g out of moe, or use complete-mue, mup or sp");
  if (!rule.covers.depth && shape.depth != proxy.shape.depth)
    refuse(rule, "says nothing about depth; give the target the proxy's depth " +
                     std::to_string(proxy.shape.depth) + ", or use complete-mue, jiang, mup or sp");
  if (rule.rule == Parameterization::mssp) require_mssp_width(rule, target, proxy, options);
}

/// Batch and duration, all groups alike; Complete(d)P Table 1, quoted by Complete-muE.
GroupScaling duration_scaling(const Ratios& x, const RuleOptions& options) {
  if (!uses(options.rule).duration_exponent) return {};
  const double factor = std::pow(x.t, -options.duration_exponent);
  return {.lr = factor, .wd = factor, .eps = 1 / factor, .one_minus_beta = 1 / x.t};
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

GroupScaling group_scaling(TensorGroup group, const RunShape& target, const RunShape& proxy,
                           const RuleOptions& options) {
  require_covered(target, proxy, options);
  const Ratios x = ratios(target, proxy);
  return times(find(options.rule).scale(kind_of(group), x, options), duration_scaling(x, options));
}

double route_scale(const ModelShape& shape, const RuleOptions& options) {
  if (!shape.is_moe()) return 1;
  const auto a = static_cast<double>(shape.num_active);
  if (options.rule == Parameterization::complete_mue) return a;
  if (options.rule == Parameterization::jiang) return 1 / a;
  return 1;
}

RuleUse uses(Parameterization rule) { return find(rule).use; }

GateRule gate_rule(Parameterization rule) { return find(rule).gates; }

bool experts_start_alike(const RuleOptions& options) {
  return options.rule == Parameterization::mssp && options.mssp_regime == 3;
}

bool is_trained(Parameterization rule) { return rule != Parameterization::u_mup; }

std::vector<std::string> caveats(const RunShape& target, const RunShape& proxy, const RuleOptions& options) {
  std::vector<std::string> result;
  const auto add = [&](std::string text) { result.push_back(std::move(text)); };
  const bool moe = target.shape.is_moe();
  switch (options.rule) {
    case Parameterization::sp:
    case Parameterization::mup:
      if (moe && options.rule == Parameterization::mup)
        add("muP defines no router: taken as a hidden matrix of fan-in d");
      break;
    case Parameterization::complete_mue:
    case Parameterization::completep:
    case Parameterization::complete_dp: break;
    case Parameterization::mup_moe:
      if (moe) add("its source balances by an auxiliary loss of 0.01; here [train] balance does");
      break;
    case Parameterization::jiang:
      if (moe)
        add("its source transfers at one a/N only; from a dense proxy a/N goes from 1 to " +
            std::to_string(target.shape.num_active) + "/" + std::to_string(target.shape.num_experts));
      add("its source ties the head to the embedding; here the head is muP's");
      break;
    case Parameterization::mssp:
      if (moe) add("its source scales from a MoE; here the dense proxy counts as one expert");
      add("its source starts the head at zero; here its std goes as 1/r");
      break;
    case Parameterization::u_mup:
      add("its unit-scaled forward pass is not trained here: `forward` is the multiplier of each matrix, the "
          "weighting of the residual branches is not shown, and its decay is independent of LR");
      break;
  }
  if (!uses(options.rule).duration_exponent && target.steps != proxy.steps)
    add("it says nothing about duration: LR, WD, eps and betas stay as they were tuned");
  return result;
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

double gradient_noise_ratio(const RunShape& target, const RunShape& proxy) {
  const double rho_B = ratio(target.batch * target.shape.context, proxy.batch * proxy.shape.context);
  const double load = target.shape.is_moe() ? ratio(target.shape.num_active, target.shape.num_experts) : 1.0;
  return 1 / std::sqrt(rho_B * load);
}

double sigma0_ratio(const RunShape& target, const RunShape& proxy, const RuleOptions& options) {
  return duration_scaling(ratios(target, proxy), options).lr * gradient_noise_ratio(target, proxy);
}

std::string_view source(TensorGroup group, Parameterization rule) {
  const Kind kind = kind_of(group);
  switch (rule) {
    case Parameterization::sp: return "SP: the proxy's values";
    case Parameterization::mup:
      return kind == Kind::output ? "muP: logits / r (TP5 Table 9)" : "muP: fan-in rule (TP5 Table 3)";
    case Parameterization::completep: return "CompleteP Table 1";
    case Parameterization::complete_dp: return "Complete(d)P Table 1";
    case Parameterization::mup_moe: return "muP-MoE: the authors' code";
    case Parameterization::jiang: return "Jiang et al. Table 1";
    case Parameterization::mssp: return "MSSP: the authors' code";
    case Parameterization::u_mup: return "u-muP: the authors' code";
    case Parameterization::complete_mue: break;
  }
  if (group == TensorGroup::modulation) return "hidden (Zheng et al., arXiv:2505.15270); starts at zero";
  switch (kind) {
    case Kind::input: return "CompleteP Table 1: 1; eps Complete(d)P Table 1";
    case Kind::gain: return "CompleteP Table 1: depth only";
    case Kind::final_gain: return "CompleteP Table 1: 1";
    case Kind::attention:
    case Kind::hidden:
    case Kind::router:
    case Kind::expert_up: return "Complete-muE width; CompleteP depth; eps Complete(d)P";
    case Kind::down:
    case Kind::expert_down: return "Complete-muE bridge I: sqrt(H_act/e0 d), A = e0 d/H_act; CompleteP depth";
    case Kind::output: return "Complete-muE head (see [transfer] head)";
  }
  throw std::logic_error("source: unknown Kind");
}

std::string_view name(Parameterization rule) { return find(rule).name; }

std::vector<Parameterization> all_rules() {
  std::vector<Parameterization> rules;
  for (const Rule& entry : kRules) rules.push_back(entry.rule);
  return rules;
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
  std::array<Parameterization, kRules.size()> all{};
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = kRules[i].rule;
  return parse(text, all, "rule");
}
WdWidth parse_wd_width(std::string_view text) {
  return parse(text, std::array{WdWidth::literal, WdWidth::scaled, WdWidth::independent}, "wd_width");
}
HeadRule parse_head_rule(std::string_view text) {
  return parse(text, std::array{HeadRule::published, HeadRule::mup, HeadRule::complete_dp}, "head");
}

}  // namespace models
