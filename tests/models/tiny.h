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

/// Options under Complete-muE with dense() as the proxy.
inline models::ModelOptions options(const models::ModelShape& shape, std::int64_t slots = 1) {
  at::set_num_threads(1);
  models::ModelOptions options;
  options.run.shape = shape;
  options.proxy.shape = dense();
  options.slots = slots;
  return options;
}

/// Random tokens [slots, sequences, context + 1].
inline at::Tensor tokens(const models::ModelShape& shape, std::int64_t slots, std::int64_t sequences,
                         std::uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randint(0, shape.vocab, {slots, sequences, shape.context + 1}, generator, at::kLong);
}

/// Largest difference, relative to the largest reference value.
inline double relative_error(const at::Tensor& value, const at::Tensor& reference) {
  const at::Tensor wide = reference.to(at::kDouble);
  return ((value.to(at::kDouble) - wide).abs().max() / wide.abs().max().clamp_min(1e-300)).item<double>();
}

}  // namespace tiny
