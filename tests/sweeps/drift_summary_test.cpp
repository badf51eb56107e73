#include "sweeps/drift_summary.h"

#include <cmath>

#include <fmt/format.h>

#include "sweeps/study_file.h"
#include "tests/support/catch.h"
#include "tests/support/synthetic.h"

using namespace sweeps;
using synthetic::World;

namespace {

/// A target with a drift check; `change` makes it another one along some axis.
TargetSpec target(const Study& study, const std::string& name, const std::function<void(models::RunShape&)>& change) {
  TargetSpec spec = study.targets.back();
  spec.name = name;
  change(spec.run);
  return spec;
}

/// Targets at twice, four and eight times the proxy's width.
Study along_width() {
  auto study = synthetic::study();
  study.space.init_std.clear();
  const auto base = study;
  study.targets.clear();
  for (const int times : {2, 4, 8})
    study.targets.push_back(target(base, fmt::format("x{}", times), [&](models::RunShape& run) {
      run.shape.width = run.shape.expert_width = 64 * times;
    }));
  return study;
}

Study compared(Study study) {
  for (auto copy : std::vector(study.targets)) {
    copy.copy_of = copy.name;
    copy.name += "@mup";
    copy.rule.rule = models::Parameterization::mup;
    study.targets.push_back(copy);
  }
  return study;
}

std::map<std::string, double> drift_of(double per_doubling, const std::string& suffix = "") {
  return {{"x2" + suffix, per_doubling}, {"x4" + suffix, 2 * per_doubling}, {"x8" + suffix, 3 * per_doubling}};
}

std::vector<models::RunShape> runs(const std::vector<std::function<void(models::RunShape&)>>& changes) {
  std::vector<models::RunShape> all;
  for (const auto& change : changes) {
    all.push_back(synthetic::study().targets.back().run);
    change(all.back());
  }
  return all;
}

}  // namespace

TEST_CASE("targets whose optimum falls with width show the slope", "[sweeps][drift]") {
  const auto study = along_width();
  const auto analysis = synthetic::run(study, {.lr_drift = drift_of(-0.3), .noise = 0.0003});
  const auto trends = drift_trends(study, analysis);
  REQUIRE(trends.size() == 1);
  const auto& trend = trends.front();
  CHECK(trend.rule == study.rule.rule);
  CHECK(trend.axis == TrendAxis::width);
  CHECK(trend.num_targets == 3);
  CHECK(trend.num_left_out == 0);
  CHECK_THAT(trend.slope, WithinAbs(-0.3, 0.05));
  CHECK(trend.ci.lo < -0.3);
  CHECK(trend.ci.hi > -0.3);
  CHECK(trend.ci.hi < 0);
  CHECK(trend.rms < 0.05);
  REQUIRE(trend.curvature_ratio);
  CHECK(trend.curvature_ratio->lo > 0.8);
  CHECK(trend.curvature_ratio->hi < 1.25);
  CHECK_THAT(trend.curvature_slope, WithinAbs(0, 0.15));
  CHECK(trend.regret_at_largest == analysis.targets.back().drift->regret);
}

TEST_CASE("without drift the interval of the slope holds zero", "[sweeps][drift]") {
  const auto study = along_width();
  const auto trends = drift_trends(study, synthetic::run(study, {.noise = 0.002}));
  REQUIRE(trends.size() == 1);
  CHECK(trends.front().ci.lo < 0);
  CHECK(trends.front().ci.hi > 0);
}

TEST_CASE("the copies under another rule have a trend of their own", "[sweeps][drift]") {
  const auto study = compared(along_width());
  const auto analysis = synthetic::run(study, {.lr_drift = drift_of(-0.3, "@mup"), .noise = 0.0003});
  const auto trends = drift_trends(study, analysis);
  REQUIRE(trends.size() == 2);
  CHECK(trends[0].rule == study.rule.rule);
  CHECK_THAT(trends[0].slope, WithinAbs(0, 0.05));
  CHECK(trends[1].rule == models::Parameterization::mup);
  CHECK_THAT(trends[1].slope, WithinAbs(-0.3, 0.05));
  CHECK_THAT(describe_trends(study, analysis), ContainsSubstring("\ntrend over log2(width), rule mup: dLR slope -0."));
}

TEST_CASE("a trend in words has axis, slope, scatter, curvature and regret", "[sweeps][drift]") {
  const auto study = along_width();
  const auto text = describe_trends(study, synthetic::run(study, {.lr_drift = drift_of(-0.3), .noise = 0.0003}));
  CHECK_THAT(text, ContainsSubstring("trend over log2(width): dLR slope -0.") &&
                       ContainsSubstring(" oct/doubling; E(rms about the line)=0.0"));
  CHECK_THAT(text, ContainsSubstring("curvature ratio target/proxy ") && ContainsSubstring("log2 h slope ") &&
                       ContainsSubstring("R at the largest 0.0") && ContainsSubstring(" nats"));
  CHECK(text.find('\n') == std::string::npos);
}

