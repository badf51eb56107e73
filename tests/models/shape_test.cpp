#include "models/shape.h"

#include <stdexcept>

#include "tests/support/catch.h"

using namespace models;

namespace {

ModelShape moe(std::int64_t experts, std::int64_t active, std::int64_t shared = 0, std::int64_t groups = 1) {
  ModelShape shape;
  shape.num_experts = experts;
  shape.num_active = active;
  shape.num_shared = shared;
  shape.num_groups = groups;
  shape.expert_width = 128;
  return shape;
}

}  // namespace

TEST_CASE("a MoE's name code reads back", "[models][shape]") {
  const auto code = parse_moe_code("128e8a4g1s");
  CHECK(code.num_experts == 128);
  CHECK(code.num_active == 8);
  CHECK(code.num_groups == 4);
  CHECK(code.num_shared == 1);
  CHECK(moe_code(moe(128, 8, 1, 4)) == "128e8a4g1s");
  CHECK(moe_code(ModelShape{}) == "dense");
}

TEST_CASE("a name code that is no code is refused with an example", "[models][shape]") {
  for (const char* code : {"", "8", "8e", "e2a", "8e2", "8e2a2a", "8e2a3x", "0e0a"}) {
    INFO(code);
    CHECK_THROWS_AS(parse_moe_code(code), std::invalid_argument);
  }
}

TEST_CASE("a shape with more active experts than experts is refused", "[models][shape]") {
  CHECK_THROWS_AS(validate(moe(4, 5)), std::invalid_argument);
  CHECK_NOTHROW(validate(moe(4, 4)));
}

TEST_CASE("groups must divide experts and active experts", "[models][shape]") {
  CHECK_THROWS_AS(validate(moe(16, 4, 0, 3)), std::invalid_argument);
  CHECK_THROWS_AS(validate(moe(16, 2, 0, 4)), std::invalid_argument);
  CHECK_NOTHROW(validate(moe(16, 4, 0, 4)));
}

TEST_CASE("an expert of width 0 is refused", "[models][shape]") {
  auto shape = moe(4, 2);
  shape.expert_width = 0;
  CHECK_THROWS_AS(validate(shape), std::invalid_argument);
}

TEST_CASE("the active width counts active and shared experts", "[models][shape]") {
  CHECK(active_width(moe(128, 8, 1)) == 9 * 128);
  CHECK(active_width(ModelShape{.ffn_width = 64}) == 64);
}

TEST_CASE("a diffusion model's patches must make up its images", "[models][shape]") {
  const ModelShape sound{.family = ModelFamily::diffusion_model,
                         .width = 64,
                         .context = 16,
                         .vocab = 0,
                         .image_size = 8,
                         .channels = 3,
                         .patch = 2};
  CHECK_NOTHROW(validate(sound));
  CHECK(sound.patch_pixels() == 12);
  const auto refused = [&](auto change) {
    ModelShape shape = sound;
    change(shape);
    CHECK_THROWS_AS(validate(shape), std::invalid_argument);
  };
  refused([](ModelShape& shape) { shape.patch = 3; });
  refused([](ModelShape& shape) { shape.context = 15; });
  refused([](ModelShape& shape) { shape.channels = 0; });
  refused([](ModelShape& shape) { shape.width = shape.head_size = 66; });

  const std::int64_t d = 64, blocks = 4 * (2 * d + 4 * d * d + 3 * d * 128 + 6 * d * d);
  CHECK(count_parameters(sound).total == 12 * d + kTimeFeatures * d + blocks + d + 2 * d * d + d * 12);
}

TEST_CASE("parameters are counted tensor by tensor", "[models][shape]") {
  ModelShape dense{.width = 128, .depth = 4, .vocab = 256, .ffn_width = 128};
  // embedding + head, per block: two norms, qkv + out, gate + up + down; final norm
  const std::int64_t expected = 2 * 256 * 128 + 4 * (2 * 128 + 4 * 128 * 128 + 3 * 128 * 128) + 128;
  CHECK(count_parameters(dense).total == expected);
  CHECK(count_parameters(dense).active == expected);

  const auto count = count_parameters(moe(16, 4, 1));
  CHECK(count.total - count.active == 4 * 12 * 3 * 128 * 128);
}
