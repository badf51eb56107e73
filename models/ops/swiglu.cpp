#include "models/ops/swiglu.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/ops/fused.h"
#include "models/ops/multiversion.h"
#include "models/ops/vector_math.h"

namespace models::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

TUNEONCE_MULTIVERSION
void forward_rows(std::int64_t R, std::int64_t H, const float* gate_up, float* y) {
  for (std::int64_t r = 0; r < R; ++r, gate_up += 2 * H, y += H) {
    const float *gate = gate_up, *up = gate_up + H;
#pragma omp simd
    for (std::int64_t c = 0; c < H; ++c) y[c] = gate[c] / (1 + fast_exp(-gate[c])) * up[c];
  }
}

TUNEONCE_MULTIVERSION
void backward_rows(std::int64_t R, std::int64_t H, const float* gate_up, const float* grad_y, float* grad) {
  for (std::int64_t r = 0; r < R; ++r, gate_up += 2 * H, grad_y += H, grad += 2 * H) {
    const float *gate = gate_up, *up = gate_up + H;
    float *grad_gate = grad, *grad_up = grad + H;
#pragma omp simd
    for (std::int64_t c = 0; c < H; ++c) {
      const float sigmoid = 1 / (1 + fast_exp(-gate[c]));
      const float silu = gate[c] * sigmoid;
      grad_gate[c] = grad_y[c] * up[c] * (sigmoid + silu * (1 - sigmoid));
      grad_up[c] = grad_y[c] * silu;
    }
  }
}

struct FusedSwiglu : torch::autograd::Function<FusedSwiglu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate_up) {
    const auto H = gate_up.size(-1) / 2;
    auto sizes = gate_up.sizes().vec();
    sizes.back() = H;
    at::Tensor y = at::empty(sizes, gate_up.options());
    if (y.numel() > 0)
      forward_rows(y.numel() / H, H, gate_up.const_data_ptr<float>(), y.mutable_data_ptr<float>());
    context->save_for_backward({gate_up});
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor gate_up = context->get_saved_variables()[0];
    const at::Tensor grad_y = grads[0].contiguous();
    const auto H = grad_y.size(-1);
    at::Tensor grad = at::empty_like(gate_up);
    if (grad.numel() > 0)
      backward_rows(grad_y.numel() / H, H, gate_up.const_data_ptr<float>(), grad_y.const_data_ptr<float>(),
                    grad.mutable_data_ptr<float>());
    return {grad};
  }
};

}  // namespace

at::Tensor composed::swiglu(const at::Tensor& gate_up) {
  const auto halves = gate_up.chunk(2, -1);
  return at::silu(halves[0]) * halves[1];
}

at::Tensor swiglu(const at::Tensor& gate_up) {
  return fused(gate_up) ? FusedSwiglu::apply(gate_up.contiguous()) : composed::swiglu(gate_up);
}

}  // namespace models::ops
