#include "worker/gradient_noise.h"

#include <cmath>

#include <ATen/ATen.h>

namespace worker {
namespace {

bool counts(models::TensorGroup group) {
  using models::TensorGroup;
  return group == TensorGroup::ffn_up || group == TensorGroup::ffn_down || group == TensorGroup::expert_up ||
         group == TensorGroup::expert_down;
}

at::Tensor squared_norm_K(const at::Tensor& x) {
  return x.flatten(1).square().sum(1, false, at::kDouble).to(at::kCPU);
}

}  // namespace

void GradientNoise::add(const std::vector<models::Parameter>& parameters) {
  std::size_t i = 0;
  for (const auto& [spec, value] : parameters) {
    if (!counts(spec.group)) continue;
    const at::Tensor gradient = value.grad().detach();
    const at::Tensor squares = squared_norm_K(gradient);
    squares_K_ = squares_K_.defined() ? squares_K_ + squares : squares;
    if (num_batches_ == 0)
      sums_.push_back(gradient.clone());
    else
      sums_[i++] += gradient;
  }
  ++num_batches_;
}

std::optional<double> GradientNoise::ratio(std::int64_t k) const {
  if (num_batches_ < 2) return {};
  double of_sums = 0;
  for (const auto& sum : sums_) of_sums += squared_norm_K(sum[k].unsqueeze(0)).item<double>();
  const double squares = squares_K_.const_data_ptr<double>()[k];
  const auto n = static_cast<double>(num_batches_);
  const double signal = (of_sums - squares) / (n * (n - 1)), noise = squares / n - signal;
  if (!(signal > 0 && noise >= 0)) return {};
  return std::sqrt(noise / signal);
}

}  // namespace worker
