#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace models {

enum class ModelFamily {
  language_model,
  diffusion_model,
  command,  // trained by the user's own program; counted and scaled as a language model
};
std::string_view name(ModelFamily family);

/// Rows of the rule table: tensors that one rule treats alike. `models/README.md` shows the table.
enum class TensorGroup {
  embedding,
  attention,  // Q, K, V, O
  norm,       // gains inside the blocks
  ffn_up,     // dense gate and up
  ffn_down,   // dense down
  router,
  expert_up,  // routed gate and up
  expert_down,
  shared_up,  // shared gate and up
  shared_down,
  final_norm,
  head,
  modulation,  // diffusion: time features to shift, scale and gate (adaLN-zero); start at zero
};
std::string_view name(TensorGroup group);

/// The shape of one model; plain data, no tensors.
/// Dense: `num_experts == 0`, hidden width `ffn_width`. MoE: `num_experts` routed experts of hidden width
/// `expert_width`, `num_active` of them per token, plus `num_shared` experts that see every token.
struct ModelShape {
  ModelFamily family = ModelFamily::language_model;
  std::int64_t width = 128;  // d, residual width
  std::int64_t depth = 4;    // L, blocks
  std::int64_t head_size = 32;
  std::int64_t context = 128;     // tokens in a sequence; of a diffusion model, the patches of an image
  std::int64_t vocab = 256;       // of a language model
  std::int64_t ffn_width = 128;   // H of a dense FFN; unused by a MoE
  std::int64_t num_experts = 0;   // N
  std::int64_t num_active = 0;    // a
  std::int64_t num_shared = 0;    // s
  std::int64_t num_groups = 1;    // g; a/g experts are chosen in each group of N/g
  std::int64_t expert_width = 0;  // h
  std::int64_t image_size = 0;    // S of a diffusion model's images, [channels, S, S]
  std::int64_t channels = 0;
  std::int64_t patch = 0;  // side of the squares that are a diffusion model's tokens

  bool is_diffusion() const { return family == ModelFamily::diffusion_model; }
  std::int64_t patch_pixels() const { return channels * patch * patch; }
  bool is_moe() const { return num_experts > 0; }
  std::int64_t num_heads() const { return width / head_size; }
  bool operator==(const ModelShape&) const = default;
};

/// Throws std::invalid_argument with what is wrong and what would work: sizes below one, a head size that
/// does not divide the width or is odd (rotary embedding), a > N, groups that do not divide N and a; of a
/// diffusion model, a patch that does not divide the image, a context that is not the number of patches, a
/// width that is no multiple of 4 (two-dimensional sine and cosine positions).
void validate(const ModelShape& shape);

/// H_act, the hidden width one token goes through: `ffn_width`, or (a + s) * h.
std::int64_t active_width(const ModelShape& shape);

/// The name code of a MoE: 128e8a4g1s = 128 routed experts, 8 active, 4 groups, 1 shared.
struct MoeCode {
  std::int64_t num_experts = 0;
  std::int64_t num_active = 0;
  std::int64_t num_groups = 1;
  std::int64_t num_shared = 0;
};
/// Throws std::invalid_argument; `e` and `a` are required, `g` and `s` optional, in any order after `e`.
MoeCode parse_moe_code(std::string_view code);
/// "dense" or the name code.
std::string moe_code(const ModelShape& shape);

/// Sines and cosines of a diffusion model's time.
inline constexpr std::int64_t kTimeFeatures = 32;

/// One parameter tensor, without the slot axis.
struct TensorSpec {
  std::string name;  // "blocks.0.attention.qkv"
  TensorGroup group;
  std::vector<std::int64_t> dims;  // matrices are [in, out]; experts [N, in, out]

  std::int64_t numel() const;
};
/// Every parameter of the model in the order it is stored. Planner, initialiser and optimizer all read this.
std::vector<TensorSpec> tensor_specs(const ModelShape& shape);

struct ParameterCount {
  std::int64_t total = 0;
  std::int64_t active = 0;  // what one token touches: all but the inactive experts
};
ParameterCount count_parameters(const ModelShape& shape);

/// Training FLOPs per token (patch): 6 * active matrix parameters (head and router in, a language model's
/// embedding out, a diffusion model's modulations once an image) + 6 * L * T * d for causal attention, twice
/// that for a diffusion model's.
double training_flops_per_token(const ModelShape& shape);

}  // namespace models
