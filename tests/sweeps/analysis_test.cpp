#include "sweeps/analysis.h"

#include <algorithm>
#include <cmath>

#include "sweeps/study_file.h"
#include "tests/support/catch.h"
#include "tests/support/synthetic.h"

using namespace sweeps;
using synthetic::World;

namespace {

Study without_scan() {
  auto study = synthetic::study();
  study.space.init_std.clear();
  return study;
}

Study adaptive() {
  auto study = without_scan();
  study.space.lr = {.min = 0x1p-11, .max = 0x1p-5};
  study.space.wd = {.min = 0x1p-6, .max = 1};
  study.search.method = SearchMethod::adaptive;
  study.search.start = {0x1p-8, 0x1p-3};
  study.search.confirm = 2;
  return study;
}

const Optimum& fitted(const Analysis& analysis) { return std::get<Optimum>(analysis.fit.value()); }

/// The same study with its drift target tried under other rules too.
Study compared(const std::string& rules) {
  std::string text = synthetic::study().text;
  text.insert(text.find("wd_width"), "compare = " + rules + "\n");
  auto study = parse_study(text, "synthetic.toml");
  study.data.fingerprint = "synthetic";
  return study;
}

bool mentions(const std::vector<std::string>& notes, const std::string& part) {
  return std::any_of(notes.begin(), notes.end(),
                     [&](const auto& note) { return note.find(part) != std::string::npos; });
}

std::vector<TrialResult> train(const World& world, const std::vector<TrialSpec>& specs) {
  std::vector<TrialResult> results;
  for (const auto& spec : specs) results.push_back(world.train(spec));
  return results;
}

void add(std::vector<TrialResult>& results, std::vector<TrialResult> more) {
  results.insert(results.end(), more.begin(), more.end());
}

}  // namespace

TEST_CASE("a study without results asks for the scan first", "[sweeps][analysis]") {
  const auto analysis = analyse(synthetic::study(), {});
  CHECK(analysis.stage == Stage::scan);
  CHECK(analysis.missing == plan_scan(synthetic::study()));
  CHECK(analysis.sweep.empty());
  CHECK(analysis.scan.size() == 3);
  CHECK_FALSE(analysis.scan[0].best);
}

TEST_CASE("without a scan the sweep comes first, at the given std", "[sweeps][analysis]") {
  const auto study = without_scan();
  const auto analysis = analyse(study, {});
  CHECK(analysis.stage == Stage::sweep);
  CHECK(analysis.init_std == study.base.init_std);
  CHECK(analysis.missing == plan_sweep(study, study.base.init_std));
}

TEST_CASE("the scan's best std goes into the sweep", "[sweeps][analysis]") {
  const auto study = synthetic::study();
  const auto analysis = analyse(study, train({}, plan_scan(study)));
  CHECK(analysis.stage == Stage::sweep);
  CHECK(analysis.init_std == 0.06);
  REQUIRE(analysis.scan[1].best);
  CHECK(analysis.scan[1].trials.size() == 3);
  for (const auto& spec : analysis.missing) CHECK(spec.base.init_std == 0.06);
}

TEST_CASE("a running trial is still missing and holds its stage back", "[sweeps][analysis]") {
  const auto study = without_scan();
  auto results = train({}, plan_sweep(study, study.base.init_std));
  results[4].state = TrialState::running;
  results[4].loss.reset();
  const auto analysis = analyse(study, results);
  CHECK(analysis.stage == Stage::sweep);
  CHECK_FALSE(analysis.fit);
  CHECK(analysis.missing == std::vector{results[4].spec});
}

TEST_CASE("a finished sweep gives an optimum near the true one, and the targets' trials",
          "[sweeps][analysis]") {
  const auto study = without_scan();
  const auto analysis = analyse(study, train({}, plan_sweep(study, study.base.init_std)));
  CHECK(analysis.stage == Stage::targets);
  REQUIRE(analysis.optimum);
  CHECK_THAT(std::log2(analysis.optimum->lr), WithinAbs(-8, 0.25));
  CHECK_THAT(std::log2(analysis.optimum->wd), WithinAbs(-3, 0.5));
  CHECK(analysis.optimum->lr == rounded(analysis.optimum->lr));
  CHECK(analysis.optimum->init_std == study.base.init_std);
  CHECK(analysis.missing.size() == 2 + 8);
  REQUIRE(analysis.targets.size() == 2);
  CHECK(analysis.targets[1].around.size() == 7);
  CHECK_FALSE(analysis.targets[1].drift);
}

