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

constexpr std::int64_t kCoefficients = 7;  // of one slot for one tensor

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
  const auto narrow = [](double value) { return static_cast<float>(value); };
  return {.decay = narrow(1 - values.wd * (independent_decay_ ? schedule : lr)),
          .one_minus_beta1 = narrow(1 - values.beta1),
          .beta2 = narrow(values.beta2),
          .one_minus_beta2 = narrow(1 - values.beta2),
          .step_size = narrow(lr / (1 - std::pow(values.beta1, t))),
          .root_scale = narrow(1 / std::sqrt(1 - std::pow(values.beta2, t))),
          .eps = narrow(values.eps)};
}

/// One pass over weight, gradient and moments of one tensor of one slot.
TUNEONCE_MULTIVERSION
void AdamW::kernel(float* __restrict weight, const float* __restrict gradient, float* __restrict first,
                   float* __restrict second, std::int64_t count, float gradient_scale,
                   const Coefficients& coefficients) {
  const Coefficients c = coefficients;
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * gradient_scale;
    const float m = first[i] + c.one_minus_beta1 * (g - first[i]);
    const float v = c.beta2 * second[i] + c.one_minus_beta2 * g * g;
    weight[i] = c.decay * weight[i] - c.step_size * (m / (std::sqrt(v) * c.root_scale + c.eps));
    first[i] = m;
    second[i] = v;
  }
}

at::Tensor AdamW::step(const at::Tensor& losses_K, std::span<const double> schedule,
                       const std::vector<bool>& active) {
  return parameters_.at(0).value.is_cpu() ? step_cpu(losses_K, schedule, active)
                                          : step_composed(losses_K, schedule, active);
}

at::Tensor AdamW::step_cpu(const at::Tensor& losses_K, std::span<const double> schedule,
                           const std::vector<bool>& active) {
  const at::NoGradGuard no_grad;
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
      kernel(parameters_[i].value.mutable_data_ptr<float>() + offset,
             gradients[i].const_data_ptr<float>() + offset, first_[i].mutable_data_ptr<float>() + offset,
             second_[i].mutable_data_ptr<float>() + offset, count, scale, c);
    }
    ++slot.updates;
  }
  return norms_K;
}

/// Rows: whether the slot is active, its clipping norm, then seven coefficients per parameter; [2 + 7 P, K].
at::Tensor AdamW::coefficient_table(std::span<const double> schedule, const std::vector<bool>& active) const {
  at::Tensor table = at::zeros({2 + kCoefficients * static_cast<std::int64_t>(parameters_.size()),
                                static_cast<std::int64_t>(slots_.size())},
                               at::kFloat);
  auto cell = table.accessor<float, 2>();
  for (std::size_t k = 0; k < slots_.size(); ++k) {
    if (!active[k]) continue;
    const auto column = static_cast<std::int64_t>(k);
    cell[0][column] = 1;
    cell[1][column] = static_cast<float>(slots_[k].clip);
    std::int64_t row = 2;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const Coefficients c = coefficients(slots_[k], i, schedule[k]);
      for (const float value :
           {c.decay, c.one_minus_beta1, c.beta2, c.one_minus_beta2, c.step_size, c.root_scale, c.eps}) {
        cell[row++][column] = value;
      }
    }
  }
  return table;
}

at::Tensor AdamW::step_composed(const at::Tensor& losses_K, std::span<const double> schedule,
                                const std::vector<bool>& active) {
  const at::NoGradGuard no_grad;
  const auto num_slots = static_cast<std::int64_t>(slots_.size());
  at::Tensor squares_K = at::zeros({num_slots}, losses_K.options().dtype(at::kDouble));
  for (const auto& parameter : parameters_) {
    squares_K += gradient_of(parameter).reshape({num_slots, -1}).square().sum(1, false, at::kDouble);
  }
  const at::Tensor norms_K = squares_K.sqrt();

  const at::Tensor table = coefficient_table(schedule, active).to(losses_K.device());
  const at::Tensor moves_K = (table[0] > 0) & norms_K.isfinite() & losses_K.isfinite();
  const at::Tensor wanted_K = (table[1] / (norms_K + kClipEps)).to(at::kFloat).clamp_max(1);
  const at::Tensor scale_K = at::where(table[1] > 0, wanted_K, at::ones_like(wanted_K));
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    at::Tensor& weight = parameters_[i].value;
    std::vector<std::int64_t> axes(static_cast<std::size_t>(weight.dim()), 1);
    axes[0] = num_slots;
    const auto c = [&](std::int64_t j) {
      return table[2 + kCoefficients * static_cast<std::int64_t>(i) + j].view(axes);
    };
    const at::Tensor moves = moves_K.view(axes);
    const at::Tensor gradient = gradient_of(parameters_[i]) * scale_K.view(axes);
    const at::Tensor first = first_[i] + c(1) * (gradient - first_[i]);
    const at::Tensor second = c(2) * second_[i] + c(3) * gradient.square();
    const at::Tensor next = c(0) * weight - c(4) * (first / (second.sqrt() * c(5) + c(6)));
    weight.copy_(at::where(moves, next, weight));
    first_[i].copy_(at::where(moves, first, first_[i]));
    second_[i].copy_(at::where(moves, second, second_[i]));
  }
  // A slot that was active but not finite is ended by the caller, so its count no longer matters.
  for (std::size_t k = 0; k < slots_.size(); ++k) slots_[k].updates += active[k];
  return norms_K;
}

}  // namespace worker
