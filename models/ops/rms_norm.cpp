#include "models/ops/rms_norm.h"

#include <cmath>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/ops/fused.h"
#include "models/ops/multiversion.h"

namespace models::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// One slot: sum = x + scale * branch (where there is a branch), y = sum * inverse * gain, row by row.
TUNEONCE_MULTIVERSION
void forward_rows(std::int64_t R, std::int64_t D, const float* x, const float* branch, float scale,
                  const float* gain, float* sum, float* y, float* inverse) {
  for (std::int64_t r = 0; r < R; ++r, x += D, sum += D, y += D) {
    float squares = 0;
    if (branch != nullptr) {
#pragma omp simd reduction(+ : squares)
      for (std::int64_t c = 0; c < D; ++c) {
        const float s = x[c] + scale * branch[c];
        sum[c] = s;
        squares += s * s;
      }
      branch += D;
    } else {
#pragma omp simd reduction(+ : squares)
      for (std::int64_t c = 0; c < D; ++c) squares += x[c] * x[c];
    }
    const float* row = branch != nullptr ? sum : x;
    const float i = 1 / std::sqrt(squares / static_cast<float>(D) + static_cast<float>(kNormEps));
    inverse[r] = i;
#pragma omp simd
    for (std::int64_t c = 0; c < D; ++c) y[c] = row[c] * i * gain[c];
  }
}

/// One slot: grad_sum (may be null) comes down the residual stream, grad_y through the norm. grad_x is the
/// whole gradient of the sum, grad_branch (may be null) is that times scale; grad_gain is added to.
TUNEONCE_MULTIVERSION
void backward_rows(std::int64_t R, std::int64_t D, const float* grad_sum, const float* grad_y,
                   const float* sum, const float* inverse, const float* gain, float scale, float* grad_x,
                   float* grad_branch, float* grad_gain) {
  for (std::int64_t r = 0; r < R; ++r, grad_y += D, sum += D, grad_x += D) {
    const float i = inverse[r];
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (std::int64_t c = 0; c < D; ++c) {
      dot += grad_y[c] * gain[c] * sum[c];
      grad_gain[c] += grad_y[c] * sum[c] * i;
    }
    const float back = dot * i * i * i / static_cast<float>(D);
    if (grad_sum != nullptr) {
#pragma omp simd
      for (std::int64_t c = 0; c < D; ++c)
        grad_x[c] = grad_sum[c] + (grad_y[c] * gain[c] * i - sum[c] * back);
      grad_sum += D;
    } else {
#pragma omp simd
      for (std::int64_t c = 0; c < D; ++c) grad_x[c] = grad_y[c] * gain[c] * i - sum[c] * back;
    }
    if (grad_branch == nullptr) continue;
#pragma omp simd
    for (std::int64_t c = 0; c < D; ++c) grad_branch[c] = grad_x[c] * scale;
    grad_branch += D;
  }
}

const float* slot(const at::Tensor& t, std::int64_t k) {
  return t.defined() ? t.const_data_ptr<float>() + k * t.stride(0) : nullptr;
}
float* slot_out(at::Tensor& t, std::int64_t k) {
  return t.defined() ? t.mutable_data_ptr<float>() + k * t.stride(0) : nullptr;
}

/// {grad_x, grad_branch (undefined when it is grad_x times 1), grad_gain}
struct Gradients {
  at::Tensor x, branch, gain;
};
Gradients backward(const at::Tensor& grad_sum, const at::Tensor& grad_y, const variable_list& saved,
                   double scale) {
  const at::Tensor &sum = saved[0], &inverse = saved[1], &gain = saved[2];
  const auto K = sum.size(0), R = sum.size(1), D = sum.size(2);
  const at::Tensor down = grad_sum.defined() ? grad_sum.contiguous() : grad_sum;
  const at::Tensor dy = grad_y.contiguous();
  Gradients grads{at::empty_like(sum), scale == 1 ? at::Tensor() : at::empty_like(sum), at::zeros_like(gain)};
  for (std::int64_t k = 0; k < K; ++k)
    backward_rows(R, D, slot(down, k), slot(dy, k), slot(sum, k), slot(inverse, k), slot(gain, k),
                  static_cast<float>(scale), slot_out(grads.x, k), slot_out(grads.branch, k),
                  slot_out(grads.gain, k));
  return grads;
}

