#include "models/parameterization.h"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "tests/support/catch.h"

using namespace models;

namespace {

RunShape dense(std::int64_t width = 128, std::int64_t depth = 4, double expansion = 1) {
  RunShape run;
  run.shape.width = width;
  run.shape.depth = depth;
  run.shape.ffn_width = static_cast<std::int64_t>(expansion * static_cast<double>(width));
  run.batch = 32;
  run.steps = 1000;
  return run;
}

RunShape moe(const char* code, std::int64_t expert_width, RunShape run = dense()) {
  const auto parsed = parse_moe_code(code);
  run.shape.num_experts = parsed.num_experts;
  run.shape.num_active = parsed.num_active;
  run.shape.num_groups = parsed.num_groups;
  run.shape.num_shared = parsed.num_shared;
  run.shape.expert_width = expert_width;
  return run;
}

const std::vector<TensorGroup> kAllGroups = {
    TensorGroup::embedding, TensorGroup::attention,   TensorGroup::norm,       TensorGroup::ffn_up,
    TensorGroup::ffn_down,  TensorGroup::router,      TensorGroup::expert_up,  TensorGroup::expert_down,
    TensorGroup::shared_up, TensorGroup::shared_down, TensorGroup::final_norm, TensorGroup::head,
    TensorGroup::modulation};

constexpr double kPrinted = 1e-5;  // the source prints six digits

/// The paper's worked example: d 128 -> 1024, dense -> 128e8a1s with H_act/d = 9, 25k -> 100k steps.
struct WorkedExample {
  RunShape proxy = dense(128, 32);
  RunShape target = moe("128e8a1s", 1024, dense(1024, 32));
  RuleOptions options{.head = HeadRule::published};
  WorkedExample() {
    proxy.steps = 25'000;
    target.steps = 100'000;
  }
  GroupScaling factor(TensorGroup group) const { return group_scaling(group, target, proxy, options); }
};

}  // namespace

TEST_CASE("the worked example gives the published language-model values", "[models][parameterization]") {
  const WorkedExample example;
  const double lr = 1e-3, std_dev = 0.01;
  for (const auto down : {TensorGroup::expert_down, TensorGroup::shared_down}) {
    const auto f = example.factor(down);
    CHECK_THAT(f.init_std, WithinAbs(1.06066, kPrinted));
    CHECK_THAT(f.init_std * std_dev, WithinAbs(0.0106066, 1e-7));
    CHECK_THAT(f.lr * lr, WithinAbs(6.25e-5, 1e-12));
    CHECK_THAT(f.forward, WithinAbs(0.111111, kPrinted));
  }
  for (const auto group :
       {TensorGroup::expert_up, TensorGroup::shared_up, TensorGroup::router, TensorGroup::attention}) {
    const auto f = example.factor(group);
    CHECK_THAT(f.init_std, WithinAbs(0.353553, kPrinted));
    CHECK_THAT(f.init_std * std_dev, WithinAbs(0.00353553, 1e-8));
    CHECK_THAT(f.lr * lr, WithinAbs(6.25e-5, 1e-12));
    CHECK(f.forward == 1);
  }
  const auto head = example.factor(TensorGroup::head);
  CHECK_THAT(head.init_std * std_dev, WithinAbs(0.00353553, 1e-8));
  CHECK_THAT(head.lr * lr, WithinAbs(6.25e-5, 1e-12));
  CHECK(head.forward == 0.125);
  for (const auto group : {TensorGroup::embedding, TensorGroup::final_norm}) {
    CHECK_THAT(example.factor(group).lr * lr, WithinAbs(5e-4, 1e-12));
    CHECK(example.factor(group).init_std * std_dev == 0.01);
    CHECK_THAT(example.factor(group).wd * 0.10, WithinAbs(0.05, 1e-12));
  }
  CHECK(route_scale(example.target.shape, example.options) == 8);
}

