#pragma once

#include "models/ops/bidirectional_attention.h"
#include "models/ops/causal_attention.h"
#include "models/watch.h"

namespace models {

/// One block's attention weights.
struct AttentionWeights {
  at::Tensor qkv_KDC;  // [K, D, 3D]
  at::Tensor out_KDD;
};

/// Causal self-attention with rotary positions; x [K, B*T, D], already normalised -> [K, B*T, D], before the
/// branch multiplier group_scaling(attention).forward.
at::Tensor attention(const at::Tensor& x_KRD, const AttentionWeights& weights, std::int64_t T,
                     std::int64_t head_size, const ops::RotaryTable& table, const Watch& watch = {});

/// Self-attention in both directions, without positions; otherwise as above.
at::Tensor bidirectional_attention(const at::Tensor& x_KRD, const AttentionWeights& weights, std::int64_t T,
                                   std::int64_t head_size);

}  // namespace models
