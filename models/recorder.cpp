#include "models/recorder.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "models/ops/grouped_mm.h"
#include "models/ops/linear.h"
#include "models/ops/swiglu.h"

namespace models {

void Recorder::add(const char* layer, const char* quantity, const at::Tensor& values, double multiplier) {
  auto& entry = pass_[{layer, quantity}];
  entry.sum += values.to(at::kDouble).square().mean().item<double>() * multiplier * multiplier;
  ++entry.count;
}

void Recorder::activation(const char* layer, const at::Tensor& x, double multiplier) {
  const at::NoGradGuard no_grad;
  add(layer, "activation", x, multiplier);
}

void Recorder::product(const char* layer, std::size_t block, const at::Tensor& x_KRI,
                       const at::Tensor& weight_KIO, double multiplier) {
  const at::NoGradGuard no_grad;
  if (first_pass_) {
    reference_[{layer, block}] = {x_KRI.clone(), weight_KIO.clone()};
    return;
  }
  const auto& [x_0, weight_0] = reference_.at({layer, block});
  add(layer, "effective", ops::linear(x_KRI, weight_KIO - weight_0), multiplier);
  add(layer, "propagating", ops::linear(x_KRI - x_0, weight_0), multiplier);
}

void Recorder::experts(std::size_t block, const at::Tensor& x_KRD, const MoeWeights& weights,
                       const ops::Dispatch& plan, const at::Tensor& gates_KRA, double multiplier) {
  const at::NoGradGuard no_grad;
  const auto active = gates_KRA.size(-1);
  if (active > 1) {
    const at::Tensor share_KRA = gates_KRA / gates_KRA.sum(-1, true).clamp_min(1e-30);
    const at::Tensor entropy = -(share_KRA * share_KRA.clamp_min(1e-30).log()).sum(-1);
    add("router", "entropy", entropy, 1 / std::log(static_cast<double>(active)));
  }
  const at::Tensor up = weights.expert_gate_up_KNDH.flatten(0, 1);
  const at::Tensor down = weights.expert_down_KNHD.flatten(0, 1);
  if (first_pass_) {
    reference_[{"expert_up", block}] = {x_KRD.clone(), up.clone()};
    reference_[{"expert_down", block}] = {{}, down.clone()};
    return;
  }
  const auto& [x_0, up_0] = reference_.at({"expert_up", block});
  const auto& down_0 = reference_.at({"expert_down", block}).weight;
  const auto times = [&](const at::Tensor& rows, const at::Tensor& weight) {
    return ops::grouped_mm(rows, weight, plan.ends_G);
  };
  const at::Tensor rows = ops::gather_rows(x_KRD, plan), rows_0 = ops::gather_rows(x_0, plan);
  add("expert_up", "effective", times(rows, up - up_0), 1);
  add("expert_up", "propagating", times(rows - rows_0, up_0), 1);

  // The same experts at step 0: a token that has changed its experts is compared with what those were then.
  const at::Tensor hidden = ops::swiglu(times(rows, up)), hidden_0 = ops::swiglu(times(rows_0, up_0));
  const auto combined = [&](const at::Tensor& expert_rows) {
    return ops::combine_rows(expert_rows, gates_KRA, plan, multiplier);
  };
  add("expert_down", "effective", combined(times(hidden, down - down_0)), 1);
  add("expert_down", "propagating", combined(times(hidden - hidden_0, down_0)), 1);
}

std::map<Recorder::Key, double> Recorder::end_pass() {
  std::map<Key, double> values;
  for (const auto& [key, entry] : pass_) values[key] = std::sqrt(entry.sum / entry.count);
  pass_.clear();
  first_pass_ = false;
  return values;
}

}  // namespace models