TEST_CASE("the worked example gives the published diffusion values", "[models][parameterization]") {
  const WorkedExample example;
  const double lr = 4.52e-3, wd = 0.02, std_dev = 0.02;
  CHECK_THAT(example.factor(TensorGroup::embedding).lr * lr, WithinAbs(2.26e-3, 1e-9));
  CHECK_THAT(example.factor(TensorGroup::embedding).wd * wd, WithinAbs(0.01, 1e-12));
  CHECK_THAT(example.factor(TensorGroup::expert_down).init_std * std_dev, WithinAbs(0.0212132, 1e-7));
  CHECK_THAT(example.factor(TensorGroup::expert_up).init_std * std_dev, WithinAbs(0.00707107, 1e-8));
  CHECK_THAT(example.factor(TensorGroup::expert_down).lr * lr, WithinAbs(2.825e-4, 1e-9));
  CHECK_THAT(example.factor(TensorGroup::attention).lr * lr, WithinAbs(2.825e-4, 1e-9));
  CHECK_THAT(example.factor(TensorGroup::head).lr * lr, WithinAbs(2.825e-4, 1e-9));
  CHECK_THAT(example.factor(TensorGroup::modulation).lr * lr, WithinAbs(2.825e-4, 1e-9));
}

TEST_CASE("a modulation is a hidden matrix under every rule", "[models][parameterization]") {
  const WorkedExample example;
  for (const auto rule : {Parameterization::sp, Parameterization::mup, Parameterization::complete_mue}) {
    RuleOptions options;
    options.rule = rule;
    const auto factor = [&](TensorGroup group) {
      return group_scaling(group, example.target, example.proxy, options);
    };
    const auto modulation = factor(TensorGroup::modulation), hidden = factor(TensorGroup::ffn_up);
    INFO(name(rule));
    CHECK(modulation.init_std == hidden.init_std);
    CHECK(modulation.lr == hidden.lr);
    CHECK(modulation.wd == hidden.wd);
    CHECK(modulation.eps == hidden.eps);
    CHECK(modulation.forward == 1);
  }
  CHECK(decays(TensorGroup::modulation));
}

TEST_CASE("four times the steps moves eps and beta in the worked example", "[models][parameterization]") {
  const WorkedExample example;
  const auto f = example.factor(TensorGroup::final_norm);
  CHECK_THAT(f.eps, WithinAbs(2, 1e-12));
  CHECK_THAT(scaled_beta(0.9, f.one_minus_beta, "beta1"), WithinAbs(0.975, 1e-12));
  CHECK_THAT(scaled_beta(0.95, f.one_minus_beta, "beta2"), WithinAbs(0.9875, 1e-12));
}

TEST_CASE("total decay over the run is the proxy's in the scaled mode, an eighth of it literally",
          "[models][parameterization]") {
  WorkedExample example;
  const auto total = [&] {
    const auto f = example.factor(TensorGroup::expert_up);
    return 100'000 * (f.lr * 1e-3) * (f.wd * 0.10);
  };
  CHECK_THAT(total(), WithinAbs(2.5, 1e-9));
  example.options.wd_width = WdWidth::literal;
  CHECK_THAT(total(), WithinAbs(0.3125, 1e-9));
}

TEST_CASE("fixed tokens: batch x4 doubles LR and WD and halves eps", "[models][parameterization]") {
  auto target = dense();
  target.batch *= 4;
  target.steps /= 4;
  const auto f = group_scaling(TensorGroup::attention, target, dense(), {});
  CHECK(f.lr == 2);
  CHECK(f.wd == 2);
  CHECK(f.eps == 0.5);
  CHECK_THAT(scaled_beta(0.9, f.one_minus_beta, "beta1"), WithinAbs(0.6, 1e-12));
  CHECK_THAT(scaled_beta(0.95, f.one_minus_beta, "beta2"), WithinAbs(0.8, 1e-12));
  CHECK_THAT(sigma0_ratio(target, dense(), {}), WithinAbs(1, 1e-12));
  const double horizon = 0.25 * f.lr * f.lr;  // T * eta^2
  CHECK(horizon == 1);
  CHECK(f.wd / f.lr == 1);         // lambda / eta
  CHECK(0.25 * f.lr * f.wd == 1);  // T * eta * lambda
}

TEST_CASE("fixed iterations: batch x4 changes nothing but sigma_0", "[models][parameterization]") {
  auto target = dense();
  target.batch *= 4;
  for (const auto group : kAllGroups) {
    const auto f = group_scaling(group, target, dense(), {});
    CHECK(f.lr == 1);
    CHECK(f.wd == 1);
    CHECK(f.eps == 1);
    CHECK(f.one_minus_beta == 1);
  }
  CHECK_THAT(sigma0_ratio(target, dense(), {}), WithinAbs(0.5, 1e-12));
}