TEST_CASE("a target where the rule holds passes and the study is done", "[sweeps][analysis]") {
  const auto analysis = synthetic::run(synthetic::study(), {});
  CHECK(analysis.stage == Stage::done);
  REQUIRE(analysis.targets[1].drift);
  CHECK(analysis.targets[1].drift->verdict == Verdict::pass);
  CHECK(analysis.exit_code == 0);
  CHECK(analysis.notes.empty());
  CHECK(analysis.num_failed == 0);
  CHECK_THAT(*analysis.targets[0].tolerance,
             WithinRel(0.001 * *analysis.targets[0].transferred->loss, 1e-12));
  CHECK(*analysis.targets[0].baseline->loss > *analysis.targets[0].transferred->loss);
  CHECK_FALSE(analysis.targets[0].drift);
}

TEST_CASE("a target's gradient noise is measured against the proxy's", "[sweeps][analysis]") {
  const auto study = synthetic::study();
  const auto analysis = synthetic::run(study, {.gradient_noise = [&](const TrialSpec& spec) {
    // Far from the optimum's LR the noise is another one; the ratio does not heed it.
    const double elsewhere = std::abs(std::log2(spec.base.lr) + 8) > 1.5 ? 50 : 1;
    return (spec.run.shape.is_moe() ? 3.0 : 2.0) * elsewhere;
  }});
  for (const auto& target : analysis.targets) {
    CHECK_THAT(target.config.sigma0_ratio, WithinRel(2, 1e-12));
    REQUIRE(target.measured_sigma0);
    CHECK_THAT(*target.measured_sigma0, WithinRel(1.5, 1e-12));
  }
  CHECK_FALSE(synthetic::run(study, {}).targets[0].measured_sigma0);
}

TEST_CASE("a target whose optimum moved two octaves is a drift with exit code 3", "[sweeps][analysis]") {
  const auto analysis = synthetic::run(synthetic::study(), {.lr_drift = {{"8e2a1s", -2}}});
  CHECK(analysis.targets[1].drift->verdict == Verdict::drift);
  CHECK(analysis.targets[1].drift->lr.value < -1);
  CHECK(analysis.exit_code == 3);
  CHECK(mentions(analysis.notes, "8e2a1s: DRIFT"));
}

TEST_CASE("a strict check calls a move DRIFT that costs little", "[sweeps][analysis]") {
  auto study = synthetic::study();
  study.drift.tolerance_fraction = 0.1;
  const synthetic::World world{.lr_drift = {{"8e2a1s", -1.5}}};
  const auto lenient = synthetic::run(study, world);
  CHECK(lenient.targets[1].drift->verdict == Verdict::pass);
  CHECK_FALSE(lenient.targets[1].drift->location_equivalent);
  study.drift.strict = true;
  const auto strict = synthetic::run(study, world);
  CHECK(strict.targets[1].drift->verdict == Verdict::drift);
  CHECK_THAT(strict.targets[1].drift->reason, ContainsSubstring("strict: the optimum is proven to have moved"));
  CHECK(strict.exit_code == 3);
  CHECK(synthetic::run(study, {}).exit_code == 0);  // one that stayed passes either way
}

TEST_CASE("claims of drift among several targets are held to Holm's levels", "[sweeps][drift]") {
  // p over the level of one claim: the smallest is divided among all, each that holds frees its share.
  CHECK(holm_claims({0.2, 0.3, 2}) == std::vector{3, 2, 1});
  CHECK(holm_claims({0.9, 0.3, 0.4}) == std::vector{1, 3, 2});
  CHECK(holm_claims({0.5, 0.6}) == std::vector{2, 2});
  CHECK(holm_claims({0.9}) == std::vector{1});
  CHECK(holm_claims({}).empty());
}

