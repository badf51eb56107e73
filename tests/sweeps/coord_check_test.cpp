#include "sweeps/coord_check.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "tests/support/catch.h"

using namespace sweeps;

namespace {

TrialSpec proxy() {
  TrialSpec spec;
  spec.run.shape = {.width = 64, .depth = 2, .head_size = 16, .context = 32, .vocab = 128, .ffn_width = 64};
  spec.proxy = spec.run;
  return spec;
}

/// Answers in which every quantity is 0.1 * scale^exponent * 1.1^seed, and `layer`'s has another exponent.
std::vector<Quantities> answers(const std::vector<CoordRun>& runs, const CoordOptions& options,
                                const QuantityKey& odd = {}, double exponent = 0) {
  std::vector<Quantities> seen;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const double noise = std::pow(1.02, static_cast<double>(i % static_cast<std::size_t>(options.seeds)));
    const auto series = [&](const QuantityKey& key, std::size_t length) {
      const double size = 0.1 * noise * std::pow(runs[i].scale, key == odd ? exponent : 0.0);
      return std::vector<double>(length, size);
    };
    const auto steps = static_cast<std::size_t>(options.steps);
    Quantities one;
    for (const auto& key : {QuantityKey{"stream", "activation"}, QuantityKey{"ffn", "activation"}, QuantityKey{"loss", "loss"}})
      one[key] = series(key, steps + 1);
    for (const auto& key : {QuantityKey{"head", "effective"}, QuantityKey{"router", "propagating"}})
      one[key] = series(key, steps);
    seen.push_back(one);
  }
  return seen;
}

const CoordRow& row(const std::vector<CoordRow>& rows, const QuantityKey& key) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const auto& one) { return one.key == key; });
  REQUIRE(found != rows.end());
  return *found;
}
bool all_pass(const std::vector<CoordRow>& rows) {
  return std::all_of(rows.begin(), rows.end(), [](const auto& one) { return one.pass; });
}

CoordOptions width_only() {
  CoordOptions options;
  options.axes = {Axis::width};
  return options;
}

}  // namespace

TEST_CASE("each axis of a coordinate check stretches what it names and nothing else", "[sweeps][coord_check]") {
  const CoordOptions options;
  const auto runs = plan_coord(proxy(), options);
  CHECK(runs.size() == 6 * 3 * 3);
  for (const auto& run : runs) {
    const auto& shape = run.spec.run.shape;
    INFO(run.spec.name);
    CHECK_FALSE(run.spec.proxy.shape.is_moe());
    CHECK(shape.width == (run.axis == Axis::width ? 64 * run.scale : 64));
    CHECK(shape.depth == (run.axis == Axis::depth ? 2 * run.scale : 2));
    if (run.axis == Axis::experts) CHECK(shape.num_experts == 4 * run.scale);
    if (run.axis == Axis::active) CHECK((shape.num_experts == 8 && shape.num_active == 2 * run.scale));
    if (run.axis == Axis::granularity)
      CHECK(models::active_width(shape) == 128);  // more experts, each narrower
    if (run.axis == Axis::shared) CHECK(shape.num_shared == run.scale);
  }
}

TEST_CASE("scales of one axis share their seeds, and seeds differ", "[sweeps][coord_check]") {
  std::set<std::uint64_t> seeds;
  for (const auto& run : plan_coord(proxy(), width_only())) seeds.insert(run.spec.seed);
  CHECK(seeds.size() == 3);
}

TEST_CASE("flat sizes pass, a size that grows with width fails in its row alone", "[sweeps][coord_check]") {
  const auto options = width_only();
  const auto runs = plan_coord(proxy(), options);
  CHECK(all_pass(judge_coord(runs, answers(runs, options), options)));
  const QuantityKey odd{"ffn", "activation"};
  const auto rows = judge_coord(runs, answers(runs, options, odd, 0.5), options);
  CHECK_FALSE(row(rows, odd).pass);
  CHECK_THAT(row(rows, odd).slope.back(), WithinAbs(0.5, 1e-9));
  CHECK(row(rows, {"stream", "activation"}).pass);
}

