#include "models/language_model.h"

#include <stdexcept>

#include <ATen/ATen.h>

#include "models/ops/cross_entropy.h"
#include "models/ops/embedding.h"
#include "models/ops/linear.h"
#include "models/ops/rms_norm.h"
#include "models/recorder.h"

namespace models {

LanguageModel::LanguageModel(const ModelOptions& options)
    : BlockModel(options),
      rotary_(ops::rotary_table(options_.run.shape.context, options_.run.shape.head_size, options_.device)) {}

at::Tensor LanguageModel::loss(const Batch& batch) {
  const at::Tensor& tokens_KBT = batch.tokens_KBT;
  const auto K = options_.slots;
  if (!tokens_KBT.defined() || tokens_KBT.dim() != 3 || tokens_KBT.size(0) != K || tokens_KBT.size(2) < 2 ||
      tokens_KBT.size(2) > options_.run.shape.context + 1)
    throw std::invalid_argument("loss: tokens must be [slots, sequences, 2 to context + 1]");
  return for_slots(0, K, [&](const std::vector<at::Tensor>& weights, std::int64_t first, std::int64_t n) {
    return slice_loss(weights, tokens_KBT.narrow(0, first, n), first);
  });
}

at::Tensor LanguageModel::slice_loss(const std::vector<at::Tensor>& weights, const at::Tensor& tokens,
                                     std::int64_t first) {
  const auto K = tokens.size(0), R = tokens.size(1) * (tokens.size(2) - 1), T = tokens.size(2) - 1;
  const at::Tensor ids_KR = tokens.narrow(2, 0, T).reshape({K, R});
  const at::Tensor targets_KR = tokens.narrow(2, 1, T).reshape({K, R});

  // The residual stream keeps the weights' type; what enters a matrix product has the product's.
  at::Tensor stream = ops::embedding(weights[embedding_], ids_KR);
  const auto product = product_type(stream);
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
    branch = attention(x, {weights[block.qkv], weights[block.out]}, T, options_.run.shape.head_size, rotary_,
                       {recorder_, layer, multipliers_.attention});
    scale = multipliers_.attention;
    if (recorder_) recorder_->activation("attention", branch, scale);
    take_in(block.ffn_norm);
    branch = ffn_branch(weights, layer, x, first);
    scale = multipliers_.ffn;
    if (recorder_) recorder_->activation("ffn", branch, scale);
  }
  take_in(final_norm_);
  const at::Tensor logits_KRV = ops::linear(x, weights[head_]);
  if (recorder_) {
    recorder_->activation("stream", stream, 1);
    recorder_->activation("logits", logits_KRV, multipliers_.head);
    recorder_->product("head", 0, x, weights[head_], multipliers_.head);
  }
  return ops::cross_entropy(logits_KRV, multipliers_.head, targets_KR);
}

}  // namespace models
