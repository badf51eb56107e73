#include "models/block_model.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "models/ffn.h"
#include "models/ops/grouped_mm.h"

namespace models {
namespace {

/// The weights of slots first .. first + count - 1 in parts of `size` (the last may be smaller), [n,
/// dims...]. MKL promises equal bits for equal alignment only, so a slice that does not start where a fresh
/// tensor would is copied to where one does.
std::vector<std::vector<at::Tensor>> part_views(const std::vector<Parameter>& parameters, std::int64_t first,
                                                std::int64_t count, std::int64_t size) {
  constexpr std::uintptr_t kAlignment = 64;  // of every CPU tensor of LibTorch
  std::vector<std::vector<at::Tensor>> views(static_cast<std::size_t>((count + size - 1) / size));
  for (const auto& parameter : parameters) {
    const at::Tensor all =
        count == parameter.value.size(0) ? parameter.value : parameter.value.narrow(0, first, count);
    const auto slices = size == count ? std::vector{all} : all.split(size, 0);
    for (std::size_t i = 0; i < slices.size(); ++i) {
      const auto address = reinterpret_cast<std::uintptr_t>(slices[i].const_data_ptr());
      views[i].push_back(address % kAlignment == 0 ? slices[i] : slices[i].clone());
    }
  }
  return views;
}

/// Slots that one call works on: on a CPU one, for the kernels, and so the bits, of K = 1, and activations
/// that stay in cache; together all, or as many as a grouped product takes.
std::int64_t slots_at_once(const ModelOptions& options) {
  const auto order = options.slot_order;
  const bool together =
      order == SlotOrder::together || (order == SlotOrder::automatic && !options.device.is_cpu());
  if (!together) return 1;
  const auto& shape = options.run.shape;
  if (!shape.is_moe()) return options.slots;
  return std::clamp<std::int64_t>(ops::kMaxGroups / shape.num_experts, 1, options.slots);
}

}  // namespace

BlockModel::BlockModel(const ModelOptions& options)
    : Model(options),
      embedding_(index_of("embedding")),
      final_norm_(index_of("final_norm")),
      head_(index_of("head")) {
  const auto& shape = options_.run.shape;
  const auto forward = [&](TensorGroup group) {
    return group_scaling(group, options_.run, options_.proxy, options_.rule).forward;
  };
  multipliers_ = {.attention = forward(TensorGroup::attention),
                  .ffn = shape.is_moe() ? 1.0 : forward(TensorGroup::ffn_down),
                  .head = forward(TensorGroup::head),
                  .moe = {.routed = forward(TensorGroup::expert_down) * route_scale(shape, options_.rule),
                          .shared = forward(TensorGroup::shared_down),
                          .gates = gate_rule(options_.rule.rule)}};
  for (std::int64_t layer = 0; layer < shape.depth; ++layer) {
    const std::string block = "blocks." + std::to_string(layer) + ".";
    blocks_.push_back({.attention_norm = index_of(block + "attention.norm"),
                       .qkv = index_of(block + "attention.qkv"),
                       .out = index_of(block + "attention.out"),
                       .ffn_norm = index_of(block + "ffn.norm"),
                       .gate_up = index_of(block + "ffn.gate_up"),
                       .down = index_of(block + "ffn.down"),
                       .router = index_of(block + "moe.router"),
                       .expert_gate_up = index_of(block + "moe.expert_gate_up"),
                       .expert_down = index_of(block + "moe.expert_down"),
                       .shared_gate_up = index_of(block + "moe.shared_gate_up"),
                       .shared_down = index_of(block + "moe.shared_down")});
    if (!shape.is_moe()) continue;
    const auto zeros =
        at::zeros({options_.slots, shape.num_experts}, at::device(options_.device).dtype(at::kFloat));
    buffers_.push_back({block + "moe.bias", zeros});
    load_KN_.push_back(zeros.clone());
  }
}

std::size_t BlockModel::index_of(const std::string& name) const {
  const auto at = std::find_if(parameters_.begin(), parameters_.end(),
                               [&](const Parameter& parameter) { return parameter.spec.name == name; });
  return static_cast<std::size_t>(at - parameters_.begin());
}

at::Tensor BlockModel::for_slots(std::int64_t first, std::int64_t count, const SliceWork& work) const {
  const auto size = std::min(count, slots_at_once(options_));
  const auto views = part_views(parameters_, first, count, size);
  std::vector<at::Tensor> results;
  for (std::int64_t start = 0; start < count; start += size)
    results.push_back(
        work(views[static_cast<std::size_t>(start / size)], first + start, std::min(size, count - start)));
  return at::cat(results);
}

at::Tensor BlockModel::ffn_branch(const std::vector<at::Tensor>& weights, std::size_t layer,
                                  const at::Tensor& x_KRD, std::int64_t first) {
  const auto& block = blocks_[layer];
  const auto& shape = options_.run.shape;
  if (!shape.is_moe())
    return ffn(x_KRD, weights[block.gate_up], weights[block.down], {recorder_, layer, multipliers_.ffn});
  const auto n = x_KRD.size(0);
  MoeWeights moe_weights{.router_KDN = weights[block.router],
                         .expert_gate_up_KNDH = weights[block.expert_gate_up],
                         .expert_down_KNHD = weights[block.expert_down],
                         .shared_gate_up_KDH = {},
                         .shared_down_KHD = {},
                         .bias_KN = buffers_[layer].value.narrow(0, first, n)};
  if (shape.num_shared > 0) {
    moe_weights.shared_gate_up_KDH = weights[block.shared_gate_up];
    moe_weights.shared_down_KHD = weights[block.shared_down];
  }
  const MoeOutput output = moe(x_KRD, moe_weights, shape, multipliers_.moe, {recorder_, layer, 1});
  if (at::GradMode::is_enabled()) load_KN_[layer].narrow(0, first, n).copy_(output.load_KN);
  return output.y_KRD;
}

void BlockModel::update_balance(const std::vector<bool>& active) {
  if (!options_.balance_by_bias) return;
  for (std::size_t layer = 0; layer < load_KN_.size(); ++layer)
    balance(buffers_[layer].value, load_KN_[layer], active, options_.balance_rate);
}

std::vector<double> BlockModel::load_imbalance() const {
  if (load_KN_.empty()) return {};
  // Loads sum to tokens * a, so max / mean is the busiest expert's share of the tokens times N / a.
  const at::Tensor load_LKN = at::stack(load_KN_);
  const at::Tensor worst_K =
      at::amax(load_LKN, -1).div(load_LKN.mean(-1)).amax(0).to(at::kCPU, at::kDouble);  // one copy
  const auto* worst = worst_K.const_data_ptr<double>();
  return {worst, worst + worst_K.numel()};
}

}  // namespace models
