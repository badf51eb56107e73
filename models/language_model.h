#pragma once

#include "models/attention.h"
#include "models/block_model.h"

namespace models {

/// Pre-norm transformer: embedding; per block RMSNorm, attention, RMSNorm, SwiGLU or MoE, each branch added
/// to the residual stream times its multiplier; final RMSNorm, untied head. Every multiplier comes from
/// group_scaling() and route_scale().
class LanguageModel final : public BlockModel {
 public:
  explicit LanguageModel(const ModelOptions& options);

  at::Tensor loss(const Batch& batch) override;

 private:
  /// The loss [n] of n slots from `first` on, whose weights are `weights`, in the order of parameters_.
  at::Tensor slice_loss(const std::vector<at::Tensor>& weights, const at::Tensor& tokens, std::int64_t first);

  ops::RotaryTable rotary_;
};

}  // namespace models
