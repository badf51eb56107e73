#include "sweeps/trial.h"

#include <functional>
#include <set>
#include <vector>

#include "tests/support/catch.h"

using namespace sweeps;

namespace {

TrialSpec trial() {
  TrialSpec spec;
  spec.name = "proxy lr=0.001 wd=0.1";
  spec.data.fingerprint = "teacher:1";
  return spec;
}

struct Change {
  const char* what;
  std::function<void(TrialSpec&)> apply;
};

const std::vector<Change> kOfTheResult = {
    {"lr", [](TrialSpec& t) { t.base.lr *= 2; }},
    {"wd", [](TrialSpec& t) { t.base.wd *= 2; }},
    {"init_std", [](TrialSpec& t) { t.base.init_std *= 2; }},
    {"beta1", [](TrialSpec& t) { t.base.beta1 = 0.8; }},
    {"beta2", [](TrialSpec& t) { t.base.beta2 = 0.99; }},
    {"eps", [](TrialSpec& t) { t.base.eps = 1e-8; }},
    {"seed", [](TrialSpec& t) { t.seed = 7; }},
    {"clip", [](TrialSpec& t) { t.clip = 0; }},
    {"warm-up", [](TrialSpec& t) { t.schedule.warmup = 0.1; }},
    {"decay", [](TrialSpec& t) { t.schedule.decay = 0.5; }},
    {"schedule", [](TrialSpec& t) { t.schedule.kind = ScheduleKind::linear; }},
    {"width", [](TrialSpec& t) { t.run.shape.width = 256; }},
    {"depth", [](TrialSpec& t) { t.run.shape.depth = 2; }},
    {"family", [](TrialSpec& t) { t.run.shape.family = models::ModelFamily::diffusion_model; }},
    {"patch",
     [](TrialSpec& t) {
       t.run.shape.family = models::ModelFamily::diffusion_model;
       t.run.shape.patch = 2;
     }},
    {"context", [](TrialSpec& t) { t.run.shape.context = 64; }},
    {"experts", [](TrialSpec& t) { t.run.shape.num_experts = 8; }},
    {"steps", [](TrialSpec& t) { t.run.steps = 2000; }},
    {"batch", [](TrialSpec& t) { t.run.batch = 64; }},
    {"proxy", [](TrialSpec& t) { t.proxy.shape.width = 64; }},
    {"rule", [](TrialSpec& t) { t.rule.rule = models::Parameterization::sp; }},
    {"wd width", [](TrialSpec& t) { t.rule.wd_width = models::WdWidth::literal; }},
    {"head rule", [](TrialSpec& t) { t.rule.head = models::HeadRule::mup; }},
    {"MSSP's regime 1",
     [](TrialSpec& t) { t.rule = {.rule = models::Parameterization::mssp, .mssp_regime = 1}; }},
    {"MSSP's regime 2",
     [](TrialSpec& t) { t.rule = {.rule = models::Parameterization::mssp, .mssp_regime = 2}; }},
    {"precision", [](TrialSpec& t) { t.precision = Precision::bfloat16; }},
    {"balancing", [](TrialSpec& t) { t.balancing = Balancing::none; }},
    {"corpus", [](TrialSpec& t) { t.data.fingerprint = "other"; }},
    {"holdout", [](TrialSpec& t) { t.data.holdout = 0.1; }},
    {"eval tokens", [](TrialSpec& t) { t.eval.tokens = 1024; }},
};

const std::vector<Change> kOfTheLabel = {
    {"name", [](TrialSpec& t) { t.name = "scan std=0.02"; }},
    {"role", [](TrialSpec& t) { t.role = TrialRole::drift; }},
    {"target", [](TrialSpec& t) { t.target = "8e2a"; }},
    {"path", [](TrialSpec& t) { t.data.path = "/elsewhere"; }},
};

}  // namespace

TEST_CASE("everything that changes a trial's result changes its key", "[sweeps][trial]") {
  std::set<TrialKey> keys{trial_key(trial())};
  for (const auto& change : kOfTheResult) {
    TrialSpec spec = trial();
    change.apply(spec);
    INFO(change.what);
    CHECK(keys.insert(trial_key(spec)).second);
  }
}

TEST_CASE("what a trial is called or belongs to does not change its key", "[sweeps][trial]") {
  for (const auto& change : kOfTheLabel) {
    TrialSpec spec = trial();
    change.apply(spec);
    INFO(change.what);
    CHECK(trial_key(spec) == trial_key(trial()));
  }
}

TEST_CASE("a trial's key is 32 hex digits", "[sweeps][trial]") {
  CHECK(trial_key(trial()).size() == 32);
  CHECK(trial_key(trial()).find_first_not_of("0123456789abcdef") == std::string::npos);
}

TEST_CASE("trials that differ in per-slot values share a stack", "[sweeps][trial]") {
  TrialSpec spec = trial();
  spec.base.lr *= 2;
  spec.base.wd *= 2;
  spec.base.init_std *= 2;
  spec.seed = 9;
  CHECK(stack_key(spec) == stack_key(trial()));
  spec.run.steps *= 2;
  CHECK(stack_key(spec) != stack_key(trial()));
}

TEST_CASE("a derived seed depends on the study's seed and the purpose", "[sweeps][trial]") {
  CHECK(derived_seed(1, "proxy/0") == derived_seed(1, "proxy/0"));
  CHECK(derived_seed(1, "proxy/0") != derived_seed(2, "proxy/0"));
  CHECK(derived_seed(1, "proxy/0") != derived_seed(1, "proxy/1"));
}

TEST_CASE("the names of roles, states and failures are those that are stored", "[sweeps][trial]") {
  CHECK(name(TrialRole::check) == "check");
  CHECK(name(TrialState::diverged) == "diverged");
  CHECK(name(FailureClass::oom_gpu) == "oom_gpu");
  CHECK(name(DataSource::tokens) == "tokens");
}

TEST_CASE("branches are part of a trial's key, and no branches leave it as it was", "[sweeps][trial]") {
  TrialSpec spec;
  const auto plain = trial_key(spec);
  spec.branches = {0.5, 1};
  CHECK(trial_key(spec) != plain);
  const auto half = trial_key(spec);
  spec.branches = {0.25, 1};
  CHECK(trial_key(spec) != half);
  CHECK(stack_key(spec) == stack_key(TrialSpec{}));
}

TEST_CASE("a branch starts where a run of its length would start to decay, and its decay costs steps",
          "[sweeps][trial]") {
  TrialSpec spec;
  spec.run.steps = 1000;
  spec.schedule.decay = 0.2;
  CHECK(branch_points(spec).empty());
  CHECK(trained_steps(spec) == 1000);
  spec.branches = {0.25, 0.5, 1};
  const auto points = branch_points(spec);
  REQUIRE(points.size() == 2);
  CHECK(points[0].start == 200);
  CHECK(points[0].steps == 250);
  CHECK(points[1].start == 400);
  CHECK(points[1].steps == 500);
  CHECK(trained_steps(spec) == 1000 + 50 + 100);
}
