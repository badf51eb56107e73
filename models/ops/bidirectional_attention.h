#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace models::ops {

/// Multi-head self-attention in both directions, without positions. qkv [K, B*T, 3D], the columns are q, k,
/// v, each head after head. Softmax scale head_size^-1/2. Returns [K, B*T, D] in qkv's type; each of the B
/// sequences attends to itself alone. LibTorch's operators on every device.
at::Tensor bidirectional_attention(const at::Tensor& qkv_KRC, std::int64_t T, std::int64_t head_size);

}  // namespace models::ops
