#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/parameterization.h"

namespace models {

/// Axes: K slots (trials side by side), B sequences or images, T tokens, V vocabulary, C channels, S image
/// size.

/// One parameter of all slots.
struct Parameter {
  TensorSpec spec;
  at::Tensor value;  // [K, dims...], float32 leaf that requires a gradient
};
/// State that is trained by no gradient: the balancing bias of a MoE block, [K, N] float32.
struct Buffer {
  std::string name;
  at::Tensor value;
};

/// What one loss() sees, for all slots, on the model's device: tokens for a language model; images, noise and
/// times for a diffusion model.
struct Batch {
  Batch(at::Tensor tokens) : tokens_KBT(std::move(tokens)) {}
  Batch(at::Tensor images, at::Tensor noise, at::Tensor times)
      : images_KBCSS(std::move(images)), noise_KBCSS(std::move(noise)), times_KB(std::move(times)) {}

  at::Tensor tokens_KBT;    // [K, B, T+1] int64: inputs are the first T, targets the last T
  at::Tensor images_KBCSS;  // [K, B, C, S, S] float32, pixels in about [-1, 1]
  at::Tensor noise_KBCSS;   // the same shape
  at::Tensor times_KB;      // [K, B] float32 in (0, 1)
};

/// How several slots are worked on. together: one call for all (batched products, what CUDA wants).
/// one_by_one: each slot runs through the kernels of K = 1, which keeps its activations in cache and its bits
/// those of a solo run (what a CPU wants). automatic: by device.
enum class SlotOrder { automatic, together, one_by_one };

struct ModelOptions {
  RunShape run;
  RunShape proxy;
  RuleOptions rule;
  std::int64_t slots = 1;  // K
  at::Device device = at::kCPU;
  bool bfloat16 = false;        // activations and matrix products; master weights stay float32
  bool balance_by_bias = true;  // DeepSeek-V3 style: the bias picks experts, the gates do not see it
  double balance_rate = 1e-3;
  SlotOrder slot_order = SlotOrder::automatic;
};

class Recorder;

/// K models of one shape that train together. Slot k never sees slot j: on a CPU its numbers are, bit for
/// bit, those of a model with K = 1 (unless slots run together).
class Model {
 public:
  virtual ~Model() = default;

  std::vector<Parameter>& parameters() { return parameters_; }
  std::vector<Buffer>& buffers() { return buffers_; }
  const ModelOptions& options() const { return options_; }

  /// Fills slot k's weights: normal, std = init_std * group_scaling().init_std, norm gains 1, modulations and
  /// buffers 0.
  /// Experts that start alike (experts_start_alike) are one draw.
  /// The generator is keyed by (seed, tensor name): independent of K, of k and of the device.
  void initialise(std::int64_t slot, std::uint64_t seed, double init_std);

  /// Mean loss of each slot, [K] float32, with a graph unless gradients are off: of the next token in nats,
  /// or of a velocity as squared error per pixel. Throws std::invalid_argument for a batch of another family
  /// or shape, or for T above the context.
  virtual at::Tensor loss(const Batch& batch) = 0;

  /// Who watches the forward passes from here on; null: nobody. The recorder outlives its watch. REQUIRES: K = 1.
  void record_to(Recorder* recorder) { recorder_ = recorder; }

  /// After an optimizer step: moves the balancing bias by the expert load of the last loss() with a graph.
  /// Slots with active[k] == false are left alone.
  virtual void update_balance(const std::vector<bool>& active) = 0;

  /// Share of the tokens of the busiest expert times N / a, worst block, per slot; empty for a dense model.
  virtual std::vector<double> load_imbalance() const = 0;

 protected:
  explicit Model(const ModelOptions& options);

  ModelOptions options_;
  Recorder* recorder_ = nullptr;
  std::vector<Parameter> parameters_;
  std::vector<Buffer> buffers_;
};

/// The one list of model families. Throws std::invalid_argument for a shape that validate() refuses,
/// and on CUDA for a MoE whose width or expert width is no multiple of 8 (bfloat16) or 4 (float32), or with
/// more than 1023 experts.
std::unique_ptr<Model> make_model(const ModelOptions& options);

}  // namespace models
