#include "sweeps/plan.h"

#include <cmath>
#include <set>

#include "tests/support/catch.h"

using namespace sweeps;

namespace {

Study study() {
  Study result;
  result.name = "small";
  result.seed = 3;
  result.data.fingerprint = "teacher:3";
  result.space.lr = {.min = 1e-3, .max = 1e-2, .count = 3};
  result.space.wd = {.min = 0.01, .max = 1, .count = 3};
  result.space.scan_lr = 4e-3;
  result.space.scan_wd = 0.1;
  result.base.init_std = 0.05;
  return result;
}

TargetSpec moe(const std::string& name, bool drift = true) {
  TargetSpec target{.name = name, .run = {}, .drift = drift, .baseline = true};
  target.run.shape.num_experts = 8;
  target.run.shape.num_active = 2;
  target.run.shape.expert_width = 128;
  return target;
}

const Hyperparameters kOptimum{.lr = 4e-3, .wd = 0.1, .init_std = 0.05};

bool names_are_unique(const std::vector<TrialSpec>& trials) {
  std::set<std::string> names;
  for (const auto& trial : trials) names.insert(trial.name);
  return names.size() == trials.size();
}

bool share_a_seed(const std::vector<TrialSpec>& trials) {
  for (const auto& trial : trials)
    if (trial.seed != trials.front().seed) return false;
  return true;
}

}  // namespace

TEST_CASE("a log range of three takes its ends and the geometric middle", "[sweeps][plan]") {
  CHECK(grid_values({.min = 1e-4, .max = 1e-2, .count = 3}) == std::vector{1e-4, 1e-3, 1e-2});
  CHECK(grid_values({.min = 1e-4, .max = 1e-2, .count = 5}) ==
        std::vector{1e-4, 3.162e-4, 1e-3, 3.162e-3, 1e-2});
}

TEST_CASE("a linear range is evenly spaced", "[sweeps][plan]") {
  CHECK(grid_values({.min = 1, .max = 2, .log_scale = false, .count = 3}) == std::vector{1.0, 1.5, 2.0});
}

TEST_CASE("explicit values come in rising order and unrounded", "[sweeps][plan]") {
  CHECK(grid_values({.values = {0.1, 0.0123456}}) == std::vector{0.0123456, 0.1});
}

TEST_CASE("a rounded value has four digits and reads back the same", "[sweeps][plan]") {
  CHECK(rounded(0.00316227766) == 3.162e-3);
  CHECK(rounded(123456.0) == 123500.0);
  CHECK(rounded(0.1) == 0.1);
  CHECK(rounded(rounded(std::exp2(-7.3))) == rounded(std::exp2(-7.3)));
}

TEST_CASE("a grid sweep has every cell once, all in one seed", "[sweeps][plan]") {
  const auto trials = plan_sweep(study(), 0.05);
  REQUIRE(trials.size() == 9);
  CHECK(names_are_unique(trials));
  CHECK(share_a_seed(trials));
  CHECK(trials.front().seed == derived_seed(3, "proxy/0"));
  std::set<std::pair<double, double>> cells;
  for (const auto& trial : trials) cells.emplace(trial.base.lr, trial.base.wd);
  CHECK(cells.size() == 9);
  CHECK(cells.count({3.162e-3, 0.1}) == 1);
}

TEST_CASE("planning twice gives the same trials", "[sweeps][plan]") {
  CHECK(plan_sweep(study(), 0.05) == plan_sweep(study(), 0.05));
}

TEST_CASE("replicates are whole sweeps in seeds of their own", "[sweeps][plan]") {
  auto repeated = study();
  repeated.search.replicates = 2;
  const auto trials = plan_sweep(repeated, 0.05);
  REQUIRE(trials.size() == 18);
  CHECK(names_are_unique(trials));
  CHECK(trials[0].seed != trials[9].seed);
  CHECK(trials[0].base == trials[9].base);
}

TEST_CASE("random points lie in the space, depend on the seed and grow at the end", "[sweeps][plan]") {
  auto random = study();
  random.search.method = SearchMethod::random;
  random.search.max_trials = 20;
  const auto points = sweep_points(random);
  REQUIRE(points.size() == 20);
  CHECK(std::set(points.begin(), points.end()).size() == 20);
  for (const auto& [lr, wd] : points) {
    CHECK((lr >= 1e-3 && lr <= 1e-2));
    CHECK((wd >= 0.01 && wd <= 1));
  }
  random.search.max_trials = 8;
  CHECK(sweep_points(random) == std::vector(points.begin(), points.begin() + 8));
  random.seed = 4;
  CHECK(sweep_points(random).front() != points.front());
}

TEST_CASE("random points fill each quarter of the log range", "[sweeps][plan]") {
  auto random = study();
  random.search.method = SearchMethod::random;
  random.search.max_trials = 16;
  std::vector<int> quarter(4);
  for (const auto& [lr, wd] : sweep_points(random))
    ++quarter[static_cast<std::size_t>(std::min(3.0, 4 * std::log10(lr / 1e-3)))];
  for (const int count : quarter) CHECK(count >= 3);
}

TEST_CASE("a list is trained as it is written", "[sweeps][plan]") {
  auto listed = study();
  listed.search.method = SearchMethod::list;
  listed.search.points = {{2e-3, 0.3}, {1e-3, 0.1}};
  CHECK(sweep_points(listed) == listed.search.points);
}

