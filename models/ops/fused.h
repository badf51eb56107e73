#pragma once

#include <ATen/core/Tensor.h>

namespace models::ops {

/// Whether the hand-written kernels take x: float32 on a CPU. Everything else goes through LibTorch's own
/// operators, which each op also offers in `composed` as the reference of its test.
inline bool fused(const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }

}  // namespace models::ops
