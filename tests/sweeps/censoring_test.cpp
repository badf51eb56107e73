#include "sweeps/censoring.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include "sweeps/analysis.h"
#include "tests/support/catch.h"
#include "tests/support/synthetic.h"

using namespace sweeps;
using synthetic::World;

namespace {

/// A trial of 1000 steps that is evaluated every 100, with these losses from the first evaluation on.
TrialResult trial(double lr, const std::vector<double>& losses) {
  TrialResult result;
  result.spec.name = "lr " + std::to_string(lr);
  result.spec.base.lr = lr;
  result.spec.run.steps = 1000;
  result.key = trial_key(result.spec);
  for (std::size_t i = 0; i < losses.size(); ++i) {
    result.evaluations.steps.push_back(100 * static_cast<std::int64_t>(i + 1));
    result.evaluations.losses.push_back(losses[i]);
  }
  return result;
}

std::vector<TrialKey> keys(const std::vector<Censoring>& censored) {
  std::vector<TrialKey> result;
  for (const auto& one : censored) result.push_back(one.trial);
  std::ranges::sort(result);
  return result;
}

Study without_scan() {
  auto study = synthetic::study();
  study.space.init_std.clear();
  return study;
}

/// The slowest LR of the proxy learns so late that it lies 0.75 nats behind at half of the run.
World with_a_late_learner() {
  World world;
  world.pace = [](const TrialSpec& spec) {
    return spec.role == TrialRole::proxy && spec.base.lr < 1e-3 ? 2.5 : 1.0;
  };
  return world;
}

/// What the database holds of a trial that was stopped at the evaluation that decided.
TrialResult stopped(TrialResult trial) {
  const auto step = decision_step(trial.spec);
  auto& [steps, losses] = trial.evaluations;
  const auto kept = std::ranges::find(steps, step) + 1 - steps.begin();
  steps.resize(static_cast<std::size_t>(kept));
  losses.resize(static_cast<std::size_t>(kept));
  trial.state = TrialState::pruned;
  trial.loss.reset();
  trial.steps = step;
  trial.branches.clear();
  return trial;
}

void check_same(const Analysis& a, const Analysis& b) {
  CHECK(a.stage == b.stage);
  CHECK(a.missing == b.missing);
  CHECK(a.optimum == b.optimum);
  CHECK(a.exit_code == b.exit_code);
  CHECK(a.notes == b.notes);
  CHECK(a.num_failed == b.num_failed);
  CHECK(keys(a.censored) == keys(b.censored));
  REQUIRE(a.sweep.size() == b.sweep.size());
  for (std::size_t i = 0; i < a.sweep.size(); ++i) {
    CHECK(a.sweep[i].key == b.sweep[i].key);
    CHECK(a.sweep[i].state == b.sweep[i].state);
    CHECK(a.sweep[i].loss == b.sweep[i].loss);
    CHECK(a.sweep[i].steps == b.sweep[i].steps);
    CHECK(a.sweep[i].message == b.sweep[i].message);
  }
}

}  // namespace

TEST_CASE("the first evaluation at half of the run or later decides, the last one never",
          "[sweeps][censoring]") {
  auto spec = trial(1e-3, {}).spec;
  CHECK(decision_step(spec) == 500);
  spec.eval.every = 0.2;
  CHECK(decision_step(spec) == 600);
  spec.eval.every = 0.3;
  CHECK(decision_step(spec) == 600);
  spec.eval.every = 0.7;
  CHECK(decision_step(spec) == 700);
  spec.schedule.warmup = 0.8;
  CHECK(decision_step(spec) == 0);
  spec.eval.every = 1;
  CHECK(decision_step(spec) == 0);
  spec.eval.every = 1e-9;
  CHECK(decision_step(spec) == 0);
}

TEST_CASE("a run far above one of the same or a higher LR is hopeless, one that is only worse is not",
          "[sweeps][censoring]") {
  const auto good = trial(4e-3, {4, 3.5, 3.3, 3.1, 3.0});
  const auto hopeless = trial(1e-3, {4, 3.8, 3.7, 3.6, 3.41});
  const auto worse = trial(2e-3, {4, 3.8, 3.7, 3.6, 3.39});
  const auto found = censored({good, hopeless, worse});
  REQUIRE(found.size() == 1);
  CHECK(found[0].trial == hopeless.key);
  CHECK(found[0].step == 500);
  CHECK_THAT(found[0].reason, ContainsSubstring("hopeless at step 500") && ContainsSubstring("3.4100") &&
                                  ContainsSubstring("0.4100 above") && ContainsSubstring(good.spec.name));
}

