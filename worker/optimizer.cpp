#include "worker/optimizer.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "models/ops/multiversion.h"

namespace worker {
namespace {

// As torch's clip_grad_norm_: the norm is never divided by exactly zero.
constexpr double kClipEps = 1e-6;

/// Sum of squares. The order of the additions is fixed by the code, not by the vector width, so every machine
/// and every slot gives the same bits.
TUNEONCE_MULTIVERSION
double sum_of_squares(const float* values, std::int64_t count) {
  constexpr std::int64_t kLanes = 16, kBlock = 4096;
  double total = 0;
  std::int64_t i = 0;
  while (count - i >= kLanes) {
    float lanes[kLanes] = {};
    const std::int64_t end = i + std::min(kBlock, (count - i) / kLanes * kLanes);
    for (; i < end; i += kLanes) {
      for (int j = 0; j < kLanes; ++j) lanes[j] += values[i + j] * values[i + j];
    }
    for (const float lane : lanes) total += lane;
  }
  for (; i < count; ++i) total += static_cast<double>(values[i]) * values[i];
  return total;
}

struct KernelValues {
  float gradient_scale, decay, one_minus_beta1, beta2, one_minus_beta2, step_size, root_scale, eps;
};

/// One pass over weight, gradient and moments of one tensor of one slot.
TUNEONCE_MULTIVERSION
void adamw_kernel(float* __restrict weight, const float* __restrict gradient, float* __restrict first,
                  float* __restrict second, std::int64_t count, const KernelValues c) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * c.gradient_scale;
    const float m = first[i] + c.one_minus_beta1 * (g - first[i]);
    const float v = c.beta2 * second[i] + c.one_minus_beta2 * g * g;
    weight[i] = c.decay * weight[i] - c.step_size * (m / (std::sqrt(v) * c.root_scale + c.eps));
    first[i] = m;
    second[i] = v;
  }
}

const at::Tensor& gradient_of(const models::Parameter& parameter) {
  const at::Tensor& gradient = parameter.value.grad();
  if (!gradient.defined()) throw std::logic_error("AdamW: " + parameter.spec.name + " got no gradient");
  return gradient;
}

double clip_scale(double norm, double clip) { return clip > 0 ? std::min(1.0, clip / (norm + kClipEps)) : 1; }

}  // namespace

AdamW::AdamW(std::vector<models::Parameter>& parameters, const models::RunShape& run,
             const models::RunShape& proxy, const models::RuleOptions& rule)
    : parameters_(parameters), independent_decay_(rule.wd_width == models::WdWidth::independent) {
  for (const auto& parameter : parameters) {
    scaling_.push_back(models::group_scaling(parameter.spec.group, run, proxy, rule));
    first_.push_back(at::zeros_like(parameter.value));
    second_.push_back(at::zeros_like(parameter.value));
  }
  slots_.resize(static_cast<std::size_t>(parameters.at(0).value.size(0)));
}

void AdamW::reset(std::int64_t slot, const sweeps::Hyperparameters& base, double clip) {
  Slot& own = slots_.at(static_cast<std::size_t>(slot));
  own = {.values = {}, .clip = clip, .updates = 0};
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto& scaling = scaling_[i];
    own.values.push_back({.lr = base.lr * scaling.lr,
                          .wd = models::decays(parameters_[i].spec.group) ? base.wd * scaling.wd : 0,
                          .beta1 = models::scaled_beta(base.beta1, scaling.one_minus_beta, "beta1"),
                          .beta2 = models::scaled_beta(base.beta2, scaling.one_minus_beta, "beta2"),
                          .eps = base.eps * scaling.eps});
    first_[i][slot].zero_();
    second_[i][slot].zero_();
  }
}

void AdamW::clear_gradients() {
  for (auto& parameter : parameters_) parameter.value.mutable_grad() = at::Tensor();
}

AdamW::Coefficients AdamW::coefficients(const Slot& slot, std::size_t parameter, double schedule) const {
  const GroupValues& values = slot.values[parameter];
  const auto t = static_cast<double>(slot.updates + 1);
  const double lr = values.lr * schedule;
  return {.decay = 1 - values.wd * (independent_decay_ ? schedule : lr),
          .beta1 = values.beta1,
          .beta2 = values.beta2,
          .step_size = lr / (1 - std::pow(values.beta1, t)),
          .root_scale = 1 / std::sqrt(1 - std::pow(values.beta2, t)),
          .eps = values.eps};
}

at::Tensor AdamW::step(const at::Tensor& losses_K, std::span<const double> schedule,
                       const std::vector<bool>& active) {
  const at::NoGradGuard no_grad;
  return parameters_.at(0).value.is_cpu() ? step_cpu(losses_K, schedule, active)
                                          : step_composed(losses_K, schedule, active);
}