TEST_CASE("fixed batch: steps x4 halves LR and WD and keeps the horizon", "[models][parameterization]") {
  auto target = dense();
  target.steps *= 4;
  const auto f = group_scaling(TensorGroup::ffn_up, target, dense(), {});
  CHECK(f.lr == 0.5);
  CHECK(f.wd == 0.5);
  CHECK(f.eps == 2);
  CHECK_THAT(scaled_beta(0.9, f.one_minus_beta, "beta1"), WithinAbs(0.975, 1e-12));
  CHECK(4 * f.lr * f.lr == 1);
  CHECK_THAT(sigma0_ratio(target, dense(), {}), WithinAbs(0.5, 1e-12));
}

TEST_CASE("a beta rule that would reach 1 is refused with both numbers", "[models][parameterization]") {
  auto target = dense();
  target.batch *= 16;
  target.steps = 1600 / 16;
  auto proxy = dense();
  proxy.steps = 1600;
  const auto f = group_scaling(TensorGroup::attention, target, proxy, {});
  CHECK_THROWS_WITH(scaled_beta(0.9, f.one_minus_beta, "beta1"),
                    ContainsSubstring("1.6") && ContainsSubstring("beta1"));
}

TEST_CASE("dense to 128 experts with 8 active raises sigma_0 four times", "[models][parameterization]") {
  CHECK_THAT(sigma0_ratio(moe("128e8a", 16), dense(), {}), WithinAbs(4, 1e-12));
}

TEST_CASE("capacity 8 to 256 at 8 active changes no factor", "[models][parameterization]") {
  const auto small = moe("8e8a", 128), large = moe("256e8a", 128);
  for (const auto group : kAllGroups) {
    const auto a = group_scaling(group, small, dense(), {}), b = group_scaling(group, large, dense(), {});
    CHECK(a.lr == b.lr);
    CHECK(a.wd == b.wd);
    CHECK(a.init_std == b.init_std);
    CHECK(a.forward == b.forward);
  }
  CHECK(route_scale(small.shape, {}) == route_scale(large.shape, {}));
  CHECK_THAT(sigma0_ratio(large, dense(), {}) / sigma0_ratio(small, dense(), {}),
             WithinAbs(5.65685, kPrinted));
}

TEST_CASE("16e4a with experts as wide as the model", "[models][parameterization]") {
  const auto target = moe("16e4a", 128);
  const auto f = group_scaling(TensorGroup::expert_down, target, dense(), {});
  CHECK(active_width(target.shape) == 4 * 128);
  CHECK(f.forward == 0.25);
  CHECK(route_scale(target.shape, {}) == 4);
  CHECK(f.init_std == 2);
}

TEST_CASE("finer granularity at equal active width changes the route scale alone",
          "[models][parameterization]") {
  const auto coarse = moe("16e4a", 128);
  for (const std::int64_t k : {2, 4, 8}) {
    const auto code = std::to_string(16 * k) + "e" + std::to_string(4 * k) + "a";
    const auto fine = moe(code.c_str(), 128 / k);
    for (const auto group : {TensorGroup::expert_up, TensorGroup::expert_down, TensorGroup::router}) {
      const auto a = group_scaling(group, coarse, dense(), {}), b = group_scaling(group, fine, dense(), {});
      CHECK(a.forward == b.forward);
      CHECK(a.init_std == b.init_std);
      CHECK(a.lr == b.lr);
    }
    CHECK(route_scale(fine.shape, {}) == static_cast<double>(4 * k));
  }
}

TEST_CASE("a target equal to the proxy has factors of exactly one under every rule",
          "[models][parameterization]") {
  for (const double expansion : {1.0, 2.0, 2.5}) {
    const auto proxy = dense(128, 4, expansion);
    for (const auto rule : all_rules())
      for (const auto head : {HeadRule::published, HeadRule::mup, HeadRule::complete_dp})
        for (const auto wd : {WdWidth::literal, WdWidth::scaled, WdWidth::independent})
          for (const auto group : kAllGroups) {
            const auto f = group_scaling(group, proxy, proxy, {.rule = rule, .wd_width = wd, .head = head});
            CHECK(f.init_std == 1);
            CHECK(f.lr == 1);
            CHECK(f.wd == 1);
            CHECK(f.eps == 1);
            CHECK(f.one_minus_beta == 1);
            CHECK(f.forward == 1);
            CHECK(scaled_beta(0.95, f.one_minus_beta, "beta2") == 0.95);
          }
  }
}