TEST_CASE("a claim of drift that holds alone is open among many and says so", "[sweeps][drift]") {
  int num_held_back = 0;
  for (int i = 0; i < 20; ++i) {
    auto study = synthetic::study();
    study.seed = static_cast<std::uint64_t>(i);
    const auto analysis = synthetic::run(study, {.lr_drift = {{"8e2a1s", 0.8}}, .noise = 0.002});
    const auto& target = analysis.targets[1];
    if (target.drift->verdict != Verdict::drift) continue;
    DriftOptions options;
    options.tolerance = target.drift->tolerance;
    options.claims = 1000;
    const auto& optimum = *analysis.optimum;
    const auto report = judge_drift(fit_points(target.around), std::log2(optimum.lr), std::log2(optimum.wd),
                                    std::get<Optimum>(*analysis.fit), options);
    CHECK((report.verdict == Verdict::drift) == (report.claim_p < 1.0 / 1000));
    if (report.verdict == Verdict::drift || report.verdict == Verdict::not_bracketed) continue;
    ++num_held_back;
    CHECK(report.verdict == Verdict::inconclusive);
    CHECK_THAT(report.reason, ContainsSubstring("Holm"));
    CHECK(report.more_runs > 0);
  }
  CHECK(num_held_back > 0);
}

TEST_CASE("a copy under another rule that drifts is shown and leaves the exit code alone",
          "[sweeps][analysis]") {
  const auto analysis = synthetic::run(compared("[\"mup\"]"), {.lr_drift = {{"8e2a1s@mup", -2}}});
  REQUIRE(analysis.targets.size() == 3);
  CHECK(analysis.targets[1].drift->verdict == Verdict::pass);
  CHECK(analysis.targets[2].config.rule.rule == models::Parameterization::mup);
  CHECK(analysis.targets[2].drift->verdict == Verdict::drift);
  CHECK(analysis.exit_code == 0);
  CHECK(mentions(analysis.notes, "8e2a1s@mup: DRIFT"));
}

TEST_CASE("a target that drifts ends with 3 whatever its copies do", "[sweeps][analysis]") {
  const auto analysis = synthetic::run(compared("[\"mup\"]"), {.lr_drift = {{"8e2a1s", -2}}});
  CHECK(analysis.targets[2].drift->verdict == Verdict::pass);
  CHECK(analysis.exit_code == 3);
}

TEST_CASE("the SP copy's transferred point is the baseline, trained once", "[sweeps][analysis]") {
  const auto study = compared("[\"sp\"]");
  auto results = train({}, plan_scan(study));
  add(results, train({}, plan_sweep(study, 0.06)));
  const auto analysis = analyse(study, results);
  CHECK(analysis.stage == Stage::targets);
  CHECK(analysis.missing.size() == 2 + 8 + 6);
  CHECK(analysis.targets[2].transferred->key == analysis.targets[1].baseline->key);
}

TEST_CASE("noise above the tolerance leaves no verdict and exit code 4", "[sweeps][analysis]") {
  auto study = synthetic::study();
  study.drift.max_trials = 9;
  const auto analysis = synthetic::run(study, {.lr_drift = {{"8e2a1s", 0.4}}, .noise = 0.006});
  CHECK(analysis.targets[1].drift->verdict != Verdict::pass);
  CHECK(analysis.exit_code == 4);
  CHECK(mentions(analysis.notes, "8e2a1s"));
}

TEST_CASE("a verdict that is open asks for more runs until it is settled", "[sweeps][analysis]") {
  const auto analysis = synthetic::run(synthetic::study(), {.noise = 0.005});
  CHECK(analysis.targets[1].around.size() > 7);
  CHECK(analysis.targets[1].around.size() <= 25);
  CHECK(analysis.targets[1].drift->verdict == Verdict::pass);
}

TEST_CASE("at the cap an open verdict stays open and names the runs it would take", "[sweeps][analysis]") {
  auto study = synthetic::study();
  int num_inconclusive = 0;  // the noise hangs on the trials' keys: which of these are open does too
  for (const int cap : {7, 8})
    for (const double noise : {0.003, 0.004, 0.005, 0.006}) {
      study.drift.max_trials = cap;
      const auto analysis = synthetic::run(study, {.lr_drift = {{"8e2a1s", 0.3}}, .noise = noise});
      const auto& report = *analysis.targets[1].drift;
      if (report.verdict == Verdict::pass || report.verdict == Verdict::drift) continue;
      CHECK(analysis.targets[1].around.size() == static_cast<std::size_t>(cap));
      CHECK(report.next.empty());
      CHECK(analysis.exit_code == 4);
      if (report.verdict != Verdict::inconclusive) continue;
      ++num_inconclusive;
      CHECK(mentions(analysis.notes, "more runs would settle it"));
    }
  CHECK(num_inconclusive > 0);
}