TEST_CASE("a target whose optimum lies beyond its trials is left out of the line", "[sweeps][drift]") {
  auto study = along_width();
  study.targets.push_back(target(study, "x16", [](models::RunShape& run) {
    run.shape.width = run.shape.expert_width = 1024;
  }));
  auto drift = drift_of(-0.3);
  drift["x16"] = -4;
  const auto analysis = synthetic::run(study, {.lr_drift = drift, .noise = 0.0003});
  REQUIRE(analysis.targets.back().drift->fit);
  const auto trends = drift_trends(study, analysis);
  REQUIRE(trends.size() == 1);
  CHECK(trends.front().num_targets == 3);
  CHECK(trends.front().num_left_out == 1);
  CHECK_THAT(trends.front().slope, WithinAbs(-0.3, 0.05));
  CHECK_THAT(describe_trends(study, analysis), ContainsSubstring("1 target without a placed optimum left out"));
}

TEST_CASE("two scales make no trend, and three targets that lack one say why", "[sweeps][drift]") {
  auto study = along_width();
  study.targets[2].run = study.targets[1].run;
  auto analysis = synthetic::run(study, {});
  CHECK(drift_trends(study, analysis).empty());
  CHECK(describe_trends(study, analysis) ==
        "no trend: 3 of 3 targets with a placed optimum, at 2 scales; it takes 3 at 3");
  study.targets.pop_back();
  analysis = synthetic::run(study, {});
  CHECK(drift_trends(study, analysis).empty());
  CHECK(describe_trends(study, analysis).empty());
}

TEST_CASE("a study without an optimum has no trend", "[sweeps][drift]") {
  const auto study = along_width();
  CHECK(drift_trends(study, analyse(study, {})).empty());
  CHECK(describe_verdicts(study, analyse(study, {})).empty());
}

TEST_CASE("the verdicts are counted, those of the study's own rule", "[sweeps][drift]") {
  const auto study = compared(along_width());
  auto drift = drift_of(-2, "@mup");
  drift["x8"] = -2;
  std::vector<TrialResult> results;
  CHECK(describe_verdicts(study, synthetic::run(study, {.lr_drift = drift, .noise = 0.0003}, results)) ==
        "2 PASS, 1 DRIFT");
  std::erase_if(results, [](const auto& result) { return result.spec.target == "x2"; });
  CHECK(describe_verdicts(study, analyse(study, results)) == "1 PASS, 1 DRIFT, 1 not judged yet");
}

TEST_CASE("the axis is the one along which the targets differ", "[sweeps][drift]") {
  using Run = models::RunShape;
  const auto axis = [](auto... changes) {
    return trend_axis(runs({[](Run&) {}, changes...}));
  };
  CHECK(axis([](Run& run) { run.shape.width *= 2, run.shape.expert_width *= 2; }) == TrendAxis::width);
  CHECK(axis([](Run& run) { run.shape.depth = 4; }) == TrendAxis::depth);
  CHECK(axis([](Run& run) { run.batch = 16; }) == TrendAxis::batch);
  CHECK(axis([](Run& run) { run.steps = 400; }) == TrendAxis::steps);
  CHECK(axis([](Run& run) { run.shape.num_experts = 16; }) == TrendAxis::experts);
  CHECK(axis([](Run& run) { run.shape.num_active = 4; }) == TrendAxis::active);
  CHECK(axis([](Run& run) { run.shape.num_shared = 0; }) == TrendAxis::shared);
  CHECK(axis([](Run& run) { run.shape.num_groups = 2; }) == TrendAxis::groups);
  CHECK(axis([](Run& run) {
          run.shape.num_experts *= 2, run.shape.num_active *= 2, run.shape.num_shared *= 2;
          run.shape.expert_width /= 2;
        }) == TrendAxis::granularity);
}

TEST_CASE("targets that differ along two axes, or none, are told apart by active parameters", "[sweeps][drift]") {
  using Run = models::RunShape;
  const auto axis = [](auto... changes) {
    return trend_axis(runs({[](Run&) {}, changes...}));
  };
  CHECK(axis([](Run& run) { run.shape.depth = 4; }, [](Run& run) { run.steps = 400; }) == TrendAxis::parameters);
  CHECK(axis([](Run& run) { run.shape.num_experts *= 2, run.shape.num_active *= 2; }) == TrendAxis::parameters);
  CHECK(axis([](Run& run) { run.shape.width *= 2; }) == TrendAxis::parameters);  // narrower experts too
  CHECK(axis([](Run& run) { run.shape.head_size = 32; }) == TrendAxis::parameters);
  CHECK(axis() == TrendAxis::parameters);
}

TEST_CASE("a scale is in doublings, and no shared expert at all is one of them", "[sweeps][drift]") {
  auto run = synthetic::study().targets.back().run;
  CHECK(log2_scale(TrendAxis::width, run) == 7);
  CHECK(log2_scale(TrendAxis::granularity, run) == 3);
  CHECK(log2_scale(TrendAxis::shared, run) == 1);
  run.shape.num_shared = 0;
  CHECK(log2_scale(TrendAxis::shared, run) == 0);
  CHECK(log2_scale(TrendAxis::parameters, run) ==
        std::log2(static_cast<double>(models::count_parameters(run.shape).active)));
}