TEST_CASE("a higher LR is not held against a lower one: the decay is still to come", "[sweeps][censoring]") {
  const auto low = trial(1e-3, {4, 3.5, 3.3, 3.1, 3.0}), high = trial(4e-3, {4, 3.9, 3.9, 3.9, 3.9});
  CHECK(censored({low, high}).empty());
}

TEST_CASE("a nat above the best of any LR, three evaluations long, is as good as diverged",
          "[sweeps][censoring]") {
  const auto low = trial(1e-3, {4, 3.5, 3.3, 3.1, 3.0});
  const auto lost = trial(4e-3, {4, 4, 4.4, 4.2, 4.1}), spike = trial(8e-3, {4, 3.5, 3.3, 9.0, 4.1});
  const auto found = censored({low, lost, spike});
  REQUIRE(found.size() == 1);
  CHECK(found[0].trial == lost.key);
  CHECK_THAT(found[0].reason, ContainsSubstring("as good as diverged at step 500"));
}

TEST_CASE("nothing is decided before the deciding evaluation, and nothing changes after it",
          "[sweeps][censoring]") {
  const auto good = trial(4e-3, {4, 3.5, 3.3, 3.1, 3.0});
  CHECK(censored({good, trial(1e-3, {6, 6, 6, 6})}).empty());
  CHECK(censored({good, trial(1e-3, {4, 3.5, 3.3, 3.1, 3.0, 6, 6, 6, 6, 6})}).empty());
  CHECK(censored({good, trial(1e-3, {4, 3.8, 3.7, 3.6, 3.5, 2.9, 2.9, 2.9, 2.9, 2.9})}).size() == 1);
}

TEST_CASE("a drift design has no point to spare and is not stopped", "[sweeps][censoring][analysis]") {
  World world;
  world.pace = [](const TrialSpec& spec) {
    return spec.role == TrialRole::drift && spec.base.lr < 3e-3 ? 5.0 : 1.0;
  };
  const auto analysis = synthetic::run(without_scan(), world);
  CHECK(analysis.censored.empty());
  CHECK(analysis.targets[1].drift->verdict == Verdict::pass);
}

TEST_CASE("more trials only add to what is censored, in any order", "[sweeps][censoring]") {
  std::vector<TrialResult> sweep;
  for (int i = 0; i < 12; ++i) {
    const double x = std::fmod(0.618 * i, 1.0);
    sweep.push_back(trial(1e-3 * (1 + i), {5, 4 + x, 3.9 + x, 3.8 + 1.7 * x, 3.7 + 1.5 * x}));
  }
  std::vector<TrialKey> before;
  for (std::size_t n = 1; n <= sweep.size(); ++n) {
    std::vector<TrialResult> part(sweep.begin(), sweep.begin() + static_cast<std::ptrdiff_t>(n));
    const auto now = keys(censored(part));
    CHECK(std::ranges::includes(now, before));
    std::ranges::reverse(part);
    CHECK(keys(censored(part)) == now);
    before = now;
  }
  CHECK(before.size() > 2);
  CHECK(before.size() < 12);
}

TEST_CASE("a watch says who is censored as the losses come in", "[sweeps][censoring]") {
  const auto good = trial(4e-3, {}), slow = trial(1e-3, {});
  SweepWatch watch({{good, slow}});
  CHECK(watch.add(slow.key, {100, 200, 300, 400, 500}, {4, 3.8, 3.7, 3.6, 3.5}).empty());
  CHECK(watch.add(good.key, {100, 200}, {4, 3.5}).empty());
  CHECK(watch.add("a stranger", {500}, {1}).empty());
  // A resumed trial says its whole curve again.
  const auto found = watch.add(good.key, {100, 200, 300, 400, 500}, {4, 3.5, 3.3, 3.1, 3.0});
  REQUIRE(found.size() == 1);
  CHECK(found[0].trial == slow.key);
}