TEST_CASE("an update of the head that dies out with width fails", "[sweeps][coord_check]") {
  const auto options = width_only();
  const auto runs = plan_coord(proxy(), options);
  const QuantityKey head{"head", "effective"};
  CHECK_FALSE(row(judge_coord(runs, answers(runs, options, head, -1), options), head).pass);
  CHECK(row(judge_coord(runs, answers(runs, options, head, -0.2), options), head).pass);
}

TEST_CASE("a layer that never learns fails", "[sweeps][coord_check]") {
  const auto options = width_only();
  const auto runs = plan_coord(proxy(), options);
  auto seen = answers(runs, options);
  for (std::size_t i = 0; i < runs.size(); ++i)
    if (runs[i].scale == 4) seen[i][{"head", "effective"}].assign(10, 0.0);
  CHECK_FALSE(row(judge_coord(runs, seen, options), {"head", "effective"}).pass);
}

TEST_CASE("a model that was not finite fails its axis", "[sweeps][coord_check]") {
  const auto options = width_only();
  const auto runs = plan_coord(proxy(), options);
  auto seen = answers(runs, options);
  for (auto& [key, values] : seen.back()) values.resize(3);
  CHECK_FALSE(all_pass(judge_coord(runs, seen, options)));
}

TEST_CASE("along depth a branch is expected to shrink as the rule says", "[sweeps][coord_check]") {
  const models::RuleOptions half{.depth_exponent = 0.5};
  const auto band = expected_slope(Axis::depth, {"attention", "activation"}, half);
  CHECK((band.lo < -0.5 && band.hi > -0.5 && band.hi < 0));
  CHECK_FALSE(expected_slope(Axis::width, {"attention", "activation"}, half).lo < -0.11);
}

TEST_CASE("a coordinate check refuses what gives no slope", "[sweeps][coord_check]") {
  CoordOptions options;
  options.scales = {1, 2};
  CHECK_THROWS_WITH(plan_coord(proxy(), options), ContainsSubstring("at least 3 scales"));
  options.scales = {1, 3, 4};
  CHECK_THROWS_WITH(plan_coord(proxy(), options), ContainsSubstring("powers of two"));
  options = {};
  options.seeds = 2;
  CHECK_THROWS_WITH(plan_coord(proxy(), options), ContainsSubstring("at least 3 seeds"));
  CHECK_THROWS_WITH(parse_axis("widht"), ContainsSubstring("width, depth"));
}

TEST_CASE("the small proxy keeps fan-in, expansion and rule", "[sweeps][coord_check]") {
  auto spec = proxy();
  spec.run.shape = {.width = 256, .depth = 12, .head_size = 64, .context = 512, .vocab = 256, .ffn_width = 512};
  spec.base.init_std = 0.02;
  const auto small = small_proxy(spec);
  CHECK(small.run.shape.width == 64);
  CHECK(small.run.shape.ffn_width == 128);
  CHECK(small.run.shape.depth == 2);
  CHECK(small.run.shape.num_heads() >= 2);
  CHECK_THAT(small.base.init_std, WithinRel(0.04, 1e-12));
  CHECK(small.rule == spec.rule);
}

TEST_CASE("a branch whose size moves by more than eight percent at the start fails", "[sweeps][coord_check]") {
  const auto options = width_only();
  const auto runs = plan_init(proxy(), options);
  const auto sizes = [&](double exponent) {
    std::vector<Quantities> seen;
    for (const auto& run : runs)
      seen.push_back({{{"attention", "activation"}, {0.3}}, {{"ffn", "activation"}, {std::pow(run.scale, exponent)}}});
    return judge_init(runs, seen, options);
  };
  for (const auto& one : sizes(0)) CHECK(one.pass);
  const auto rows = sizes(0.5);
  CHECK(std::count_if(rows.begin(), rows.end(), [](const auto& one) { return !one.pass; }) == 2);
}

TEST_CASE("a slope comes with its standard error", "[sweeps][coord_check]") {
  const auto [slope, error] = slope_of({{0, 1}, {1, 3}, {2, 5}});
  CHECK_THAT(slope, WithinAbs(2, 1e-12));
  CHECK_THAT(error, WithinAbs(0, 1e-12));
  CHECK_THAT(slope_of({{0, 0}, {1, 1}, {2, 0}, {3, 1}}).second, WithinAbs(std::sqrt(0.8 / 2 / 5), 1e-12));
}
