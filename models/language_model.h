#pragma once

#include "models/attention.h"
#include "models/model.h"
#include "models/moe.h"

namespace models {

/// Pre-norm transformer: embedding; per block RMSNorm, attention, RMSNorm, SwiGLU or MoE, each branch added
/// to the residual stream times its multiplier; final RMSNorm, untied head. Every multiplier comes from
/// group_scaling() and route_scale().
class LanguageModel final : public Model {
 public:
  explicit LanguageModel(const ModelOptions& options);

  at::Tensor loss(const at::Tensor& tokens_KBT) override;
  void update_balance(const std::vector<bool>& active) override;
  std::vector<double> load_imbalance() const override;

 private:
  /// Indices into parameters_; a block is dense or MoE, the other's stay unused.
  struct Block {
    std::size_t attention_norm, qkv, out, ffn_norm;
    std::size_t gate_up, down;
    std::size_t router, expert_gate_up, expert_down, shared_gate_up, shared_down;
  };
  struct Multipliers {
    double attention, ffn, head;
    MoeScales moe;
  };

  void index_blocks();
  /// The loss [n] of n slots from `first` on, whose weights are `weights`, in the order of parameters_.
  at::Tensor slice_loss(const std::vector<at::Tensor>& weights, const at::Tensor& tokens, std::int64_t first);
  at::Tensor ffn_branch(const std::vector<at::Tensor>& weights, std::size_t layer, const at::Tensor& x_KRD,
                        std::int64_t first);

  std::vector<Block> blocks_;
  std::size_t embedding_, final_norm_, head_;
  Multipliers multipliers_;
  ops::RotaryTable rotary_;
  std::vector<at::Tensor> load_KN_;  // one a MoE block, of the last loss() with a graph
};

}  // namespace models
