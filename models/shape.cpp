#include "models/shape.h"

#include <cctype>
#include <charconv>
#include <functional>
#include <numeric>
#include <stdexcept>

namespace models {
namespace {

std::string text(std::int64_t value) { return std::to_string(value); }

void require_positive(std::int64_t value, const char* what) {
  if (value < 1) throw std::invalid_argument(std::string(what) + " must be at least 1, found " + text(value));
}

void validate_images(const ModelShape& shape) {
  require_positive(shape.image_size, "image_size");
  require_positive(shape.channels, "channels");
  require_positive(shape.patch, "patch");
  if (shape.image_size % shape.patch != 0)
    throw std::invalid_argument("patch " + text(shape.patch) + " does not divide the image size " +
                                text(shape.image_size));
  const std::int64_t side = shape.image_size / shape.patch;
  if (shape.context != side * side)
    throw std::invalid_argument("context must be the " + text(side * side) + " patches of an image, found " +
                                text(shape.context));
  if (shape.width % 4 != 0)
    throw std::invalid_argument("width must be a multiple of 4 (two-dimensional positions), found " +
                                text(shape.width));
}

}  // namespace

std::string_view name(ModelFamily family) {
  switch (family) {
    case ModelFamily::language_model: return "language_model";
    case ModelFamily::diffusion_model: return "diffusion_model";
    case ModelFamily::command: return "command";
  }
  throw std::logic_error("name: unknown ModelFamily");
}

std::string_view name(TensorGroup group) {
  switch (group) {
    case TensorGroup::embedding: return "embedding";
    case TensorGroup::attention: return "attention";
    case TensorGroup::norm: return "norm";
    case TensorGroup::ffn_up: return "ffn_up";
    case TensorGroup::ffn_down: return "ffn_down";
    case TensorGroup::router: return "router";
    case TensorGroup::expert_up: return "expert_up";
    case TensorGroup::expert_down: return "expert_down";
    case TensorGroup::shared_up: return "shared_up";
    case TensorGroup::shared_down: return "shared_down";
    case TensorGroup::final_norm: return "final_norm";
    case TensorGroup::head: return "head";
    case TensorGroup::modulation: return "modulation";
  }
  throw std::logic_error("name: unknown TensorGroup");
}

void validate(const ModelShape& shape) {
  require_positive(shape.width, "width");
  require_positive(shape.depth, "depth");
  require_positive(shape.head_size, "head_size");
  require_positive(shape.context, "context");
  if (shape.is_diffusion()) validate_images(shape);
  if (!shape.is_diffusion() && shape.vocab < 2)
    throw std::invalid_argument("vocab must be at least 2, found " + text(shape.vocab));
  if (shape.width % shape.head_size != 0)
    throw std::invalid_argument("head_size " + text(shape.head_size) + " does not divide width " +
                                text(shape.width));
  if (shape.head_size % 2 != 0 && shape.family != ModelFamily::command)
    throw std::invalid_argument("head_size must be even (rotary embedding turns pairs), found " +
                                text(shape.head_size));
  if (!shape.is_moe()) {
    if (shape.num_active != 0 || shape.num_shared != 0 || shape.num_groups != 1)
      throw std::invalid_argument("active, shared and groups need experts; give at least one expert");
    require_positive(shape.ffn_width, "FFN hidden width");
    return;
  }
  require_positive(shape.expert_width, "expert_width");
  require_positive(shape.num_active, "active experts");
  require_positive(shape.num_groups, "groups");
  if (shape.num_shared < 0)
    throw std::invalid_argument("shared experts must be 0 or more, found " + text(shape.num_shared));
  if (shape.num_active > shape.num_experts)
    throw std::invalid_argument(text(shape.num_active) + " active experts of only " +
                                text(shape.num_experts) + "; active must not exceed the routed experts");
  if (shape.num_experts % shape.num_groups != 0 || shape.num_active % shape.num_groups != 0)
    throw std::invalid_argument(text(shape.num_groups) + " groups do not divide " + text(shape.num_experts) +
                                " experts and " + text(shape.num_active) + " active evenly");
}

std::int64_t active_width(const ModelShape& shape) {
  return shape.is_moe() ? (shape.num_active + shape.num_shared) * shape.expert_width : shape.ffn_width;
}

MoeCode parse_moe_code(std::string_view code) {
  const auto refuse = [&](const std::string& why) {
    return std::invalid_argument(
        "moe code \"" + std::string(code) + "\": " + why +
        "; write for example 128e8a1s (128 experts, 8 active, 1 shared) or 128e8a4g");
  };
  MoeCode result;
  bool seen_experts = false, seen_active = false, seen_groups = false, seen_shared = false;
  std::string_view rest = code;
  while (!rest.empty()) {
    std::int64_t count = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), count);
    if (error != std::errc{} || end == rest.data() + rest.size())
      throw refuse("expected a number and a letter");
    const char letter = *end;
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()) + 1);
    const auto set = [&](bool& seen, std::int64_t& field) {
      if (seen) throw refuse(std::string("'") + letter + "' appears twice");
      seen = true;
      field = count;
    };
    switch (letter) {
      case 'e': set(seen_experts, result.num_experts); break;
      case 'a': set(seen_active, result.num_active); break;
      case 'g': set(seen_groups, result.num_groups); break;
      case 's': set(seen_shared, result.num_shared); break;
      default: throw refuse(std::string("unknown letter '") + letter + "'");
    }
  }
  if (!seen_experts || !seen_active) throw refuse("both 'e' and 'a' are needed");
  if (result.num_experts < 1) throw refuse("at least one expert is needed");
  return result;
}

