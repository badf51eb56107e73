#include "models/moe.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "models/ffn.h"
#include "models/ops/dispatch.h"
#include "models/ops/grouped_mm.h"
#include "models/ops/linear.h"
#include "models/ops/swiglu.h"
#include "models/recorder.h"

namespace models {
namespace {

/// Keeps 0/0 away when every active gate underflows; far below the smallest gate sum that matters.
constexpr double kGateFloor = 1e-20;

/// The gates of the chosen experts, normalised over them where the rule says so: pi, [K, R, a].
at::Tensor chosen_gates(const at::Tensor& gates_KRN, const at::Tensor& experts_KRA, bool normalised) {
  const at::Tensor chosen_KRA = gates_KRN.gather(-1, experts_KRA);
  if (!normalised) return chosen_KRA;
  return chosen_KRA / chosen_KRA.sum(-1, /*keepdim=*/true).add(kGateFloor);
}

at::Tensor merge_slots(const at::Tensor& weight_KNIO) { return weight_KNIO.flatten(0, 1); }

}  // namespace

MoeOutput moe(const at::Tensor& x_KRD, const MoeWeights& weights, const ModelShape& shape,
              const MoeScales& scales, const Watch& watch) {
  const auto wide = x_KRD.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor logits_KRN = ops::linear(x_KRD.to(wide), weights.router_KDN);
  const at::Tensor gates_KRN = scales.gates.softmax ? at::softmax(logits_KRN, -1) : at::sigmoid(logits_KRN);
  const at::Tensor experts_KRA = ops::select_experts(gates_KRN.detach() + weights.bias_KN.unsqueeze(1),
                                                     shape.num_active, shape.num_groups);
  const ops::Dispatch plan = ops::dispatch(experts_KRA, shape.num_experts);

  const at::Tensor rows_MD = ops::gather_rows(x_KRD, plan);
  const at::Tensor hidden_MH =
      ops::swiglu(ops::grouped_mm(rows_MD, merge_slots(weights.expert_gate_up_KNDH), plan.ends_G));
  const at::Tensor expert_rows_MD =
      ops::grouped_mm(hidden_MH, merge_slots(weights.expert_down_KNHD), plan.ends_G);
  const at::Tensor pi_KRA = chosen_gates(gates_KRN, experts_KRA, scales.gates.normalised);
  if (watch.recorder) {
    watch.recorder->product("router", watch.block, x_KRD, weights.router_KDN, 1);
    watch.recorder->experts(watch.block, x_KRD, weights, plan, pi_KRA, scales.routed);
  }
  at::Tensor y_KRD = ops::combine_rows(expert_rows_MD, pi_KRA, plan, scales.routed);
  if (weights.shared_gate_up_KDH.defined()) {
    const Watch shared{watch.recorder, watch.block, scales.shared};
    y_KRD = at::add(
        y_KRD, ffn(x_KRD, weights.shared_gate_up_KDH, weights.shared_down_KHD, shared, FfnKind::shared),
        scales.shared);
  }
  return {y_KRD, plan.load_KN};
}

void balance(at::Tensor& bias_KN, const at::Tensor& load_KN, const std::vector<bool>& active, double rate) {
  const at::NoGradGuard no_grad;
  const at::Tensor step_KN = at::sign(load_KN.mean(-1, /*keepdim=*/true) - load_KN).mul(rate);
  for (std::size_t k = 0; k < active.size(); ++k)
    if (active[k]) bias_KN[static_cast<std::int64_t>(k)].add_(step_KN[static_cast<std::int64_t>(k)]);
}

}  // namespace models