TEST_CASE("an optimum outside the grid is bracketed by extensions", "[sweeps][analysis]") {
  const auto study = without_scan();
  const auto analysis = synthetic::run(study, {.log2_lr = -5.2});
  CHECK(analysis.sweep.size() > 15);
  CHECK(analysis.sweep.size() <= 15 + 4u * study.search.extensions);
  CHECK(fitted(analysis).bracketed());
  CHECK_THAT(std::log2(analysis.optimum->lr), WithinAbs(-5.2, 0.3));
  CHECK(analysis.exit_code == 0);
}

TEST_CASE("an adaptive search places the optimum with few trials and confirms it", "[sweeps][analysis]") {
  auto study = adaptive();
  const auto analysis = synthetic::run(study, {.log2_lr = -7.3});
  CHECK(analysis.search_settled);
  CHECK(analysis.sweep.size() >= 11);
  CHECK(analysis.sweep.size() <= 21);
  CHECK_THAT(std::log2(analysis.optimum->lr), WithinAbs(-7.3, 0.25));
  CHECK(analysis.exit_code == 0);
  REQUIRE(analysis.confirmation.size() == 2);
  CHECK(analysis.confirmation[0].spec.base == *analysis.optimum);
  CHECK(analysis.confirmation[0].spec.seed != analysis.confirmation[1].spec.seed);
  const auto check = confirmation(study, analysis);
  REQUIRE(check);
  CHECK(check->num_trials == 2);
  CHECK(check->agrees());
}

TEST_CASE("an adaptive search asks for the same trials in whatever order they finish", "[sweeps][analysis]") {
  std::vector<TrialResult> results;
  const auto first = synthetic::run(adaptive(), {.log2_lr = -7.3}, results);
  std::reverse(results.begin(), results.end());
  const auto again = analyse(adaptive(), results);
  CHECK(again.missing.empty());
  CHECK(again.sweep.size() == first.sweep.size());
  CHECK(again.optimum == first.optimum);
}

TEST_CASE("one trial of a batch that is still open holds the search back", "[sweeps][analysis]") {
  const auto study = adaptive();
  auto results = train({}, plan_sweep(study, study.base.init_std));
  results.pop_back();
  const auto analysis = analyse(study, results);
  CHECK(analysis.missing.size() == 1);
  CHECK_FALSE(analysis.fit);
}

TEST_CASE("an adaptive search that is cut off says what would settle it, exit code 4", "[sweeps][analysis]") {
  auto study = adaptive();
  study.search.max_trials = 11;
  const auto analysis = synthetic::run(study, {.noise = 0.02});
  CHECK(analysis.sweep.size() == 11);
  CHECK(analysis.exit_code == 4);
  CHECK(mentions(analysis.notes, "max_trials"));
}

TEST_CASE("without extensions an optimum outside the grid is not bracketed, exit code 4",
          "[sweeps][analysis]") {
  auto study = without_scan();
  study.search.extensions = 0;
  const auto analysis = synthetic::run(study, {.log2_lr = -4});
  CHECK(analysis.sweep.size() == 15);
  CHECK(analysis.exit_code == 4);
  CHECK(mentions(analysis.notes, "widen [space.lr]"));
}

TEST_CASE("a scan whose best std is at an end says so and passes", "[sweeps][analysis]") {
  const auto analysis = synthetic::run(synthetic::study(), {.best_init_std = 0.2});
  CHECK(analysis.init_std == 0.12);
  CHECK(analysis.exit_code == 0);
  CHECK(mentions(analysis.notes, "0.12, is the largest that was scanned"));
}

TEST_CASE("replaying a finished study asks for nothing new and decides the same", "[sweeps][analysis]") {
  std::vector<TrialResult> results;
  const auto first = synthetic::run(synthetic::study(), {.log2_lr = -5.2}, results);
  std::reverse(results.begin(), results.end());
  const auto again = analyse(synthetic::study(), results);
  CHECK(again.missing.empty());
  CHECK(again.sweep.size() == first.sweep.size());
  CHECK(again.optimum == first.optimum);
  CHECK(fitted(again).lr.estimate == fitted(first).lr.estimate);
  CHECK(again.targets[1].drift->regret == first.targets[1].drift->regret);
}

