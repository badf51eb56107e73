#pragma once

#include <ATen/core/Tensor.h>

namespace models::ops {

/// Mean over R of -ln softmax(scale * logits)[target], nats, per slot. logits [K, R, V] of any floating type,
/// targets [K, R] int64 in [0, V) -> [K], float32 (float64 for float64 logits).
/// Throws std::invalid_argument for a target outside [0, V) (on CUDA LibTorch's own device check).
at::Tensor cross_entropy(const at::Tensor& logits_KRV, double scale, const at::Tensor& targets_KR);

namespace composed {
at::Tensor cross_entropy(const at::Tensor& logits_KRV, double scale, const at::Tensor& targets_KR);
}

}  // namespace models::ops
