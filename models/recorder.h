#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/moe.h"
#include "models/ops/dispatch.h"

namespace models {

/// Watches forward passes over one fixed batch for a coordinate check. A model that has one (see
/// Model::record_to) shows it its tensors on the way; nothing else changes. The first pass is the reference
/// that later ones are compared with. Slots: K = 1. Blocks count as one layer: mean squares are averaged.
///
/// Quantities, all of them root mean squares (MSSP, arXiv:2605.14200, and microsoft/mup's coord_check):
///   activation    what enters the residual stream or the loss, multipliers included
///   effective     what a matrix has learnt, (W_t - W_0) x_t, in the units in which its product is added
///   propagating   what the layers before it have learnt, W_0 (x_t - x_0), in the same units
///   entropy       of the gates over a token's active experts, over ln a
class Recorder {
 public:
  using Key = std::pair<std::string, std::string>;  // layer, quantity

  void activation(const char* layer, const at::Tensor& x, double multiplier);
  /// y = multiplier * x W, in block `block` (0 where there is one of its kind).
  void product(const char* layer, std::size_t block, const at::Tensor& x_KRI, const at::Tensor& weight_KIO,
               double multiplier);
  /// The routed experts of one block: "expert_up" by the rows that the experts got, "expert_down" as the sum
  /// over a token's experts that enters the stream.
  void experts(std::size_t block, const at::Tensor& x_KRD, const MoeWeights& weights, const ops::Dispatch& plan,
               const at::Tensor& gates_KRA, double multiplier);

  /// Ends a pass: what it recorded, in the order of the keys.
  std::map<Key, double> end_pass();

 private:
  struct MeanSquare {
    double sum = 0;
    int count = 0;
  };
  struct Reference {
    at::Tensor x, weight;
  };
  void add(const char* layer, const char* quantity, const at::Tensor& values, double multiplier);

  bool first_pass_ = true;
  std::map<Key, MeanSquare> pass_;
  std::map<std::pair<std::string, std::size_t>, Reference> reference_;
};

}  // namespace models