TEST_CASE("the scan tries each std at the start LR and one octave either side", "[sweeps][plan]") {
  auto scanned = study();
  CHECK(plan_scan(scanned).empty());
  scanned.space.init_std = {0.02, 0.08};
  const auto trials = plan_scan(scanned);
  REQUIRE(trials.size() == 6);
  CHECK(names_are_unique(trials));
  CHECK(share_a_seed(trials));
  CHECK(trials[0].base.lr == 2e-3);
  CHECK(trials[1].base.lr == 4e-3);
  CHECK(trials[2].base.lr == 8e-3);
  CHECK(trials[2].base.init_std == 0.02);
  CHECK(trials[3].base.init_std == 0.08);
  CHECK(trials[3].role == TrialRole::scan);
}

TEST_CASE("a scan trial that is also a cell of the sweep is one trial", "[sweeps][plan]") {
  auto scanned = study();
  scanned.space.init_std = {0.05};
  scanned.space.scan_lr = 2e-3;
  scanned.space.lr = {.values = {1e-3, 2e-3}};
  scanned.space.wd = {.values = {0.1}};
  CHECK(trial_key(plan_scan(scanned)[1]) == trial_key(plan_sweep(scanned, 0.05)[1]));
}

TEST_CASE("a target's trials are itself, its SP baseline and six points around it", "[sweeps][plan]") {
  const auto trials = plan_target(study(), moe("8e2a"), kOptimum);
  REQUIRE(trials.size() == 8);
  CHECK(names_are_unique(trials));
  CHECK(share_a_seed(trials));
  CHECK(trials[0].role == TrialRole::target);
  CHECK(trials[0].base == kOptimum);
  CHECK(trials[1].role == TrialRole::check);
  CHECK(trials[1].rule.rule == models::Parameterization::sp);
  CHECK(trials[1].base == kOptimum);
  CHECK(trials[2].role == TrialRole::drift);
  CHECK(trials[2].base.lr == 2e-3);
  CHECK(trials[3].base.lr == 8e-3);
  CHECK_THAT(trials[4].base.wd, WithinRel(0.1 * std::exp2(1.5), 1e-3));
  CHECK_THAT(trials[6].base.lr, WithinRel(4e-3 * std::exp2(-1.75), 1e-3));
  for (const auto& trial : trials) CHECK(trial.target == "8e2a");
}

TEST_CASE("a target without drift or baseline is one trial", "[sweeps][plan]") {
  auto target = moe("8e2a", false);
  target.baseline = false;
  CHECK(plan_target(study(), target, kOptimum).size() == 1);
}

TEST_CASE("targets and proxy have seeds of their own", "[sweeps][plan]") {
  const auto a = plan_transferred(study(), moe("a"), kOptimum);
  const auto b = plan_transferred(study(), moe("b"), kOptimum);
  CHECK(a.seed != b.seed);
  CHECK(a.seed != plan_sweep(study(), 0.05).front().seed);
}

TEST_CASE("a copy of a target under another rule shares its seed", "[sweeps][plan]") {
  auto copy = moe("a@mup");
  copy.copy_of = std::string("a");
  copy.rule.rule = models::Parameterization::mup;
  const auto original = plan_transferred(study(), moe("a"), kOptimum);
  const auto compared = plan_transferred(study(), copy, kOptimum);
  CHECK(compared.seed == original.seed);
  CHECK(compared.rule.rule == models::Parameterization::mup);
  CHECK(compared.run == original.run);
  CHECK(trial_key(compared) != trial_key(original));
}

TEST_CASE("a copy under SP at the transferred point is the target's baseline", "[sweeps][plan]") {
  auto copy = moe("a@sp");
  copy.copy_of = std::string("a");
  copy.rule.rule = models::Parameterization::sp;
  CHECK(trial_key(plan_transferred(study(), copy, kOptimum)) ==
        trial_key(plan_baseline(study(), moe("a"), kOptimum)));
}

TEST_CASE("an extension point is a trial of the sweep at four digits", "[sweeps][plan]") {
  const auto trials = plan_extension(study(), 0.05, {{-6.0, -3.0}});
  REQUIRE(trials.size() == 1);
  CHECK(trials[0].base.lr == rounded(1.0 / 64));
  CHECK(trials[0].base.wd == 0.125);
  CHECK(trials[0].seed == derived_seed(3, "proxy/0"));
  const auto drift = plan_drift_extension(study(), moe("8e2a"), kOptimum, {{-6.0, -3.0}});
  CHECK(drift[0].role == TrialRole::drift);
  CHECK(drift[0].seed == plan_transferred(study(), moe("8e2a"), kOptimum).seed);
}

TEST_CASE("a trial's cost counts what one token touches", "[sweeps][plan]") {
  const auto dense = plan_sweep(study(), 0.05).front();
  const auto sparse = plan_transferred(study(), moe("8e2a"), kOptimum);
  CHECK(cost(dense).tokens == 32.0 * 128 * 1000);
  CHECK(cost(dense).parameters == cost(dense).active_parameters);
  CHECK(cost(sparse).parameters > cost(sparse).active_parameters);
  CHECK_THAT(cost(dense).flops,
             WithinRel(cost(dense).tokens * models::training_flops_per_token(dense.run.shape), 1e-12));
}
