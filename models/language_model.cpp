#include "models/language_model.h"

#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "models/ffn.h"
#include "models/ops/cross_entropy.h"
#include "models/ops/embedding.h"
#include "models/ops/grouped_mm.h"
#include "models/ops/linear.h"
#include "models/ops/rms_norm.h"

namespace models {
namespace {

/// The weights of `size` slots (the last part may have fewer), [n, dims...], for every part of the stack. MKL
/// promises equal bits for equal alignment only, so a slice that does not start where a fresh tensor would is
/// copied to where one does.
std::vector<std::vector<at::Tensor>> part_views(const std::vector<Parameter>& parameters, std::int64_t slots,
                                                std::int64_t size) {
  constexpr std::uintptr_t kAlignment = 64;  // of every CPU tensor of LibTorch
  std::vector<std::vector<at::Tensor>> views(static_cast<std::size_t>((slots + size - 1) / size));
  for (const auto& parameter : parameters) {
    const auto slices = size == slots ? std::vector{parameter.value} : parameter.value.split(size, 0);
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

LanguageModel::LanguageModel(const ModelOptions& options) : Model(options) {
  const auto& shape = options_.run.shape;
  const auto forward = [&](TensorGroup group) {
    return group_scaling(group, options_.run, options_.proxy, options_.rule).forward;
  };
  multipliers_ = {.attention = forward(TensorGroup::attention),
                  .ffn = forward(TensorGroup::ffn_down),
                  .head = forward(TensorGroup::head),
                  .moe = {.routed = forward(TensorGroup::expert_down) * route_scale(shape, options_.rule),
                          .shared = forward(TensorGroup::shared_down)}};
  rotary_ = ops::rotary_table(shape.context, shape.head_size, options_.device);
  index_blocks();
  if (!shape.is_moe()) return;
  for (std::int64_t layer = 0; layer < shape.depth; ++layer) {
    const auto zeros =
        at::zeros({options_.slots, shape.num_experts}, at::device(options_.device).dtype(at::kFloat));
    buffers_.push_back({"blocks." + std::to_string(layer) + ".moe.bias", zeros});
    load_KN_.push_back(zeros.clone());
  }
}

void LanguageModel::index_blocks() {
  const auto find = [&](const std::string& name) {
    const auto at = std::find_if(parameters_.begin(), parameters_.end(),
                                 [&](const Parameter& parameter) { return parameter.spec.name == name; });
    return static_cast<std::size_t>(at - parameters_.begin());  // size() where this shape has no such tensor
  };
  embedding_ = find("embedding");
  final_norm_ = find("final_norm");
  head_ = find("head");
  for (std::int64_t layer = 0; layer < options_.run.shape.depth; ++layer) {
    const std::string block = "blocks." + std::to_string(layer) + ".";
    blocks_.push_back({.attention_norm = find(block + "attention.norm"),
                       .qkv = find(block + "attention.qkv"),
                       .out = find(block + "attention.out"),
                       .ffn_norm = find(block + "ffn.norm"),
                       .gate_up = find(block + "ffn.gate_up"),
                       .down = find(block + "ffn.down"),
                       .router = find(block + "moe.router"),
                       .expert_gate_up = find(block + "moe.expert_gate_up"),
                       .expert_down = find(block + "moe.expert_down"),
                       .shared_gate_up = find(block + "moe.shared_gate_up"),
                       .shared_down = find(block + "moe.shared_down")});
  }
}

at::Tensor LanguageModel::loss(const at::Tensor& tokens_KBT) {
  const auto K = options_.slots;
  if (tokens_KBT.dim() != 3 || tokens_KBT.size(0) != K || tokens_KBT.size(2) < 2 ||
      tokens_KBT.size(2) > options_.run.shape.context + 1)
    throw std::invalid_argument("loss: tokens must be [slots, sequences, 2 to context + 1]");
  const auto size = slots_at_once(options_);
  const auto views = part_views(parameters_, K, size);
  std::vector<at::Tensor> losses;
  for (std::int64_t first = 0; first < K; first += size) {
    const auto n = std::min(size, K - first);
    losses.push_back(
        slice_loss(views[static_cast<std::size_t>(first / size)], tokens_KBT.narrow(0, first, n), first));
  }
  return at::cat(losses);
}

at::Tensor LanguageModel::slice_loss(const std::vector<at::Tensor>& weights, const at::Tensor& tokens,
                                     std::int64_t first) {
  const auto K = tokens.size(0), R = tokens.size(1) * (tokens.size(2) - 1), T = tokens.size(2) - 1;
  const at::Tensor ids_KR = tokens.narrow(2, 0, T).reshape({K, R});
  const at::Tensor targets_KR = tokens.narrow(2, 1, T).reshape({K, R});
  const auto& shape = options_.run.shape;

  // The residual stream keeps the weights' type; what enters a matrix product has the product's.
  at::Tensor stream = ops::embedding(weights[embedding_], ids_KR);
  const auto product = options_.bfloat16 ? at::kBFloat16 : stream.scalar_type();
  at::Tensor x;  // the normalised stream
  at::Tensor branch;
  double scale = 0;
  const auto take_in = [&](std::size_t gain) {
    std::tie(stream, x) = ops::add_rms_norm(stream, branch, scale, weights[gain], product);
  };
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const auto& block = blocks_[layer];
    if (layer == 0)
      x = ops::rms_norm(stream, weights[block.attention_norm], product);
    else
      take_in(block.attention_norm);
    branch = attention(x, {weights[block.qkv], weights[block.out]}, T, shape.head_size, rotary_);
    scale = multipliers_.attention;
    take_in(block.ffn_norm);
    branch = ffn_branch(weights, layer, x, first);
    scale = shape.is_moe() ? 1.0 : multipliers_.ffn;
  }
  take_in(final_norm_);
  return ops::cross_entropy(ops::linear(x, weights[head_]), multipliers_.head, targets_KR);
}

at::Tensor LanguageModel::ffn_branch(const std::vector<at::Tensor>& weights, std::size_t layer,
                                     const at::Tensor& x_KRD, std::int64_t first) {
  const auto& block = blocks_[layer];
  const auto& shape = options_.run.shape;
  if (!shape.is_moe()) return ffn(x_KRD, weights[block.gate_up], weights[block.down]);
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
  const MoeOutput output = moe(x_KRD, moe_weights, shape, multipliers_.moe);
  if (at::GradMode::is_enabled()) load_KN_[layer].narrow(0, first, n).copy_(output.load_KN);
  return output.y_KRD;
}

void LanguageModel::update_balance(const std::vector<bool>& active) {
  if (!options_.balance_by_bias) return;
  for (std::size_t layer = 0; layer < load_KN_.size(); ++layer)
    balance(buffers_[layer].value, load_KN_[layer], active, options_.balance_rate);
}

std::vector<double> LanguageModel::load_imbalance() const {
  if (load_KN_.empty()) return {};
  // Loads sum to tokens * a, so max / mean is the busiest expert's share of the tokens times N / a.
  const at::Tensor load_LKN = at::stack(load_KN_);
  const at::Tensor worst_K =
      at::amax(load_LKN, -1).div(load_LKN.mean(-1)).amax(0).to(at::kCPU, at::kDouble);  // one copy
  const auto* worst = worst_K.const_data_ptr<double>();
  return {worst, worst + worst_K.numel()};
}

}  // namespace models
