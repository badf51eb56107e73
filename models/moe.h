#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "models/parameterization.h"
#include "models/watch.h"

namespace models {

/// One block's MoE weights and its balancing bias.
struct MoeWeights {
  at::Tensor router_KDN;
  at::Tensor expert_gate_up_KNDH;  // [K, N, D, 2h], gate first
  at::Tensor expert_down_KNHD;     // [K, N, h, D]
  at::Tensor shared_gate_up_KDH;   // [K, D, 2*s*h]; undefined without shared experts
  at::Tensor shared_down_KHD;
  at::Tensor bias_KN;  // added to the gates for the choice of experts only; float32, no gradient
};
/// Multipliers of the two parts: group_scaling(expert_down).forward * route_scale, group_scaling(shared_down)
/// .forward.
struct MoeScales {
  double routed = 1;
  double shared = 1;
  GateRule gates = {};
};
struct MoeOutput {
  at::Tensor y_KRD;    // [K, R, D], multipliers included
  at::Tensor load_KN;  // float32, tokens each expert saw; sums to R * a
};

/// y = A * [ R * sum_i pi_i E_i(x) + sum_shared E_j(x) ] (Complete-muE). Gates are sigmoids of a float32
/// router, the `a` largest of gate + bias are active (per group where grouped), pi are the gates normalised
/// over all active experts; other rules may take a softmax, or the gates as they are (GateRule). Dropless.
/// x [K, R, D], already normalised.
MoeOutput moe(const at::Tensor& x_KRD, const MoeWeights& weights, const ModelShape& shape,
              const MoeScales& scales, const Watch& watch = {});

/// Bias-based balancing (DeepSeek-V3, arXiv:2412.19437): b += rate * sign(mean load - load), for the slots
/// with active[k]. bias, load [K, N].
void balance(at::Tensor& bias_KN, const at::Tensor& load_KN, const std::vector<bool>& active, double rate);

}  // namespace models