TEST_CASE("twice the depth halves branches and eps, and no learning rate", "[models][parameterization]") {
  const auto target = dense(128, 8);
  const auto attention = group_scaling(TensorGroup::attention, target, dense(), {});
  CHECK(attention.forward == 0.5);
  CHECK(attention.lr == 1);
  CHECK(attention.eps == 0.5);
  CHECK(group_scaling(TensorGroup::ffn_down, target, dense(), {}).forward == 0.5);
  CHECK(group_scaling(TensorGroup::head, target, dense(), {}).forward == 1);
  const auto half = group_scaling(TensorGroup::attention, target, dense(), {.depth_exponent = 0.5});
  CHECK_THAT(half.forward, WithinAbs(std::sqrt(0.5), 1e-12));
  CHECK_THAT(half.lr, WithinAbs(std::sqrt(0.5), 1e-12));
}

TEST_CASE("the three head rules differ as their sources say", "[models][parameterization]") {
  const auto target = dense(512);
  const auto head = [&](HeadRule rule) {
    return group_scaling(TensorGroup::head, target, dense(), {.head = rule});
  };
  CHECK(head(HeadRule::published).init_std == 0.5);
  CHECK(head(HeadRule::published).lr == 0.25);
  CHECK(head(HeadRule::published).forward == 0.25);
  CHECK(head(HeadRule::mup).lr == 1);
  CHECK(head(HeadRule::mup).forward == 0.25);
  CHECK(head(HeadRule::complete_dp).init_std == 0.25);
  CHECK(head(HeadRule::complete_dp).forward == 1);
  CHECK(head(HeadRule::complete_dp).eps == 1);
}

TEST_CASE("muP scales the down projection by its own fan-in", "[models][parameterization]") {
  const RuleOptions mup{.rule = Parameterization::mup};
  const auto f = group_scaling(TensorGroup::expert_down, moe("16e8a", 64, dense(256)), dense(), mup);
  CHECK_THAT(f.init_std, WithinAbs(std::sqrt(2.0), 1e-12));
  CHECK(f.lr == 2);
  CHECK(f.forward == 1);
  CHECK(group_scaling(TensorGroup::expert_up, moe("16e8a", 64, dense(256)), dense(), mup).lr == 0.5);
}

TEST_CASE("MSSP's regimes are all the identity at the proxy", "[models][parameterization]") {
  for (const int regime : {1, 2, 3})
    for (const auto group : kAllGroups) {
      const auto f =
          group_scaling(group, dense(), dense(), {.rule = Parameterization::mssp, .mssp_regime = regime});
      CHECK((f.init_std == 1 && f.lr == 1 && f.wd == 1 && f.eps == 1 && f.forward == 1));
    }
}

/// Three readings of "4.5x expansion (H_act/d = 9)" for the worked example's experts.
TEST_CASE("experts of width d on a proxy of expansion 1 give the published nine",
          "[models][parameterization]") {
  const WorkedExample example;  // reading A
  CHECK_THAT(example.factor(TensorGroup::expert_down).forward, WithinRel(1.0 / 9, 1e-12));
  CHECK_THAT(example.factor(TensorGroup::expert_down).init_std, WithinRel(3 / std::sqrt(8.0), 1e-12));
}

TEST_CASE("experts of width d/2 on a proxy of expansion 1 give 4.5", "[models][parameterization]") {
  WorkedExample example;  // reading B
  example.target.shape.expert_width = 512;
  const auto down = example.factor(TensorGroup::expert_down);
  CHECK_THAT(down.forward, WithinRel(1 / 4.5, 1e-12));
  CHECK_THAT(down.init_std * 0.01, WithinAbs(0.0075, 1e-9));
  CHECK_THAT(down.init_std * 0.02, WithinAbs(0.015, 1e-9));
}

TEST_CASE("experts of width d/2 on a proxy of expansion 1/2 give nine again", "[models][parameterization]") {
  WorkedExample example;  // reading C: e0 is the unit
  example.proxy.shape.ffn_width = 64;
  example.target.shape.expert_width = 512;
  CHECK_THAT(example.factor(TensorGroup::expert_down).forward, WithinRel(1.0 / 9, 1e-12));
}

