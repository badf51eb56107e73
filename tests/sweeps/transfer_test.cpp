#include "sweeps/transfer.h"

#include <algorithm>
#include <stdexcept>

#include "tests/support/catch.h"

using namespace sweeps;
using models::TensorGroup;

namespace {

/// The worked example of Complete-muE: proxy d = 128 and 25k steps; target d = 1024, 128e8a1s, 100k steps.
models::RunShape proxy() {
  models::RunShape run;
  run.shape = {.width = 128, .depth = 4, .head_size = 32, .ffn_width = 128};
  run.steps = 25000;
  return run;
}
models::RunShape target() {
  models::RunShape run = proxy();
  run.shape.width = 1024;
  run.shape.num_experts = 128;
  run.shape.num_active = 8;
  run.shape.num_shared = 1;
  run.shape.expert_width = 1024;
  run.steps = 100000;
  return run;
}
const Hyperparameters kLanguageModel{.lr = 1e-3, .wd = 0.10, .init_std = 0.01};

const TransferRow& row(const TargetConfig& config, TensorGroup group) {
  const auto found = std::find_if(config.rows.begin(), config.rows.end(),
                                  [&](const auto& candidate) { return candidate.group == group; });
  REQUIRE(found != config.rows.end());
  return *found;
}

}  // namespace

TEST_CASE("the worked example's values come out of the transfer", "[sweeps][transfer]") {
  const auto config = transfer("big", target(), proxy(), kLanguageModel,
                               {.head = models::HeadRule::published});
  CHECK(config.target == "big");
  CHECK(config.moe == "128e8a1s");
  CHECK(config.base == kLanguageModel);
  CHECK(config.route_scale == 8);
  CHECK_THAT(config.branch_scale, WithinRel(1.0 / 9, 1e-12));

  const auto& down = row(config, TensorGroup::expert_down);
  CHECK_THAT(down.init_std, WithinRel(0.0106066, 1e-5));
  CHECK_THAT(down.lr, WithinRel(6.25e-5, 1e-12));
  CHECK_THAT(row(config, TensorGroup::shared_down).init_std, WithinRel(0.0106066, 1e-5));
  CHECK_THAT(row(config, TensorGroup::router).init_std, WithinRel(0.00353553, 1e-5));
  CHECK_THAT(row(config, TensorGroup::head).factor.forward, WithinRel(0.125, 1e-12));

  const auto& embedding = row(config, TensorGroup::embedding);
  CHECK_THAT(embedding.lr, WithinRel(5e-4, 1e-12));
  CHECK_THAT(embedding.wd, WithinRel(0.05, 1e-12));
  CHECK_THAT(embedding.beta1, WithinRel(0.975, 1e-12));
  CHECK_THAT(embedding.beta2, WithinRel(0.9875, 1e-12));
  CHECK_FALSE(row(config, TensorGroup::norm).decays);
}

TEST_CASE("a table has a row for each group that the target has, in the order of the rule table",
          "[sweeps][transfer]") {
  const auto groups = [](const TargetConfig& config) {
    std::vector<TensorGroup> result;
    for (const auto& entry : config.rows) result.push_back(entry.group);
    return result;
  };
  CHECK(groups(transfer("dense", proxy(), proxy(), {}, {})) ==
        std::vector{TensorGroup::embedding, TensorGroup::attention, TensorGroup::norm, TensorGroup::ffn_up,
                    TensorGroup::ffn_down, TensorGroup::final_norm, TensorGroup::head});
  auto routed_only = target();
  routed_only.shape.num_shared = 0;
  CHECK(groups(transfer("moe", routed_only, proxy(), {}, {})) ==
        std::vector{TensorGroup::embedding, TensorGroup::attention, TensorGroup::norm, TensorGroup::router,
                    TensorGroup::expert_up, TensorGroup::expert_down, TensorGroup::final_norm,
                    TensorGroup::head});
}

TEST_CASE("the proxy itself gets its own values back to the last bit", "[sweeps][transfer]") {
  const auto config = transfer("same", proxy(), proxy(), kLanguageModel, {});
  for (const auto& entry : config.rows) {
    INFO(models::name(entry.group));
    CHECK(entry.lr == kLanguageModel.lr);
    CHECK(entry.wd == kLanguageModel.wd);
    CHECK(entry.init_std == kLanguageModel.init_std);
    CHECK(entry.eps == kLanguageModel.eps);
    CHECK(entry.beta1 == kLanguageModel.beta1);
    CHECK(entry.beta2 == kLanguageModel.beta2);
  }
  CHECK(config.branch_scale == 1);
  CHECK(config.route_scale == 1);
  CHECK(config.sigma0_ratio == 1);
}

TEST_CASE("a target so short that 1-beta would pass 1 is refused", "[sweeps][transfer]") {
  auto shorter = proxy();
  shorter.steps = proxy().steps / 16;
  shorter.batch = proxy().batch * 16;
  CHECK_THROWS_WITH(transfer("short", shorter, proxy(), {}, {}), ContainsSubstring("beta1"));
}

TEST_CASE("under SP a target keeps the proxy's values", "[sweeps][transfer]") {
  const auto config =
      transfer("big", target(), proxy(), kLanguageModel, {.rule = models::Parameterization::sp});
  for (const auto& entry : config.rows) CHECK(entry.lr == kLanguageModel.lr);
  CHECK(config.route_scale == 1);
  CHECK(config.branch_scale == 1);
}
