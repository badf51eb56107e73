#pragma once

#include <cmath>
#include <string>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include "models/model.h"

/// Tiny models and token batches for the tests of the models room.
namespace tiny {

/// d = 32, two blocks, two heads.
inline models::ModelShape dense() {
  models::ModelShape shape;
  shape.width = 32;
  shape.depth = 2;
  shape.head_size = 16;
  shape.context = 12;
  shape.vocab = 40;
  shape.ffn_width = 48;
  return shape;
}

/// The same with a MoE from a name code: moe("8e4a2g1s").
inline models::ModelShape moe(const std::string& code, std::int64_t expert_width = 16) {
  const auto parsed = models::parse_moe_code(code);
  models::ModelShape shape = dense();
  shape.num_experts = parsed.num_experts;
  shape.num_active = parsed.num_active;
  shape.num_groups = parsed.num_groups;
  shape.num_shared = parsed.num_shared;
  shape.expert_width = expert_width;
  return shape;
}

/// A diffusion model of the shape's blocks, for images of two channels and 6 x 6 pixels in nine patches.
inline models::ModelShape diffusion(models::ModelShape shape = dense()) {
  shape.family = models::ModelFamily::diffusion_model;
  shape.image_size = 6;
  shape.channels = 2;
  shape.patch = 2;
  shape.context = 9;
  return shape;
}

/// Options under Complete-muE with dense() of the same family as the proxy.
inline models::ModelOptions options(const models::ModelShape& shape, std::int64_t slots = 1) {
  at::set_num_threads(1);
  models::ModelOptions options;
  options.run.shape = shape;
  options.proxy.shape = shape.is_diffusion() ? diffusion() : dense();
  options.slots = slots;
  return options;
}

/// Random tokens [slots, sequences, context + 1].
inline at::Tensor tokens(const models::ModelShape& shape, std::int64_t slots, std::int64_t sequences,
                         std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randint(0, shape.vocab, {slots, sequences, shape.context + 1}, generator, at::kLong);
}

/// Random images, noise and times [slots, images].
inline models::Batch images(const models::ModelShape& shape, std::int64_t slots, std::int64_t count,
                            std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  const std::vector<std::int64_t> sizes{slots, count, shape.channels, shape.image_size, shape.image_size};
  const at::Tensor clean = at::randn(sizes, generator, at::kFloat).mul(0.5);
  const at::Tensor noise = at::randn(sizes, generator, at::kFloat);
  return {clean, noise, at::rand({slots, count}, generator, at::kFloat)};
}

/// Slots first .. first + n - 1 of such a batch.
inline models::Batch narrowed(const models::Batch& batch, std::int64_t first, std::int64_t n) {
  return {batch.images_KBCSS.narrow(0, first, n), batch.noise_KBCSS.narrow(0, first, n),
          batch.times_KB.narrow(0, first, n)};
}

/// Largest difference, relative to the largest reference value.
inline double relative_error(const at::Tensor& value, const at::Tensor& reference) {
  const at::Tensor wide = reference.to(at::kDouble);
  return ((value.to(at::kDouble) - wide).abs().max() / wide.abs().max().clamp_min(1e-300)).item<double>();
}

}  // namespace tiny