TEST_CASE("a rule for dense models refuses a MoE and names rules that take one",
          "[models][parameterization]") {
  for (const auto rule :
       {Parameterization::completep, Parameterization::complete_dp, Parameterization::u_mup}) {
    CHECK_NOTHROW(group_scaling(TensorGroup::attention, dense(256, 8), dense(), {.rule = rule}));
    CHECK_THROWS_WITH(
        group_scaling(TensorGroup::attention, moe("8e2a", 128), dense(), {.rule = rule}),
        ContainsSubstring(std::string(name(rule))) && ContainsSubstring("complete-mue, mup or sp"));
  }
}

TEST_CASE("an axis that a rule's source does not cover is refused by name", "[models][parameterization]") {
  const auto refused = [](const RunShape& target, const RuleOptions& options, const char* why) {
    CHECK_THROWS_WITH(group_scaling(TensorGroup::attention, target, dense(), options),
                      ContainsSubstring(why));
  };
  refused(moe("8e2a", 128, dense(128, 8)), {.rule = Parameterization::mup_moe}, "the proxy's depth 4");
  refused(moe("8e2a", 128, dense(128, 8)), {.rule = Parameterization::mssp}, "the proxy's depth 4");
  for (const auto rule : {Parameterization::mup_moe, Parameterization::jiang, Parameterization::mssp}) {
    refused(moe("8e2a1s", 128), {.rule = rule}, "shared experts");
    refused(moe("8e2a2g", 128), {.rule = rule}, "groups of experts");
  }
  refused(moe("8e2a", 128, dense(256)), {.rule = Parameterization::mssp},
          "expert_width must give 256, not 128");
  refused(moe("8e2a", 256, dense(256)), {.rule = Parameterization::mssp, .mssp_regime = 2},
          "expert_width must give 128, not 256");
  refused(moe("8e2a", 128), {.rule = Parameterization::mssp, .mssp_regime = 4}, "regimes 1, 2 and 3");
}

TEST_CASE("Jiang's sum is a mean of plain sigmoids, and says that a/N changes",
          "[models][parameterization]") {
  const RuleOptions jiang{.rule = Parameterization::jiang};
  const auto target = moe("8e2a", 64, dense(256, 8));
  CHECK(route_scale(target.shape, jiang) == 0.5);
  CHECK_FALSE(gate_rule(jiang.rule).normalised);
  const auto down = group_scaling(TensorGroup::expert_down, target, dense(), jiang);
  CHECK_THAT(down.init_std, WithinRel(std::sqrt(2.0) / 0.5, 1e-12));  // above 1: below-width experts
  CHECK(down.lr == 2);
  CHECK(down.forward == 0.5);
  const auto notes = caveats(target, dense(), jiang);
  REQUIRE_FALSE(notes.empty());
  CHECK_THAT(notes.front(), ContainsSubstring("from 1 to 2/8"));
}

TEST_CASE("a rule that cannot be trained says so beside its table", "[models][parameterization]") {
  CHECK_FALSE(is_trained(Parameterization::u_mup));
  CHECK_THAT(caveats(dense(256), dense(), {.rule = Parameterization::u_mup}).front(),
             ContainsSubstring("not trained here"));
  CHECK(caveats(moe("8e2a", 128), dense(), {}).empty());
}

TEST_CASE("a rule without a word on duration says that the values stay", "[models][parameterization]") {
  auto longer = dense();
  longer.steps *= 4;
  CHECK_THAT(caveats(longer, dense(), {.rule = Parameterization::mup}).front(),
             ContainsSubstring("duration"));
  CHECK(group_scaling(TensorGroup::head, longer, dense(), {.rule = Parameterization::mup}).lr == 1);
  CHECK(group_scaling(TensorGroup::head, longer, dense(), {.rule = Parameterization::complete_dp}).lr == 0.5);
}

TEST_CASE("a MoE is refused as a proxy", "[models][parameterization]") {
  CHECK_THROWS_AS(group_scaling(TensorGroup::head, dense(), moe("4e2a", 64), {}), std::invalid_argument);
}

TEST_CASE("an unknown rule is refused with the list of known ones", "[models][parameterization]") {
  CHECK(parse_parameterization("complete-mue") == Parameterization::complete_mue);
  CHECK_THROWS_WITH(parse_parameterization("complete-mu"), ContainsSubstring("complete-mue"));
}