std::string moe_code(const ModelShape& shape) {
  if (!shape.is_moe()) return "dense";
  std::string code = text(shape.num_experts) + "e" + text(shape.num_active) + "a";
  if (shape.num_groups > 1) code += text(shape.num_groups) + "g";
  if (shape.num_shared > 0) code += text(shape.num_shared) + "s";
  return code;
}

std::int64_t TensorSpec::numel() const {
  return std::accumulate(dims.begin(), dims.end(), std::int64_t{1}, std::multiplies<>());
}

std::vector<TensorSpec> tensor_specs(const ModelShape& shape) {
  const auto d = shape.width;
  std::vector<TensorSpec> specs;
  const bool diffusion = shape.is_diffusion();
  specs.push_back({"embedding", TensorGroup::embedding, {diffusion ? shape.patch_pixels() : shape.vocab, d}});
  if (diffusion) specs.push_back({"time", TensorGroup::embedding, {kTimeFeatures, d}});
  for (std::int64_t layer = 0; layer < shape.depth; ++layer) {
    const std::string block = "blocks." + text(layer) + ".";
    if (diffusion) specs.push_back({block + "modulation", TensorGroup::modulation, {d, 6 * d}});
    specs.push_back({block + "attention.norm", TensorGroup::norm, {d}});
    specs.push_back({block + "attention.qkv", TensorGroup::attention, {d, 3 * d}});
    specs.push_back({block + "attention.out", TensorGroup::attention, {d, d}});
    specs.push_back({block + "ffn.norm", TensorGroup::norm, {d}});
    if (!shape.is_moe()) {
      specs.push_back({block + "ffn.gate_up", TensorGroup::ffn_up, {d, 2 * shape.ffn_width}});
      specs.push_back({block + "ffn.down", TensorGroup::ffn_down, {shape.ffn_width, d}});
      continue;
    }
    const auto N = shape.num_experts;
    const auto h = shape.expert_width;
    specs.push_back({block + "moe.router", TensorGroup::router, {d, N}});
    specs.push_back({block + "moe.expert_gate_up", TensorGroup::expert_up, {N, d, 2 * h}});
    specs.push_back({block + "moe.expert_down", TensorGroup::expert_down, {N, h, d}});
    if (shape.num_shared > 0) {
      // Shared experts side by side are one FFN of width s*h: the sum over them is its matrix product.
      const auto width = shape.num_shared * h;
      specs.push_back({block + "moe.shared_gate_up", TensorGroup::shared_up, {d, 2 * width}});
      specs.push_back({block + "moe.shared_down", TensorGroup::shared_down, {width, d}});
    }
  }
  specs.push_back({"final_norm", TensorGroup::final_norm, {d}});
  if (diffusion) specs.push_back({"final_modulation", TensorGroup::modulation, {d, 2 * d}});
  specs.push_back({"head", TensorGroup::head, {d, diffusion ? shape.patch_pixels() : shape.vocab}});
  return specs;
}

ParameterCount count_parameters(const ModelShape& shape) {
  ParameterCount count;
  for (const auto& spec : tensor_specs(shape)) {
    const bool routed = spec.group == TensorGroup::expert_up || spec.group == TensorGroup::expert_down;
    count.total += spec.numel();
    count.active += routed ? spec.numel() / shape.num_experts * shape.num_active : spec.numel();
  }
  return count;
}

double training_flops_per_token(const ModelShape& shape) {
  double matrix_parameters = 0;
  for (const auto& spec : tensor_specs(shape)) {
    switch (spec.group) {
      case TensorGroup::embedding:
        if (spec.name == "embedding" && shape.is_diffusion())  // a matrix product, not a row picked
          matrix_parameters += static_cast<double>(spec.numel());
        break;
      case TensorGroup::modulation:  // once an image; so the time features, which are next to nothing
        matrix_parameters += static_cast<double>(spec.numel()) / static_cast<double>(shape.context);
        break;
      case TensorGroup::norm:
      case TensorGroup::final_norm: break;
      case TensorGroup::expert_up:
      case TensorGroup::expert_down: {
        const std::int64_t of_an_expert = spec.numel() / shape.num_experts;
        matrix_parameters += static_cast<double>(of_an_expert * shape.num_active);
        break;
      }
      default: matrix_parameters += static_cast<double>(spec.numel());
    }
  }
  const auto attention = static_cast<double>(shape.depth * shape.context * shape.width);
  return 6 * matrix_parameters + (shape.is_diffusion() ? 12 : 6) * attention;
}

}  // namespace models