at::Tensor AdamW::step_cpu(const at::Tensor& losses_K, std::span<const double> schedule,
                           const std::vector<bool>& active) {
  const at::Tensor losses = losses_K.to(at::kDouble).contiguous();
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : parameters_) gradients.push_back(gradient_of(parameter).contiguous());

  at::Tensor norms_K = at::zeros({static_cast<std::int64_t>(slots_.size())}, at::kDouble);
  for (std::size_t k = 0; k < slots_.size(); ++k) {
    double sum = 0;
    for (const at::Tensor& gradient : gradients) {
      const std::int64_t count = gradient.numel() / gradient.size(0);
      sum += sum_of_squares(gradient.const_data_ptr<float>() + static_cast<std::int64_t>(k) * count, count);
    }
    const double norm = std::sqrt(sum);
    norms_K.mutable_data_ptr<double>()[k] = norm;
    if (!active[k] || !std::isfinite(norm) || !std::isfinite(losses.const_data_ptr<double>()[k])) continue;

    Slot& slot = slots_[k];
    const auto scale = static_cast<float>(clip_scale(norm, slot.clip));
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const Coefficients c = coefficients(slot, i, schedule[k]);
      const std::int64_t count = gradients[i].numel() / gradients[i].size(0);
      const std::int64_t offset = static_cast<std::int64_t>(k) * count;
      adamw_kernel(
          parameters_[i].value.mutable_data_ptr<float>() + offset,
          gradients[i].const_data_ptr<float>() + offset, first_[i].mutable_data_ptr<float>() + offset,
          second_[i].mutable_data_ptr<float>() + offset, count,
          {scale, static_cast<float>(c.decay), static_cast<float>(1 - c.beta1), static_cast<float>(c.beta2),
           static_cast<float>(1 - c.beta2), static_cast<float>(c.step_size), static_cast<float>(c.root_scale),
           static_cast<float>(c.eps)});
    }
    ++slot.updates;
  }
  return norms_K;
}

/// The same arithmetic in tensor operations, for devices; whether a slot moves is decided there, so nothing
/// waits for the host.
at::Tensor AdamW::step_composed(const at::Tensor& losses_K, std::span<const double> schedule,
                                const std::vector<bool>& active) {
  const auto num_slots = static_cast<std::int64_t>(slots_.size());
  const auto device = losses_K.device();
  at::Tensor squares_K = at::zeros({num_slots}, losses_K.options().dtype(at::kDouble));
  for (const auto& parameter : parameters_) {
    squares_K += gradient_of(parameter).reshape({num_slots, -1}).square().sum(1, false, at::kDouble);
  }
  const at::Tensor norms_K = squares_K.sqrt();

  // Rows: active, clip, then six coefficients per parameter; one copy to the device.
  const auto num_parameters = static_cast<std::int64_t>(parameters_.size());
  at::Tensor table = at::empty({2 + 6 * num_parameters, num_slots}, at::kFloat);
  auto cell = table.accessor<float, 2>();
  for (std::int64_t k = 0; k < num_slots; ++k) {
    Slot& slot = slots_[static_cast<std::size_t>(k)];
    const bool moves = active[static_cast<std::size_t>(k)];
    cell[0][k] = moves ? 1.0f : 0.0f;
    cell[1][k] = static_cast<float>(slot.clip);
    for (std::int64_t i = 0; i < num_parameters; ++i) {
      const Coefficients c = slot.values.empty() ? Coefficients{}
                                                 : coefficients(slot, static_cast<std::size_t>(i),
                                                                schedule[static_cast<std::size_t>(k)]);
      const double row[6] = {c.decay, c.beta1, c.beta2, c.step_size, c.root_scale, c.eps};
      for (std::int64_t j = 0; j < 6; ++j) cell[2 + 6 * i + j][k] = static_cast<float>(row[j]);
    }
    // A slot that turns out not to be finite is ended by the caller, so its count no longer matters.
    if (moves) ++slot.updates;
  }
  table = table.to(device);

  const at::Tensor moves_K = (table[0] > 0) & norms_K.isfinite() & losses_K.isfinite();
  const at::Tensor wanted_K = (table[1] / (norms_K + kClipEps)).to(at::kFloat).clamp_max(1);
  const at::Tensor scale_K = at::where(table[1] > 0, wanted_K, at::ones_like(wanted_K));
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor& weight = parameters_[i].value;
    std::vector<std::int64_t> axes(static_cast<std::size_t>(weight.dim()), 1);
    axes[0] = num_slots;
    const auto c = [&](std::int64_t j) { return table[2 + 6 * static_cast<std::int64_t>(i) + j].view(axes); };
    const at::Tensor moves = moves_K.view(axes);
    const at::Tensor gradient = gradient_of(parameters_[i]) * scale_K.view(axes);
    const at::Tensor first = first_[i] + (1 - c(1)) * (gradient - first_[i]);
    const at::Tensor second = c(2) * second_[i] + (1 - c(2)) * gradient.square();
    const at::Tensor next = c(0) * weight - c(3) * (first / (second.sqrt() * c(4) + c(5)));
    weight.copy_(at::where(moves, next, weight));
    first_[i].copy_(at::where(moves, first, first_[i]));
    second_[i].copy_(at::where(moves, second, second_[i]));
  }
  return norms_K;
}

}  // namespace worker
