#include "models/diffusion_model.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "models/attention.h"
#include "models/generator.h"
#include "models/ops/linear.h"
#include "models/ops/rms_norm.h"

// Axes: K slots, B images, T patches of an image, R = B*T, D width, P = C*patch*patch pixels of a patch.

namespace models {
namespace {

constexpr double kFastest = 100, kSlowest = 0.1;  // radians that a time feature turns by from t = 0 to 1

/// Positions of patches in rows of `side`: for each axis D/4 sines and cosines of place * 10000^(-i/(D/4)).
at::Tensor position_table(std::int64_t side, std::int64_t width, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const auto rates = width / 4;
  const at::Tensor rate = at::pow(10000.0, at::arange(rates, options).div(-static_cast<double>(rates)));
  const at::Tensor angle = at::outer(at::arange(side, options), rate);     // [side, D/4]
  const at::Tensor one_axis = at::cat({angle.sin(), angle.cos()}, 1);      // [side, D/2]
  const at::Tensor rows = one_axis.unsqueeze(1).expand({side, side, -1});  // of the row of a patch
  const at::Tensor columns = one_axis.unsqueeze(0).expand({side, side, -1});
  return at::cat({rows, columns}, 2).reshape({side * side, width}).to(device, at::kFloat);
}

at::Tensor time_rates(at::Device device) {
  constexpr std::int64_t kRates = kTimeFeatures / 2;
  const at::Tensor share = at::arange(kRates, at::TensorOptions().dtype(at::kDouble)).div(kRates - 1.0);
  return at::pow(kSlowest / kFastest, share).mul(kFastest).to(device, at::kFloat);
}

/// One branch's share of a modulation, each [K, B, 1, D].
struct Modulation {
  at::Tensor shift, scale, gate;
};
Modulation modulation_of(const at::Tensor& all_KBD, std::int64_t first, std::int64_t width) {
  const auto part = [&](std::int64_t i) {
    return all_KBD.narrow(2, (first + i) * width, width).unsqueeze(2);
  };
  return {part(0), part(1), (first + 3) * width <= all_KBD.size(2) ? part(2) : at::Tensor()};
}

}  // namespace

DiffusionModel::DiffusionModel(const ModelOptions& options)
    : BlockModel(options),
      positions_TD_(position_table(options_.run.shape.image_size / options_.run.shape.patch,
                                   options_.run.shape.width, options_.device)),
      rates_(time_rates(options_.device)) {
  modulations_ = {.time = index_of("time"), .final_modulation = index_of("final_modulation"), .blocks = {}};
  for (std::int64_t layer = 0; layer < options_.run.shape.depth; ++layer)
    modulations_.blocks.push_back(index_of("blocks." + std::to_string(layer) + ".modulation"));
}

at::Tensor DiffusionModel::to_patches(const at::Tensor& images) const {
  const auto& shape = options_.run.shape;
  const auto K = images.size(0), B = images.size(1), side = shape.image_size / shape.patch;
  return images.reshape({K, B, shape.channels, side, shape.patch, side, shape.patch})
      .permute({0, 1, 3, 5, 2, 4, 6})
      .reshape({K, B * shape.context, shape.patch_pixels()});
}

at::Tensor DiffusionModel::to_images(const at::Tensor& patches) const {
  const auto& shape = options_.run.shape;
  const auto K = patches.size(0), B = patches.size(1) / shape.context, side = shape.image_size / shape.patch;
  return patches.reshape({K, B, side, side, shape.channels, shape.patch, shape.patch})
      .permute({0, 1, 4, 2, 5, 3, 6})
      .reshape({K, B, shape.channels, shape.image_size, shape.image_size});
}

at::Tensor DiffusionModel::loss(const Batch& batch) {
  const auto& shape = options_.run.shape;
  const auto K = options_.slots;
  const at::Tensor& images = batch.images_KBCSS;
  const bool fits = images.defined() && images.dim() == 5 && images.size(0) == K &&
                    images.sizes() == at::IntArrayRef({K, images.size(1), shape.channels, shape.image_size,
                                                       shape.image_size}) &&
                    batch.noise_KBCSS.sizes() == images.sizes() &&
                    batch.times_KB.sizes() == at::IntArrayRef({K, images.size(1)});
  if (!fits)
    throw std::invalid_argument(
        "loss: images and noise must be [slots, images, channels, size, size], times [slots, images]");
  return for_slots(0, K, [&](const std::vector<at::Tensor>& weights, std::int64_t first, std::int64_t n) {
    const at::Tensor clean = images.narrow(0, first, n), noise = batch.noise_KBCSS.narrow(0, first, n);
    const at::Tensor times = batch.times_KB.narrow(0, first, n);
    const at::Tensor t = times.view({n, -1, 1, 1, 1});
    const at::Tensor mixed = (1 - t) * clean + t * noise;
    const at::Tensor found = slice_velocity(weights, to_patches(mixed), times, first);
    return (found - to_patches(noise - clean)).square().mean({1, 2});
  });
}

at::Tensor DiffusionModel::velocity(const at::Tensor& images, const at::Tensor& times, std::int64_t start) {
  return for_slots(start, images.size(0),
                   [&](const std::vector<at::Tensor>& weights, std::int64_t first, std::int64_t n) {
                     return to_images(slice_velocity(weights, to_patches(images.narrow(0, first - start, n)),
                                                     times.narrow(0, first - start, n), first));
                   });
}

at::Tensor DiffusionModel::slice_velocity(const std::vector<at::Tensor>& weights,
                                          const at::Tensor& patches_KRP, const at::Tensor& times_KB,
                                          std::int64_t first) {
  const auto& shape = options_.run.shape;
  const auto K = patches_KRP.size(0), R = patches_KRP.size(1), B = times_KB.size(1), T = shape.context,
             D = shape.width;

  // The residual stream and the modulations keep the weights' type; what enters a matrix product has the
  // product's.
  const auto kept = weights[embedding_].scalar_type();
  at::Tensor stream =
      ops::linear(patches_KRP.to(kept), weights[embedding_]).view({K, B, T, D}) + positions_TD_;
  stream = stream.view({K, R, D});
  const auto product = product_type(stream);
  const at::Tensor angle = times_KB.to(kept).unsqueeze(2) * rates_;
  const at::Tensor condition =
      at::silu(ops::linear(at::cat({angle.sin(), angle.cos()}, 2), weights[modulations_.time])).to(product);

  const auto modulation = [&](std::size_t matrix) {
    return ops::linear(condition, weights[matrix]).to(kept);
  };
  const auto modulated = [&](std::size_t gain, const Modulation& by) {
    const at::Tensor x = ops::rms_norm(stream, weights[gain], kept).view({K, B, T, D});
    return at::addcmul(by.shift, x, by.scale + 1).view({K, R, D}).to(product);
  };
  const auto take_in = [&](const at::Tensor& branch, const Modulation& by, double multiplier) {
    stream = at::addcmul(stream.view({K, B, T, D}), branch.to(kept).view({K, B, T, D}), by.gate, multiplier)
                 .view({K, R, D});
  };
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    const auto& block = blocks_[layer];
    const at::Tensor all = modulation(modulations_.blocks[layer]);
    const Modulation of_attention = modulation_of(all, 0, D), of_ffn = modulation_of(all, 3, D);
    const at::Tensor x = modulated(block.attention_norm, of_attention);
    take_in(bidirectional_attention(x, {weights[block.qkv], weights[block.out]}, T, shape.head_size),
            of_attention, multipliers_.attention);
    take_in(ffn_branch(weights, layer, modulated(block.ffn_norm, of_ffn), first), of_ffn, multipliers_.ffn);
  }
  const at::Tensor x = modulated(final_norm_, modulation_of(modulation(modulations_.final_modulation), 0, D));
  return ops::linear(x, weights[head_]).to(kept) * multipliers_.head;
}