TEST_CASE("no trial is asked for twice", "[sweeps][analysis]") {
  std::vector<TrialResult> results;
  synthetic::run(synthetic::study(), {.log2_lr = -5.2}, results);
  std::vector<TrialKey> keys;
  std::vector<std::string> names;
  for (const auto& result : results) {
    keys.push_back(result.key);
    names.push_back(result.spec.name);
  }
  for (auto* list : {&keys, &names}) {
    std::sort(list->begin(), list->end());
    CHECK(std::adjacent_find(list->begin(), list->end()) == list->end());
  }
}

TEST_CASE("diverged cells are kept as barriers, and no extension goes near them", "[sweeps][analysis]") {
  const auto study = without_scan();
  const auto analysis = synthetic::run(study, {.diverges_at = -6.5});
  CHECK(fitted(analysis).num_diverged == 3);
  for (const auto& trial : analysis.sweep) CHECK(std::log2(trial.spec.base.lr) < -5.9);
  CHECK(analysis.exit_code == 0);
}

TEST_CASE("a failed trial counts as ended, the study goes on and exits with 1", "[sweeps][analysis]") {
  const auto analysis = synthetic::run(without_scan(), {.fails = [](const TrialSpec& spec) {
                                         return spec.name == "proxy lr=0.003906 wd=0.125";
                                       }});
  CHECK(analysis.stage == Stage::done);
  CHECK(analysis.num_failed == 1);
  CHECK(analysis.exit_code == 1);
  CHECK(fitted(analysis).num_points == 14);
  CHECK(mentions(analysis.notes, "1 trial failed"));
}

TEST_CASE("a proven drift outranks a failed trial", "[sweeps][analysis]") {
  const auto analysis = synthetic::run(
      without_scan(), {.lr_drift = {{"8e2a1s", -2}},
                       .fails = [](const TrialSpec& spec) { return spec.role == TrialRole::check; }});
  CHECK(analysis.num_failed == 2);
  CHECK(analysis.exit_code == 3);
}

TEST_CASE("a sweep too small to fit ends the study with exit code 4 and says so", "[sweeps][analysis]") {
  auto study = without_scan();
  study.space.lr = {.min = 0.001, .max = 0.002, .values = {0.001, 0.002}};
  study.space.wd = {.min = 0.1, .max = 0.1, .values = {0.1}};
  const auto analysis = synthetic::run(study, {});
  CHECK(analysis.stage == Stage::done);
  CHECK_FALSE(analysis.optimum);
  CHECK(analysis.targets.empty());
  CHECK(analysis.exit_code == 4);
  CHECK(mentions(analysis.notes, "proxy: "));
}

TEST_CASE("with one WD the optimum keeps it", "[sweeps][analysis]") {
  auto study = without_scan();
  study.space.wd = {.min = 0.1, .max = 0.1, .values = {0.1}};
  const auto analysis = synthetic::run(study, {});
  CHECK(analysis.optimum->wd == 0.1);
  CHECK_FALSE(fitted(analysis).wd_fitted);
}

// An open side once sent targets an octave beyond anything that had been tried.
TEST_CASE("a WD that is open on a side is transferred from within what was tried", "[sweeps][analysis]") {
  auto study = without_scan();
  study.search.extensions = 0;
  const auto analysis = synthetic::run(study, {.log2_wd = 6});
  CHECK_FALSE(fitted(analysis).wd.bracketed);
  double highest = 0;
  for (const auto& trial : analysis.sweep) highest = std::max(highest, trial.spec.base.wd);
  CHECK(analysis.optimum->wd <= highest);
}

TEST_CASE("a scan of which nothing finishes ends the study", "[sweeps][analysis]") {
  const auto analysis = synthetic::run(synthetic::study(), {.diverges_at = -20});
  CHECK(analysis.stage == Stage::done);
  CHECK(analysis.sweep.empty());
  CHECK(analysis.exit_code == 4);
  CHECK(mentions(analysis.notes, "initial-std scan"));
}

TEST_CASE("a sweep of which all diverge ends the study without an optimum", "[sweeps][analysis]") {
  const auto analysis = synthetic::run(without_scan(), {.diverges_at = -20});
  CHECK(analysis.stage == Stage::done);
  CHECK_FALSE(analysis.optimum);
  CHECK(analysis.exit_code == 4);
}

