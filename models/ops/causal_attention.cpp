#include "models/ops/causal_attention.h"

#include <cmath>

#include <ATen/ATen.h>

namespace models::ops {
namespace {

/// x [.., T, S] turned by its position, in at least float32, back in x's type.
at::Tensor rotate(const at::Tensor& x, const RotaryTable& table) {
  const auto T = x.size(-2);
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor cos = table.cos_TP.narrow(0, 0, T).to(wide), sin = table.sin_TP.narrow(0, 0, T).to(wide);
  const auto halves = x.to(wide).chunk(2, -1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1)
      .to(x.scalar_type());
}

}  // namespace

RotaryTable rotary_table(std::int64_t context, std::int64_t head_size, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor rate_P = at::pow(10000.0, at::arange(0, head_size, 2, options).div(-head_size));
  const at::Tensor angle_TP = at::outer(at::arange(context, options), rate_P);
  return {angle_TP.cos().to(device, at::kFloat), angle_TP.sin().to(device, at::kFloat)};
}

at::Tensor causal_attention(const at::Tensor& qkv_KRC, std::int64_t T, std::int64_t head_size,
                            const RotaryTable& table) {
  const auto K = qkv_KRC.size(0), R = qkv_KRC.size(1), D = qkv_KRC.size(2) / 3;
  const auto heads = D / head_size, B = R / T;
  const at::Tensor split = qkv_KRC.view({K * B, T, 3, heads, head_size}).permute({2, 0, 3, 1, 4});
  const at::Tensor mixed =
      at::scaled_dot_product_attention(rotate(split[0], table), rotate(split[1], table), split[2], {}, 0.0,
                                       /*is_causal=*/true, 1 / std::sqrt(static_cast<double>(head_size)));
  return mixed.transpose(1, 2).reshape({K, R, D});
}

}  // namespace models::ops
