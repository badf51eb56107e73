#pragma once

#include <ATen/ATen.h>

#include "models/model.h"

/// The language model once more, in plain steps: one slot, one sequence, one head and, in a MoE block, one
/// token at a time, with LibTorch's autograd for the gradients. Float64 in, float64 out. Nothing but shapes
/// and multipliers is shared with the model.
namespace reference {

using Weights = std::vector<at::Tensor>;  // one slot's, without the slot axis

struct MoeWeights {
  at::Tensor router, expert_gate_up, expert_down, shared_gate_up, shared_down, bias;
};
/// x [R, D] -> [R, D]: routed * sum_i pi_i E_i(x) + shared * E_shared(x), token by token.
at::Tensor moe(const at::Tensor& x, const MoeWeights& weights, const models::ModelShape& shape, double routed,
               double shared);

/// Mean loss of tokens [B, T+1]; weights in the order of tensor_specs().
at::Tensor loss(const Weights& weights, const at::Tensor& tokens, const models::ModelOptions& options);

}  // namespace reference
