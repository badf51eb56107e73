#pragma once

#include <ATen/core/Tensor.h>

namespace models::ops {

/// silu(gate) * up. gate_up [..., 2H], gates in the first half of the last axis, ups in the second -> [...,
/// H].
at::Tensor swiglu(const at::Tensor& gate_up);

namespace composed {
at::Tensor swiglu(const at::Tensor& gate_up);
}

}  // namespace models::ops
