#pragma once

#include <ATen/core/Tensor.h>

namespace models::ops {

/// Cosines and sines of the rotary embedding, [T, head_size/2] float32 each: angle t * 10000^(-2i/head_size)
/// (arXiv:2104.09864). Computed in float64.
struct RotaryTable {
  at::Tensor cos_TP;
  at::Tensor sin_TP;
};
RotaryTable rotary_table(std::int64_t context, std::int64_t head_size, at::Device device);

/// Multi-head causal self-attention with rotary positions. qkv [K, B*T, 3D], the columns are q, k, v, each
/// head after head; pair i of a head is its elements i and i + head_size/2. Softmax scale
/// head_size^-1/2. Returns [K, B*T, D] in qkv's type. T <= the table's length; each of the B sequences
/// attends to itself alone.
at::Tensor causal_attention(const at::Tensor& qkv_KRC, std::int64_t T, std::int64_t head_size,
                            const RotaryTable& table);

namespace composed {
at::Tensor causal_attention(const at::Tensor& qkv_KRC, std::int64_t T, std::int64_t head_size,
                            const RotaryTable& table);
}

}  // namespace models::ops