TEST_CASE("a study without targets is done after its fit", "[sweeps][analysis]") {
  auto study = without_scan();
  study.targets.clear();
  const auto analysis = synthetic::run(study, {});
  CHECK(analysis.stage == Stage::done);
  CHECK(analysis.exit_code == 0);
}

TEST_CASE("a target that diverges at the transferred point is no verdict", "[sweeps][analysis]") {
  auto study = without_scan();
  study.targets.pop_back();
  const auto fit = synthetic::run(study, {});
  auto results = train({}, plan_sweep(study, study.base.init_std));
  add(results, train({.diverges_at = -20}, fit.missing));
  for (const auto& spec : plan_target(study, study.targets[0], *fit.optimum))
    add(results, train({.diverges_at = -20}, {spec}));
  const auto analysis = analyse(study, results);
  CHECK(analysis.stage == Stage::done);
  CHECK(analysis.exit_code == 4);
  CHECK(mentions(analysis.notes, "8e2a: diverged at the transferred point"));
}

TEST_CASE("points of the drift design that diverge are made up for by others", "[sweeps][analysis]") {
  const auto analysis = synthetic::run(without_scan(), {.diverges_at = -7.1});
  const auto& target = analysis.targets[1];
  CHECK(target.around.size() > 7);
  REQUIRE(target.drift);
  CHECK(target.drift->num_points >= 7);
  CHECK(target.drift->verdict == Verdict::pass);
  CHECK(analysis.exit_code == 0);
}

TEST_CASE("a drift design of which all fail is unusable, not a crash", "[sweeps][analysis]") {
  const auto analysis = synthetic::run(
      without_scan(), {.fails = [](const TrialSpec& spec) { return spec.target == "8e2a1s"; }});
  REQUIRE(analysis.targets[1].drift);
  CHECK(analysis.targets[1].drift->verdict == Verdict::unusable);
  CHECK(analysis.exit_code == 1);
}

TEST_CASE("replicates give the fit its noise", "[sweeps][analysis]") {
  auto study = without_scan();
  study.search.replicates = 3;
  study.targets.clear();
  const auto analysis = synthetic::run(study, {.noise = 0.002});
  CHECK(analysis.sweep.size() == 45);
  CHECK_THAT(fitted(analysis).sigma, WithinRel(0.002, 0.35));
  CHECK_THAT(fitted(analysis).sigma_source, ContainsSubstring("seeds"));
}

TEST_CASE("a change of the study leaves old results aside", "[sweeps][analysis]") {
  const auto study = without_scan();
  auto changed = study;
  changed.proxy.steps += 1;
  const auto analysis = analyse(changed, train({}, plan_sweep(study, study.base.init_std)));
  CHECK(analysis.missing.size() == 15);
}

TEST_CASE("a squared error far above the best is a barrier, not a point of the fit", "[sweeps][analysis]") {
  std::vector<TrialResult> trials(3);
  for (std::size_t i = 0; i < 3; ++i) {
    trials[i].spec.base = {.lr = 0.01 * static_cast<double>(1 << i), .wd = 0.1};
    trials[i].spec.run.shape.family = models::ModelFamily::diffusion_model;
    trials[i].state = TrialState::complete;
  }
  trials[0].loss = 0.37, trials[1].loss = 0.44, trials[2].loss = 0.57;
  const auto points = fit_points(trials);
  CHECK_FALSE(points[0].diverged);
  CHECK_FALSE(points[1].diverged);
  CHECK(points[2].diverged);
  trials[0].spec.run.shape.family = models::ModelFamily::language_model;
  for (auto& trial : trials) trial.spec.run.shape = trials[0].spec.run.shape;
  CHECK_FALSE(fit_points(trials)[2].diverged);
}

TEST_CASE("the fit sees diverged trials and not failed ones", "[sweeps][analysis]") {
  const auto study = without_scan();
  auto trials = train({}, plan_sweep(study, study.base.init_std));
  trials[0].state = TrialState::diverged;
  trials[0].loss.reset();
  trials[1].state = TrialState::failed;
  trials[1].loss.reset();
  const auto points = fit_points(trials);
  REQUIRE(points.size() == 14);
  CHECK(points[0].diverged);
  CHECK_FALSE(points[1].diverged);
  CHECK(points[0].x == std::log2(trials[0].spec.base.lr));
  CHECK(points[1].seed_block == 0);
}
