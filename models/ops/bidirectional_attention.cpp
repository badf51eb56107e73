#include "models/ops/bidirectional_attention.h"

#include <cmath>

#include <ATen/ATen.h>

namespace models::ops {

at::Tensor bidirectional_attention(const at::Tensor& qkv_KRC, std::int64_t T, std::int64_t head_size) {
  const auto K = qkv_KRC.size(0), R = qkv_KRC.size(1), D = qkv_KRC.size(2) / 3;
  const auto heads = D / head_size, B = R / T;
  const at::Tensor split = qkv_KRC.view({K * B, T, 3, heads, head_size}).permute({2, 0, 3, 1, 4});
  const at::Tensor mixed =
      at::scaled_dot_product_attention(split[0], split[1], split[2], {}, 0.0, /*is_causal=*/false,
                                       1 / std::sqrt(static_cast<double>(head_size)));
  return mixed.transpose(1, 2).reshape({K, R, D});
}

}  // namespace models::ops