at::Tensor DiffusionModel::sample(std::int64_t slot, std::int64_t count, std::int64_t steps,
                                  std::uint64_t seed) {
  if (slot < 0 || slot >= options_.slots || count < 1 || steps < 1)
    throw std::invalid_argument("sample: needs a slot of this model, at least one image and one step");
  const at::NoGradGuard no_grad;
  const auto& shape = options_.run.shape;
  const at::Tensor noise =
      at::empty({1, count, shape.channels, shape.image_size, shape.image_size}, at::kFloat);
  fill_normal({noise.mutable_data_ptr<float>(), static_cast<std::size_t>(noise.numel())},
              tensor_key(seed, "sample"), 1);
  at::Tensor x = noise.to(options_.device);
  const double step = 1.0 / static_cast<double>(steps);
  const auto velocity_at = [&](const at::Tensor& images, std::int64_t done) {
    const double t = static_cast<double>(steps - done) * step;
    return velocity(images, at::full({1, count}, t, images.options()), slot);
  };
  for (std::int64_t i = 0; i < steps; ++i) {
    const at::Tensor here = velocity_at(x, i);
    const at::Tensor there = velocity_at(x - here * step, i + 1);
    x = x - (here + there) * (step / 2);
  }
  return x[0].to(at::kCPU);
}

}  // namespace models
