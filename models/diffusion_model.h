#pragma once

#include "models/block_model.h"

namespace models {

/// Diffusion transformer (DiT, arXiv:2212.09748) that predicts the velocity of flow matching. Squares of
/// patch x patch pixels are the tokens: linear embedding plus fixed two-dimensional sine and cosine
/// positions; the blocks of the language model with attention in both directions and without rotary
/// positions, which know one direction only; final RMSNorm and linear head back to the pixels of a patch.
///
/// Conditioning on time is adaLN-zero: c = silu(features(t) W_time), features kTimeFeatures sines and cosines
/// of t; each block has (shift, scale, gate) twice = c W_modulation, and takes a branch in as
///   x + multiplier * gate * branch(rms_norm(x) * (1 + scale) + shift);
/// the final norm has a shift and a scale. Modulation matrices start at zero, so a fresh block is the
/// identity. The head starts like every other matrix, at init_std times its factor of the rule (the worked
/// example of Complete-muE gives it an init std, too), not at zero as in DiT. No tensor has a bias.
///
/// Every multiplier comes from group_scaling() and route_scale().
class DiffusionModel final : public BlockModel {
 public:
  explicit DiffusionModel(const ModelOptions& options);

  /// Mean squared error per pixel of the velocity, each slot's own: batch.images x_0, batch.noise eps, both
  /// [K, B, C, S, S], batch.times t [K, B], all float32: mean of (f(x_t, t) - (eps - x_0))^2 with
  /// x_t = (1 - t) x_0 + t eps.
  at::Tensor loss(const Batch& batch) override;

  /// f(x, t) of slots [first, first + n), n = images.size(0), [n, B, C, S, S] and [n, B] -> as images.
  at::Tensor velocity(const at::Tensor& images_KBCSS, const at::Tensor& times_KB, std::int64_t first = 0);

  /// `count` images of one slot, [count, C, S, S] float32 on the CPU: from noise at t = 1, drawn by `seed`,
  /// to t = 0 in `steps` equal steps of Heun's method (two velocities a step). Without a graph; the same bits
  /// each time on a CPU, and image i starts from the same noise whatever the count. Pixels are not clamped.
  at::Tensor sample(std::int64_t slot, std::int64_t count, std::int64_t steps, std::uint64_t seed);

 private:
  struct Modulations {
    std::size_t time, final_modulation;
    std::vector<std::size_t> blocks;
  };

  at::Tensor slice_velocity(const std::vector<at::Tensor>& weights, const at::Tensor& patches_KRP,
                            const at::Tensor& times_KB, std::int64_t first);
  at::Tensor to_patches(const at::Tensor& images_KBCSS) const;
  at::Tensor to_images(const at::Tensor& patches_KRP) const;

  Modulations modulations_;
  at::Tensor positions_TD_;  // float32
  at::Tensor rates_;         // [kTimeFeatures / 2] float32, radians per unit of t
};

}  // namespace models
