#include "models/ops/cross_entropy.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/ops/fused.h"
#include "models/ops/multiversion.h"
#include "models/ops/vector_math.h"

namespace models::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// ln sum exp(scale * logits) of each row.
TUNEONCE_MULTIVERSION
void log_sum_exp(std::int64_t R, std::int64_t V, const float* logits, float scale, float* result) {
  for (std::int64_t r = 0; r < R; ++r, logits += V) {
    float top = logits[0] * scale;
#pragma omp simd reduction(max : top)
    for (std::int64_t v = 0; v < V; ++v) top = logits[v] * scale > top ? logits[v] * scale : top;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t v = 0; v < V; ++v) sum += fast_exp(logits[v] * scale - top);
    result[r] = top + std::log(sum);
  }
}

/// grad = (softmax - onehot(target)) * factor.
TUNEONCE_MULTIVERSION
void backward_rows(std::int64_t R, std::int64_t V, const float* logits, float scale, const float* log_sum,
                   const std::int64_t* targets, float factor, float* grad) {
  for (std::int64_t r = 0; r < R; ++r, logits += V, grad += V) {
    const float top = log_sum[r];
#pragma omp simd
    for (std::int64_t v = 0; v < V; ++v) grad[v] = fast_exp(logits[v] * scale - top) * factor;
    grad[targets[r]] -= factor;
  }
}

struct FusedCrossEntropy : torch::autograd::Function<FusedCrossEntropy> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& logits, double scale,
                            const at::Tensor& targets) {
    const auto K = logits.size(0), R = logits.size(1), V = logits.size(2);
    at::Tensor log_sum = at::empty({K, R}, logits.options()), loss = at::empty({K}, logits.options());
    const auto* x = logits.const_data_ptr<float>();
    const auto* target = targets.const_data_ptr<std::int64_t>();
    auto* sums = log_sum.mutable_data_ptr<float>();
    log_sum_exp(K * R, V, x, static_cast<float>(scale), sums);
    for (std::int64_t k = 0, row = 0; k < K; ++k) {
      double total = 0;
      for (std::int64_t r = 0; r < R; ++r, ++row) {
        if (target[row] < 0 || target[row] >= V)
          throw std::invalid_argument("token " + std::to_string(target[row]) +
                                      " is outside a vocabulary of " + std::to_string(V));
        total += sums[row] - static_cast<float>(scale) * x[row * V + target[row]];
      }
      loss[k] = static_cast<float>(total / static_cast<double>(R));
    }
    context->save_for_backward({logits, log_sum, targets});
    context->saved_data["scale"] = scale;
    return loss;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &logits = saved[0], &log_sum = saved[1], &targets = saved[2];
    const auto scale = static_cast<float>(context->saved_data["scale"].toDouble());
    const auto K = logits.size(0), R = logits.size(1), V = logits.size(2);
    at::Tensor grad = at::empty_like(logits);
    for (std::int64_t k = 0; k < K; ++k)
      backward_rows(R, V, logits.const_data_ptr<float>() + k * R * V, scale,
                    log_sum.const_data_ptr<float>() + k * R, targets.const_data_ptr<std::int64_t>() + k * R,
                    grads[0][k].item<float>() * scale / static_cast<float>(R),
                    grad.mutable_data_ptr<float>() + k * R * V);
    return {grad, {}, {}};
  }
};

}  // namespace

at::Tensor composed::cross_entropy(const at::Tensor& logits_KRV, double scale, const at::Tensor& targets_KR) {
  const auto wide = logits_KRV.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor log_p_KRV = at::log_softmax(logits_KRV.to(wide).mul(scale), -1);
  return at::gather(log_p_KRV, -1, targets_KR.unsqueeze(-1)).squeeze(-1).mean(-1).neg();
}

at::Tensor cross_entropy(const at::Tensor& logits_KRV, double scale, const at::Tensor& targets_KR) {
  if (!fused(logits_KRV)) return composed::cross_entropy(logits_KRV, scale, targets_KR);
  return FusedCrossEntropy::apply(logits_KRV.contiguous(), scale, targets_KR.contiguous());
}

}  // namespace models::ops
