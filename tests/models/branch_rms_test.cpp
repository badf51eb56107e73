// What each branch adds to the residual stream at initialisation must not move along any axis of the rule:
// unit-RMS inputs, the proxy's init std 0.0884 = 128^-1/2 (fan-in), tolerance 8 % against the dense proxy.

#include <cmath>
#include <map>

#include "models/attention.h"
#include "models/ffn.h"
#include "models/model.h"
#include "models/moe.h"
#include "tests/models/tiny.h"
#include "tests/support/catch.h"

using namespace models;

namespace {

constexpr double kTolerance = 0.08, kProxyStd = 0.0884;
constexpr std::int64_t kRows = 256, kContext = 64;

/// Both families: the blocks are the same but for the attention's direction.
ModelShape for_images(ModelShape shape) {
  shape.family = ModelFamily::diffusion_model;
  shape.image_size = 16;
  shape.channels = 1;
  shape.patch = 2;
  return shape;
}

ModelShape dense_shape(std::int64_t width, std::int64_t ffn_width) {
  ModelShape shape;
  shape.width = width;
  shape.ffn_width = ffn_width;
  shape.depth = 1;
  shape.context = kContext;
  return shape;
}

ModelShape moe_shape(const std::string& text, std::int64_t width, std::int64_t expert_width) {
  ModelShape shape = dense_shape(width, width);
  const auto code = parse_moe_code(text);
  shape.num_experts = code.num_experts;
  shape.num_active = code.num_active;
  shape.num_groups = code.num_groups;
  shape.num_shared = code.num_shared;
  shape.expert_width = expert_width;
  return shape;
}

double rms(const at::Tensor& x) { return std::sqrt(x.square().mean().item<double>()); }

struct BranchRms {
  double attention = 0, ffn = 0;
};

/// RMS of both branches of a fresh model's block, multipliers included, averaged over seeds.
BranchRms branch_rms(const ModelShape& shape, const RuleOptions& rule = {}) {
  at::set_num_threads(1);
  const at::NoGradGuard no_grad;
  ModelOptions options;
  options.run.shape = shape;
  options.proxy.shape = dense_shape(128, 128);
  if (shape.is_diffusion()) options.proxy.shape = for_images(options.proxy.shape);
  options.rule = rule;
  const auto forward = [&](TensorGroup group) {
    return group_scaling(group, options.run, options.proxy, options.rule).forward;
  };
  const auto model = make_model(options);
  std::map<std::string, at::Tensor> weights;
  for (const auto& [spec, value] : model->parameters()) weights[spec.name] = value;
  const auto weight = [&](const char* name) { return weights[std::string("blocks.0.") + name]; };
  const auto table = ops::rotary_table(kContext, shape.head_size, at::kCPU);

  constexpr int kSeeds = 2;
  BranchRms mean;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    model->initialise(0, seed, kProxyStd);
    at::Tensor x = at::randn({1, kRows, shape.width}, at::detail::createCPUGenerator(seed), at::kFloat);
    x = x / x.square().mean(-1, true).sqrt();
    const AttentionWeights attention_weights{weight("attention.qkv"), weight("attention.out")};
    const at::Tensor mixed = shape.is_diffusion()
                                 ? bidirectional_attention(x, attention_weights, kContext, shape.head_size)
                                 : attention(x, attention_weights, kContext, shape.head_size, table);
    mean.attention += rms(mixed) * forward(TensorGroup::attention) / kSeeds;
    if (!shape.is_moe()) {
      mean.ffn +=
          rms(ffn(x, weight("ffn.gate_up"), weight("ffn.down"))) * forward(TensorGroup::ffn_down) / kSeeds;
      continue;
    }
    const MoeWeights moe_weights{.router_KDN = weight("moe.router"),
                                 .expert_gate_up_KNDH = weight("moe.expert_gate_up"),
                                 .expert_down_KNHD = weight("moe.expert_down"),
                                 .shared_gate_up_KDH = weight("moe.shared_gate_up"),
                                 .shared_down_KHD = weight("moe.shared_down"),
                                 .bias_KN = at::zeros({1, shape.num_experts})};
    const MoeScales scales{.routed = forward(TensorGroup::expert_down) * route_scale(shape, options.rule),
                           .shared = forward(TensorGroup::shared_down)};
    mean.ffn += rms(moe(x, moe_weights, shape, scales).y_KRD) / kSeeds;
  }
  return mean;
}

}  // namespace

TEST_CASE("the proxy's FFN branch has the RMS of the published simulation", "[models][init]") {
  CHECK_THAT(branch_rms(dense_shape(128, 128)).ffn, WithinRel(0.615, kTolerance));
}

TEST_CASE("branch RMS at initialisation does not move along width, experts, granularity or sharing",
          "[models][init][slow]") {
  const auto family = GENERATE(ModelFamily::language_model, ModelFamily::diffusion_model);
  const auto of_family = [&](const ModelShape& shape) {
    return family == ModelFamily::diffusion_model ? for_images(shape) : shape;
  };
  const BranchRms proxy = branch_rms(of_family(dense_shape(128, 128)));
  const auto check = [&](const char* what, const ModelShape& shape) {
    const BranchRms here = branch_rms(of_family(shape));
    INFO(name(family) << ", " << what << ": attention " << here.attention << " against " << proxy.attention
                      << ", FFN " << here.ffn << " against " << proxy.ffn);
    CHECK_THAT(here.attention, WithinRel(proxy.attention, kTolerance));
    CHECK_THAT(here.ffn, WithinRel(proxy.ffn, kTolerance));
  };
  check("expansion 4", dense_shape(128, 512));
  check("width 256", dense_shape(256, 256));
  check("width 512", dense_shape(512, 512));
  check("all of 16 experts", moe_shape("16e16a", 128, 128));
  check("4 of 16", moe_shape("16e4a", 128, 128));
  check("1 of 16", moe_shape("16e1a", 128, 128));
  check("8 of 128", moe_shape("128e8a", 128, 128));
  check("8 of 128 in 4 groups, one shared", moe_shape("128e8a4g1s", 128, 128));
  check("8 of 128, one shared", moe_shape("128e8a1s", 128, 128));
  check("granularity 8", moe_shape("128e64a", 128, 16));
  check("shared experts outweigh the routed", moe_shape("16e2a4s", 128, 64));
  check("wider, shared", moe_shape("8e2a1s", 256, 256));
}

TEST_CASE("under SP the FFN branch grows with the active experts", "[models][init]") {
  // The test above can fail: the standard parameterization has no multiplier to hold the branch.
  const RuleOptions sp{.rule = Parameterization::sp};
  const double proxy = branch_rms(dense_shape(128, 128), sp).ffn;
  CHECK(branch_rms(dense_shape(128, 512), sp).ffn > 1.7 * proxy);
  CHECK(branch_rms(dense_shape(256, 256), sp).ffn > 1.7 * proxy);
}