struct FusedNorm : torch::autograd::Function<FusedNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& gain) {
    at::Tensor y = at::empty_like(x), inverse = at::empty({x.size(0), x.size(1)}, x.options()), none;
    for (std::int64_t k = 0; k < x.size(0); ++k)
      forward_rows(x.size(1), x.size(2), slot(x, k), nullptr, 1, slot(gain, k), nullptr, slot_out(y, k),
                   slot_out(inverse, k));
    context->save_for_backward({x, inverse, gain});
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    auto result = ops::backward({}, grads[0], context->get_saved_variables(), 1);
    return {result.x, result.gain};
  }
};

struct FusedAddNorm : torch::autograd::Function<FusedAddNorm> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& branch,
                               double scale, const at::Tensor& gain) {
    at::Tensor sum = at::empty_like(x), y = at::empty_like(x);
    at::Tensor inverse = at::empty({x.size(0), x.size(1)}, x.options());
    for (std::int64_t k = 0; k < x.size(0); ++k)
      forward_rows(x.size(1), x.size(2), slot(x, k), slot(branch, k), static_cast<float>(scale),
                   slot(gain, k), slot_out(sum, k), slot_out(y, k), slot_out(inverse, k));
    context->save_for_backward({sum, inverse, gain});
    context->saved_data["scale"] = scale;
    context->set_materialize_grads(false);
    return {sum, y};
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const double scale = context->saved_data["scale"].toDouble();
    if (!grads[1].defined())  // only the stream is used
      return {grads[0], grads[0].defined() ? grads[0] * scale : at::Tensor(), {}, {}};
    auto result = ops::backward(grads[0], grads[1], context->get_saved_variables(), scale);
    return {result.x, scale == 1 ? result.x : result.branch, {}, result.gain};
  }
};

}  // namespace

at::Tensor composed::rms_norm(const at::Tensor& x_KRD, const at::Tensor& gain_KD, at::ScalarType out) {
  const at::Tensor inverse_KR1 = x_KRD.square().mean(-1, /*keepdim=*/true).add(kNormEps).rsqrt();
  return (x_KRD * inverse_KR1 * gain_KD.unsqueeze(1)).to(out);
}

std::pair<at::Tensor, at::Tensor> composed::add_rms_norm(const at::Tensor& x_KRD,
                                                         const at::Tensor& branch_KRD, double scale,
                                                         const at::Tensor& gain_KD, at::ScalarType out) {
  const at::Tensor sum = at::add(x_KRD, branch_KRD.to(x_KRD.scalar_type()), scale);
  return {sum, composed::rms_norm(sum, gain_KD, out)};
}

at::Tensor rms_norm(const at::Tensor& x_KRD, const at::Tensor& gain_KD, at::ScalarType out) {
  if (!fused(x_KRD) || out != at::kFloat) return composed::rms_norm(x_KRD, gain_KD, out);
  return FusedNorm::apply(x_KRD.contiguous(), gain_KD.contiguous());
}

std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x_KRD, const at::Tensor& branch_KRD,
                                               double scale, const at::Tensor& gain_KD, at::ScalarType out) {
  if (!fused(x_KRD) || !fused(branch_KRD) || out != at::kFloat)
    return composed::add_rms_norm(x_KRD, branch_KRD, scale, gain_KD, out);
  const auto both =
      FusedAddNorm::apply(x_KRD.contiguous(), branch_KRD.contiguous(), scale, gain_KD.contiguous());
  return {both[0], both[1]};
}

}  // namespace models::ops
