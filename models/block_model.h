#pragma once

#include <functional>

#include "models/model.h"
#include "models/moe.h"

namespace models {

/// What the families share: a stack of blocks, each attention and a SwiGLU or MoE, the order in which slots
/// are worked on, and the balancing of the experts. Every multiplier comes from group_scaling() and
/// route_scale().
class BlockModel : public Model {
 public:
  void update_balance(const std::vector<bool>& active) override;
  std::vector<double> load_imbalance() const override;

 protected:
  explicit BlockModel(const ModelOptions& options);

  /// Indices into parameters_; a block is dense or MoE, the other's stay unused.
  struct Block {
    std::size_t attention_norm, qkv, out, ffn_norm;
    std::size_t gate_up, down;
    std::size_t router, expert_gate_up, expert_down, shared_gate_up, shared_down;
  };
  struct Multipliers {
    double attention, ffn, head;  // ffn: what is left to do after ffn_branch(); a MoE's are in `moe`
    MoeScales moe;
  };

  /// Place of a parameter; parameters_.size() where this shape has no such tensor.
  std::size_t index_of(const std::string& name) const;

  /// What `work` gives for all slots, one after another or together (SlotOrder), put together again. `work`
  /// gets the weights of n slots from `first` on, in the order of parameters_, and gives a tensor [n, ...].
  using SliceWork =
      std::function<at::Tensor(const std::vector<at::Tensor>& weights, std::int64_t first, std::int64_t n)>;
  at::Tensor for_slots(std::int64_t first, std::int64_t count, const SliceWork& work) const;

  /// SwiGLU or MoE of one block; x [n, R, D] of slots from `first` on, already normalised. With a graph, a
  /// MoE notes its load.
  at::Tensor ffn_branch(const std::vector<at::Tensor>& weights, std::size_t layer, const at::Tensor& x_KRD,
                        std::int64_t first);

  /// What a matrix product is done in.
  at::ScalarType product_type(const at::Tensor& stream) const {
    return options_.bfloat16 ? at::kBFloat16 : stream.scalar_type();
  }

  std::vector<Block> blocks_;
  std::size_t embedding_, final_norm_, head_;
  Multipliers multipliers_;

 private:
  std::vector<at::Tensor> load_KN_;  // one a MoE block, of the last loss() with a graph
};

}  // namespace models