TEST_CASE("a watch over eight times as many trials costs some eight times as much", "[sweeps][censoring]") {
  const auto cpu_of = [](int num_trials) {
    std::vector<TrialResult> sweep;
    for (int i = 0; i < num_trials; ++i) {
      const double x = std::fmod(0.618 * i, 1.0);
      sweep.push_back(trial(1e-3 * (8 - 7 * x), {4, 3.8 + x, 3.7 + x, 3.6 + x, 3.5 + x}));
    }
    const auto last = sweep.back().key;
    SweepWatch watch({std::move(sweep)});
    const auto begin = std::clock();
    CHECK_FALSE(watch.add(last, {500}, {3.9}).empty());
    return static_cast<double>(std::clock() - begin);
  };
  double few = cpu_of(500), many = cpu_of(4000);
  for (int i = 0; i < 4; ++i) {
    few = std::min(few, cpu_of(500));
    many = std::min(many, cpu_of(4000));
  }
  CHECK(many < 30 * few);  // 64 times if every trial were compared with every other
}

TEST_CASE("whether a hopeless trial was stopped in time or trained to its end makes no difference",
          "[sweeps][censoring][analysis]") {
  const auto study = without_scan();
  std::vector<TrialResult> results;
  const auto trained = synthetic::run(study, with_a_late_learner(), results);
  REQUIRE(trained.censored.size() == 3);  // one LR, three WDs
  CHECK(std::ranges::count(trained.sweep, TrialState::pruned, &TrialResult::state) == 3);
  CHECK(std::get<Optimum>(*trained.fit).num_points == static_cast<int>(trained.sweep.size()) - 3);
  CHECK(std::get<Optimum>(*trained.fit).num_diverged == 0);
  CHECK(trained.exit_code == 0);

  auto in_time = results;
  for (auto& result : in_time)
    if (std::ranges::count(trained.censored, result.key, &Censoring::trial) > 0) result = stopped(result);
  std::ranges::reverse(in_time);
  const auto pruned = analyse(study, in_time);
  check_same(pruned, trained);
  CHECK(std::get<Optimum>(*pruned.fit).lr.estimate == std::get<Optimum>(*trained.fit).lr.estimate);

  // One stopped, one lost beyond the evaluation that decided, one trained to its end.
  auto mixed = results;
  int n = 0;
  for (auto& result : mixed) {
    if (std::ranges::count(trained.censored, result.key, &Censoring::trial) == 0) continue;
    if (n++ == 0) continue;
    result = stopped(result);
    if (n == 3) result.state = TrialState::waiting;
  }
  check_same(analyse(study, mixed), trained);
}

TEST_CASE("without early stopping every trial is data, and a stopped one is asked for again",
          "[sweeps][censoring][analysis]") {
  auto study = without_scan();
  std::vector<TrialResult> results;
  const auto censored_before = synthetic::run(study, with_a_late_learner(), results).censored;
  study.search.early_stopping = false;
  CHECK(analyse(study, results).censored.empty());
  auto& one = *std::ranges::find(results, censored_before.at(0).trial, &TrialResult::key);
  one = stopped(one);
  const auto analysis = analyse(study, results);
  CHECK(analysis.stage == Stage::sweep);
  REQUIRE(analysis.missing.size() == 1);
  CHECK(trial_key(analysis.missing[0]) == one.key);
  CHECK(sweeps_under_way(study, analysis).empty());
}

TEST_CASE("an optimum per horizon and its trend, never pooled", "[sweeps][analysis][branches]") {
  auto study = without_scan();
  study.branches = {0.25, 0.5, 1.0};
  const auto analysis = synthetic::run(study, {.noise = 0.0003});
  REQUIRE(analysis.horizons.size() == 3);
  CHECK(analysis.horizons[0].steps == 25);
  CHECK(analysis.horizons[2].steps == 100);
  for (const auto& horizon : analysis.horizons) {
    const auto& fit = std::get<Optimum>(horizon.fit);
    CHECK_THAT(fit.lr.estimate, WithinAbs(-8 - 0.2 * std::log2(horizon.fraction), 0.15));
    CHECK(fit.num_points == std::get<Optimum>(*analysis.fit).num_points);
  }
  CHECK(std::get<Optimum>(analysis.horizons[2].fit).lr.estimate ==
        std::get<Optimum>(*analysis.fit).lr.estimate);
  REQUIRE(analysis.trend);
  CHECK(analysis.trend->num_horizons == 3);
  CHECK_THAT(analysis.trend->slope, WithinAbs(-0.2, 0.08));
  CHECK(analysis.trend->ci.lo < -0.2);
  CHECK(analysis.trend->ci.hi > -0.2);
  CHECK_THAT(describe_horizons(analysis), ContainsSubstring("octaves per doubling"));
  study.branches.clear();
  const auto plain = synthetic::run(study, {.noise = 0.0003});
  CHECK(plain.horizons.empty());
  CHECK(describe_horizons(plain).empty());
}
