#pragma once

#include <ATen/core/Tensor.h>

#include "models/watch.h"

namespace models {

/// What a Recorder calls its matrices: "ffn_up" or "shared_up".
enum class FfnKind { dense, shared };

/// SwiGLU: (silu(x W_gate) * (x W_up)) W_down, for each slot. x [K, R, D], gate_up [K, D, 2H] (gate first),
/// down [K, H, D] -> [K, R, D], before the branch multiplier. Also the shared experts of a MoE, side by side.
at::Tensor ffn(const at::Tensor& x_KRD, const at::Tensor& gate_up_KDH, const at::Tensor& down_KHD,
               const Watch& watch = {}, FfnKind kind = FfnKind::dense);

}  // namespace models
