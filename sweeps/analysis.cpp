#include "sweeps/analysis.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <stdexcept>
#include <tuple>

#include <fmt/format.h>
#include <boost/math/distributions/students_t.hpp>

#include "sweeps/adaptive.h"
#include "sweeps/generator.h"
#include "sweeps/tolerance.h"
#include "sweeps/trend_line.h"

namespace sweeps {
namespace {

constexpr int kDriftRound = 2;  // runs that an undecided drift check asks for at a time

bool has_ended(TrialState state) { return state != TrialState::waiting && state != TrialState::running; }
bool is_complete(const TrialResult& trial) { return trial.state == TrialState::complete && trial.loss; }

/// Results by trial key, and the record of which planned trials have not ended or have failed.
class Ledger {
 public:
  explicit Ledger(const std::vector<TrialResult>& results) {
    for (const auto& result : results) by_key_.emplace(result.key, &result);
  }

  /// The result of a planned trial; one that was never added to the database counts as waiting.
  TrialResult look_up(const TrialSpec& spec) {
    const TrialKey key = trial_key(spec);
    const auto found = by_key_.find(key);
    TrialResult result;
    result.key = key;
    result.spec = spec;
    asked_.insert(key);
    if (found != by_key_.end()) result = *found->second;
    // Stopping a trial settles nothing; its curve does, each time anew.
    if (result.state == TrialState::pruned) result.state = TrialState::waiting;
    if (settled_.contains(key)) return result;
    if (!has_ended(result.state) && seen_missing_.insert(key).second) missing_.push_back(spec);
    if (result.state == TrialState::failed) failed_.insert(key);
    return result;
  }

  std::vector<TrialResult> look_up(const std::vector<TrialSpec>& specs) {
    std::vector<TrialResult> results;
    for (const auto& spec : specs) results.push_back(look_up(spec));
    return results;
  }

  /// Its curve says all there is to know: not missing, not failed.
  void settle(const TrialKey& key) {
    settled_.insert(key);
    failed_.erase(key);
    std::erase_if(missing_, [&](const auto& spec) { return trial_key(spec) == key; });
  }

  const std::vector<TrialSpec>& missing() const { return missing_; }
  const std::set<TrialKey>& asked() const { return asked_; }
  int num_failed() const { return static_cast<int>(failed_.size()); }

 private:
  std::map<TrialKey, const TrialResult*> by_key_;
  std::vector<TrialSpec> missing_;
  std::set<TrialKey> asked_, seen_missing_, failed_, settled_;
};

/// Adds the trials that are not there yet; true when there were any.
bool append_new(std::vector<TrialResult>& trials, const std::vector<TrialResult>& more) {
  const auto size = trials.size();
  std::set<TrialKey> known;
  for (const auto& trial : trials) known.insert(trial.key);
  for (const auto& trial : more)
    if (known.insert(trial.key).second) trials.push_back(trial);
  return trials.size() > size;
}

bool all_ended(const std::vector<TrialResult>& trials) {
  return std::all_of(trials.begin(), trials.end(), [](const auto& trial) { return has_ended(trial.state); });
}

/// A diffusion trial this many times above the best counts as diverged in a fit: the nat that has_diverged allows
/// means nothing for a squared error, and is this share of a language model's usual loss.
constexpr double kDiffusionDiverged = 1.4;

const TrialResult* lowest(const std::vector<TrialResult>& trials) {
  const TrialResult* best = nullptr;
  for (const auto& trial : trials)
    if (is_complete(trial) && (!best || *trial.loss < *best->loss)) best = &trial;
  return best;
}

std::vector<LogPoint> to_log_points(const std::vector<NewPoint>& points) {
  std::vector<LogPoint> result;
  for (const auto& point : points) result.push_back({point.x, point.y});
  return result;
}

FitOptions fit_options(const Study& study, std::string_view purpose) {
  FitOptions options;
  options.seed = derived_seed(study.seed, purpose);
  options.loss_unit = loss_unit(study.proxy.shape);
  return options;
}

/// The trials with the losses of one horizon; a complete one that lacks it has none.
std::vector<TrialResult> at_horizon(std::vector<TrialResult> trials, double fraction) {
  for (auto& trial : trials) {
    const auto found = std::ranges::find(trial.branches, fraction, &BranchLoss::fraction);
    if (!trial.loss) continue;
    trial.loss.reset();
    if (found != trial.branches.end()) trial.loss = found->loss;
  }
  return trials;
}

std::optional<HorizonTrend> horizon_trend(const std::vector<Horizon>& horizons) {
  std::vector<double> x, y, weights;
  std::vector<const Optimum*> fits;
  for (const auto& horizon : horizons) {
    const auto* fit = std::get_if<Optimum>(&horizon.fit);
    if (!fit || !fit->bracketed()) continue;
    fits.push_back(fit);
    x.push_back(std::log2(static_cast<double>(horizon.steps)));
    y.push_back(fit->lr.estimate);
    weights.push_back(1 / std::pow(std::max(fit->lr.ci.hi - fit->lr.ci.lo, 1e-3), 2));
  }
  if (fits.size() < 2) return std::nullopt;
  std::vector<double> slopes;
  const auto num_draws =
      std::ranges::min(fits, {}, [](const auto* fit) { return fit->draws.size(); })->draws.size();
  Generator random(num_draws);
  for (std::size_t i = 0; i < num_draws; ++i) {
    // At random: a fit's draws lie in order of the skew, so that pairs by index would move together.
    std::vector<double> drawn;
    for (const auto* fit : fits)
      drawn.push_back(fit->draws[static_cast<std::size_t>(random.uniform() * static_cast<double>(fit->draws.size()))].x);
    slopes.push_back(fit_line(x, drawn, weights).slope);
  }
  // The shape floor of two optima an average distance apart.
  const double span = x.back() - x.front();
  HorizonTrend trend;
  trend.slope = fit_line(x, y, weights).slope;
  trend.ci =
      draws_interval(trend.slope, std::move(slopes), 0.95, std::sqrt(2.0) * FitOptions{}.shape_floor / span);
  trend.num_horizons = static_cast<int>(fits.size());
  return trend;
}

/// Walks the stages in order and stops at the first that lacks trials. Every decision is made anew from the
/// results, so the points that an extension added are found again by making the same fit again.
class Analyst {
 public:
  Analyst(const Study& study, const std::vector<TrialResult>& results) : study_(study), ledger_(results) {}

  Analysis run() {
    walk();
    out_.missing = ledger_.missing();
    out_.asked = ledger_.asked();
    out_.num_failed = ledger_.num_failed();
    if (out_.stage == Stage::done) conclude();
    return std::move(out_);
  }

 private:
  void walk() {
    out_.stage = Stage::scan;
    if (!scan()) return;
    out_.stage = Stage::sweep;
    if (!sweep()) return;
    out_.stage = Stage::targets;
    if (!targets()) return;
    out_.stage = Stage::done;
  }

  void note(std::string text) { out_.notes.push_back(std::move(text)); }
  void undecided(std::string text) {
    undecided_ = true;
    note(std::move(text));
  }
  void give_up(std::string text) {
    undecided(std::move(text));
    out_.stage = Stage::done;
  }

  /// Each returns true when the next stage can begin.
  bool scan();
  bool sweep();
  bool targets();

  void censor(std::vector<TrialResult>& sweep);
  double loss_scale(const std::vector<TrialResult>& trials) const {
    const auto* best = lowest(trials);
    return best ? *best->loss : 0;
  }
  double tolerance(double loss) const {
    return Tolerance{study_.drift.tolerance_fraction, study_.drift.tolerance_nats}.of(loss);
  }

  FitOptions sweep_options(const std::vector<TrialResult>& trials) const;
  void fit_sweep();
  void fit_horizons();
  std::vector<NewPoint> more_points(int round);
  Hyperparameters optimum(const Optimum& fit) const;
  TargetAnalysis target(const TargetSpec& spec);
  std::optional<double> noise_near(const std::vector<TrialResult>& trials) const;
  void drift(TargetAnalysis& target);
  void go_on(TargetAnalysis& target, int claims);
  bool hold_claims();
  DriftOptions drift_options(const TargetAnalysis& target, int runs_left, int claims) const;
  DriftReport judge(const TargetAnalysis& target, int runs_left, int claims) const;

  void conclude();
  void note_scan_edge();
  void note_equal_losses();
  void conclude_target(const TargetAnalysis& target);

  const Study& study_;
  Ledger ledger_;
  Analysis out_;
  bool undecided_ = false;
  bool drifted_ = false;
};

bool Analyst::scan() {
  out_.init_std = study_.base.init_std;
  const auto trials = ledger_.look_up(plan_scan(study_));
  for (const auto& trial : trials) {
    const double init_std = trial.spec.base.init_std;
    if (out_.scan.empty() || out_.scan.back().init_std != init_std)
      out_.scan.emplace_back().init_std = init_std;
    out_.scan.back().trials.push_back(trial);
  }
  for (auto& row : out_.scan)
    if (const auto* best = lowest(row.trials)) row.best = *best;
  if (!all_ended(trials)) return false;
  if (trials.empty()) return true;
  const auto* best = lowest(trials);
  if (!best) {
    give_up("no trial of the initial-std scan finished; lower [space] scan_lr or the std values");
    return false;
  }
  out_.init_std = best->spec.base.init_std;
  return true;
}

/// What the sweep knows by now decides; a later round can censor more, never less.
void Analyst::censor(std::vector<TrialResult>& sweep) {
  if (!study_.search.early_stopping) return;
  for (auto& censoring : censored(sweep)) {
    auto& trial = *std::ranges::find(sweep, censoring.trial, &TrialResult::key);
    if (trial.state == TrialState::pruned) continue;
    trial.state = TrialState::pruned;
    trial.loss.reset();
    trial.diverged_step.reset();
    trial.steps = censoring.step;
    trial.message = censoring.reason;
    ledger_.settle(trial.key);
    out_.censored.push_back(std::move(censoring));
  }
}

/// What the sweep should try after `round` earlier additions.
std::vector<NewPoint> Analyst::more_points(int round) {
  const auto points = fit_points(out_.sweep);
  if (study_.search.method == SearchMethod::adaptive) {
    AdaptiveOptions options = adaptive_options(study_);
    options.tolerance = tolerance(loss_scale(out_.sweep));
    const auto step = adaptive_step(points, *out_.fit, options);
    out_.search_end = step.reason;
    out_.search_settled = step.settled;
    return step.next;
  }
  const auto* fit = std::get_if<Optimum>(&*out_.fit);
  if (!fit || round == study_.search.extensions) return {};
  return extension_points(*fit, points);
}

bool Analyst::sweep() {
  append_new(out_.sweep, ledger_.look_up(plan_sweep(study_, out_.init_std)));
  for (int round = 0;; ++round) {
    out_.fit.reset();
    censor(out_.sweep);
    if (!all_ended(out_.sweep)) return false;
    fit_sweep();
    const auto points = to_log_points(more_points(round));
    if (!append_new(out_.sweep, ledger_.look_up(plan_extension(study_, out_.init_std, points)))) break;
  }
  if (const auto* few = std::get_if<TooFewTrials>(&*out_.fit)) give_up("proxy: " + few->message);
  if (const auto* poor = std::get_if<RankDeficient>(&*out_.fit)) give_up("proxy: " + poor->message);
  const auto* fit = std::get_if<Optimum>(&*out_.fit);
  if (fit) out_.optimum = optimum(*fit);
  if (fit) fit_horizons();
  return fit != nullptr;
}

FitOptions Analyst::sweep_options(const std::vector<TrialResult>& trials) const {
  FitOptions options = fit_options(study_, "fit/proxy");
  const auto noise = seed_noise(trials, study_.search.replicates);
  options.sigma0 = noise.sigma;
  options.nu0 = noise.df;
  options.regret_tolerance = tolerance(loss_scale(trials));
  return options;
}

void Analyst::fit_sweep() { out_.fit = fit_optimum(fit_points(out_.sweep), sweep_options(out_.sweep)); }

/// The same fit, once for each horizon; what the whole run's fit decides is left alone.
void Analyst::fit_horizons() {
  if (study_.branches.empty()) return;
  TrialSpec spec;
  spec.run = study_.proxy;
  spec.schedule = study_.schedule;
  spec.branches = study_.branches;
  for (const auto& branch : branch_points(spec)) {
    auto options = sweep_options(at_horizon(out_.sweep, branch.fraction));
    options.seed = derived_seed(study_.seed, fmt::format("fit/proxy/{}", branch.fraction));
    out_.horizons.push_back(
        {branch.fraction, branch.steps, fit_optimum(fit_points(out_.sweep, branch.fraction), options)});
  }
  out_.horizons.push_back({1, study_.proxy.steps, *out_.fit});
  out_.trend = horizon_trend(out_.horizons);
}

Hyperparameters Analyst::optimum(const Optimum& fit) const {
  Hyperparameters values = study_.base;
  values.init_std = out_.init_std;
  std::tie(values.lr, values.wd) = values_to_transfer(fit, fit_points(out_.sweep));
  return values;
}

bool Analyst::targets() {
  out_.confirmation = ledger_.look_up(plan_confirmation(study_, *out_.optimum));
  for (const auto& spec : study_.targets) out_.targets.push_back(target(spec));
  while (ledger_.missing().empty() && hold_claims()) continue;
  return ledger_.missing().empty();
}

TargetAnalysis Analyst::target(const TargetSpec& spec) {
  TargetAnalysis result;
  result.spec = spec;
  result.config = transfer(spec.name, spec.run, study_.proxy, *out_.optimum, spec.rule);
  result.transferred = ledger_.look_up(plan_transferred(study_, spec, *out_.optimum));
  if (spec.baseline) result.baseline = ledger_.look_up(plan_baseline(study_, spec, *out_.optimum));
  if (is_complete(*result.transferred)) result.tolerance = tolerance(*result.transferred->loss);
  if (spec.drift) drift(result);
  auto trained = result.around;
  trained.push_back(*result.transferred);
  const auto noise = noise_near(trained), proxy_noise = noise_near(out_.sweep);
  if (noise && proxy_noise)
    result.measured_sigma0 = *noise / *proxy_noise * result.config.sigma0_ratio /
                             models::gradient_noise_ratio(spec.run, study_.proxy);
  return result;
}

/// Geometric mean of the gradient noise within an octave of the optimum's LR.
std::optional<double> Analyst::noise_near(const std::vector<TrialResult>& trials) const {
  double sum = 0;
  int count = 0;
  for (const auto& trial : trials) {
    if (!trial.gradient_noise || std::abs(std::log2(trial.spec.base.lr / out_.optimum->lr)) > 1) continue;
    sum += std::log(*trial.gradient_noise);
    ++count;
  }
  if (count == 0) return std::nullopt;
  return std::exp(sum / count);
}

/// The seven points first.
void Analyst::drift(TargetAnalysis& target) {
  for (const auto& spec : plan_target(study_, target.spec, *out_.optimum))
    if (spec.role != TrialRole::check) target.around.push_back(ledger_.look_up(spec));
  go_on(target, 1);
}

/// While the verdict is open, the points that the judge asks for, up to the cap.
void Analyst::go_on(TargetAnalysis& target, int claims) {
  for (;;) {
    target.drift.reset();
    if (!all_ended(target.around)) return;
    const auto left = study_.drift.max_trials - static_cast<int>(target.around.size());
    target.drift = judge(target, left, claims);
    auto points = to_log_points(target.drift->next);
    points.resize(std::min(points.size(), static_cast<std::size_t>(std::max(left, 0))));
    const auto specs = plan_drift_extension(study_, target.spec, *out_.optimum, points);
    if (!append_new(target.around, ledger_.look_up(specs))) break;
  }
  // Nothing more can be added: a verdict that counts on more runs is not one.
  if (!target.drift->next.empty()) target.drift = judge(target, 0, claims);
}

/// Each of the study's own targets is a chance of a false DRIFT: one whose claim does not survive Holm's
/// correction is judged again at the level that it asks for. True when there was one.
bool Analyst::hold_claims() {
  std::vector<TargetAnalysis*> own;
  std::vector<double> claim_p;
  for (auto& target : out_.targets)
    if (target.drift && target.drift->fit && !is_comparator(study_, target.spec))
      own.push_back(&target), claim_p.push_back(target.drift->claim_p);
  const auto claims = holm_claims(claim_p);
  bool held = false;
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (own[i]->drift->verdict != Verdict::drift || claim_p[i] * claims[i] < 1) continue;
    go_on(*own[i], claims[i]);
    held = true;
  }
  return held;
}

DriftOptions Analyst::drift_options(const TargetAnalysis& target, int runs_left, int claims) const {
  DriftOptions options;
  options.tolerance = target.tolerance.value_or(tolerance(loss_scale(target.around)));
  options.lr_shift = study_.drift.lr_shift;
  options.wd_shift = study_.drift.wd_shift;
  options.strict = study_.drift.strict;
  options.claims = claims;
  options.extensions_left = runs_left;
  options.fit = fit_options(study_, "fit/" + target.spec.name);
  options.fit.regret_tolerance = options.tolerance;
  return options;
}

DriftReport Analyst::judge(const TargetAnalysis& target, int runs_left, int claims) const {
  if (!lowest(target.around)) {
    DriftReport report;
    report.reason = "no trial of the drift design finished";
    report.num_diverged =
        static_cast<int>(std::count_if(target.around.begin(), target.around.end(), [](const auto& trial) {
          return trial.state == TrialState::diverged;
        }));
    return report;
  }
  // The point itself, not the fit's unrounded estimate: it is what was trained.
  return judge_drift(fit_points(target.around), std::log2(out_.optimum->lr), std::log2(out_.optimum->wd),
                     std::get<Optimum>(*out_.fit), drift_options(target, runs_left, claims));
}

void Analyst::conclude() {
  note_scan_edge();
  const auto* fit = out_.fit ? std::get_if<Optimum>(&*out_.fit) : nullptr;
  const bool bracketed = fit && fit->bracketed();
  const bool adaptive = study_.search.method == SearchMethod::adaptive;
  if (fit && adaptive && !out_.search_settled)
    undecided(fmt::format("proxy: the search stopped before its rule held: {}{}", out_.search_end,
                          bracketed ? "; raise [search] max_trials or replicates, or ask for less"
                                    : "; widen [space.lr] or raise [search] max_trials"));
  else if (fit && !bracketed)
    undecided(
        fmt::format("proxy: the best LR lies on the edge of what was tried ({} trials); widen [space.lr] or "
                    "raise [search] extensions",
                    out_.sweep.size()));
  if (const auto check = confirmation(study_, out_); check && !check->agrees())
    note(fmt::format(
        "proxy: {} trials at the optimum came to {:.4f}, {:+.4f} from the fit: more than its noise",
        check->num_trials, check->mean, check->difference));
  note_equal_losses();
  for (const auto& target : out_.targets) conclude_target(target);
  if (!out_.censored.empty())
    note(
        fmt::format("{} trial{} stopped early and kept out of the fit; `tuneonce query \"SELECT * FROM "
                    "censored\"` says why",
                    out_.censored.size(), out_.censored.size() == 1 ? " was" : "s were"));
  if (out_.num_failed > 0)
    note(fmt::format("{} trial{} failed after all retries; `tuneonce results` lists {}", out_.num_failed,
                     out_.num_failed == 1 ? "" : "s", out_.num_failed == 1 ? "it" : "them"));
  out_.exit_code = drifted_ && bracketed ? 3 : out_.num_failed > 0 ? 1 : undecided_ || drifted_ ? 4 : 0;
}

/// A program that does not use what it is given, say.
void Analyst::note_equal_losses() {
  std::set<double> losses, lrs;
  for (const auto& trial : out_.sweep)
    if (is_complete(trial)) losses.insert(*trial.loss), lrs.insert(trial.spec.base.lr);
  if (losses.size() == 1 && lrs.size() > 1)
    note(fmt::format(
        "proxy: every loss is {:.6g} whatever the LR; is what trains given the LR, and does it use it?",
        *losses.begin()));
}

/// Only a remark: the sweep is sound at any std, but a better std may lie outside.
void Analyst::note_scan_edge() {
  if (out_.scan.size() < 2 || !out_.fit) return;
  const bool low = out_.init_std == out_.scan.front().init_std;
  if (low || out_.init_std == out_.scan.back().init_std)
    note(fmt::format("initial std: the best one, {}, is the {} that was scanned; scan {} ones too",
                     out_.init_std, low ? "smallest" : "largest", low ? "smaller" : "larger"));
}

void Analyst::conclude_target(const TargetAnalysis& target) {
  const std::string& who = target.spec.name;
  if (is_comparator(study_, target.spec)) {
    if (target.drift && exit_code(target.drift->verdict) != 0)
      note(fmt::format("{}: {}, {}; rule {} is there to compare with, so the exit code does not heed it", who,
                       name(target.drift->verdict), target.drift->reason,
                       models::name(target.spec.rule.rule)));
    return;
  }
  if (target.transferred->state == TrialState::diverged)
    undecided(fmt::format("{}: diverged at the transferred point", who));
  if (!target.drift) return;
  const auto& report = *target.drift;
  const std::string verdict = fmt::format("{}: {}, {}", who, name(report.verdict), report.reason);
  switch (exit_code(report.verdict)) {
    case 0: return;
    case 3:
      drifted_ = true;
      note(verdict);
      return;
    default:
      undecided(report.more_runs > 0
                    ? fmt::format("{} (about {} more run{} would settle it)", verdict, report.more_runs,
                                report.more_runs == 1 ? "" : "s")
                    : verdict);
  }
}

}  // namespace

std::string_view name(Stage stage) {
  switch (stage) {
    case Stage::scan: return "scan";
    case Stage::sweep: return "sweep";
    case Stage::targets: return "targets";
    case Stage::done: return "done";
  }
  throw std::logic_error("name: unknown Stage");
}

Stage stage_of(TrialRole role) {
  switch (role) {
    case TrialRole::scan: return Stage::scan;
    case TrialRole::proxy: return Stage::sweep;
    case TrialRole::target:
    case TrialRole::drift:
    case TrialRole::check: return Stage::targets;
  }
  throw std::logic_error("stage_of: unknown TrialRole");
}

std::string model_name(const Horizon& horizon) { return fmt::format("proxy@{}", horizon.fraction); }

std::string describe_horizons(const Analysis& analysis) {
  if (analysis.horizons.empty()) return "";
  std::string text = "horizons   steps      LR*        95% CI                  best loss";
  for (const auto& horizon : analysis.horizons) {
    text += fmt::format("\n  {:<8.4g} {:<10}", horizon.fraction, horizon.steps);
    if (const auto* fit = std::get_if<Optimum>(&horizon.fit))
      text += fmt::format(" {:<10.2g} {:<23} {:.4f}{}", std::exp2(fit->lr.estimate),
                          fmt::format("[{:.2g}, {:.2g}]", std::exp2(fit->lr.ci.lo), std::exp2(fit->lr.ci.hi)),
                          fit->best_loss, fit->bracketed() ? "" : "   not bracketed");
    else if (const auto* few = std::get_if<TooFewTrials>(&horizon.fit))
      text += " " + few->message;
    else
      text += " " + std::get<RankDeficient>(horizon.fit).message;
  }
  if (!analysis.trend) return text + "\n  no trend: fewer than two horizons have a bracketed optimum";
  return text +
         fmt::format("\n  trend: LR* moves by {:+.2f} [{:+.2f}, {:+.2f}] octaves per doubling of the steps",
                     analysis.trend->slope, analysis.trend->ci.lo, analysis.trend->ci.hi);
}

std::vector<std::vector<TrialResult>> sweeps_under_way(const Study& study, const Analysis& analysis) {
  std::vector<std::vector<TrialResult>> sweeps;
  if (!study.search.early_stopping) return sweeps;
  if (analysis.stage == Stage::sweep) sweeps.push_back(analysis.sweep);
  return sweeps;
}

std::vector<FitPoint> fit_points(const std::vector<TrialResult>& trials) {
  std::vector<FitPoint> points;
  const auto* best = lowest(trials);
  std::map<std::uint64_t, int> blocks;  // seeds in order of appearance
  for (const auto& trial : trials) {
    const bool diverged = trial.state == TrialState::diverged;
    if (!diverged && !is_complete(trial)) continue;
    FitPoint point{.x = std::log2(trial.spec.base.lr), .y = std::log2(trial.spec.base.wd)};
    point.diverged = diverged;
    if (!diverged) point.loss = *trial.loss;
    if (!diverged && trial.spec.run.shape.is_diffusion())
      point.diverged = point.loss > kDiffusionDiverged * *best->loss;
    point.seed_block = blocks.emplace(trial.spec.seed, static_cast<int>(blocks.size())).first->second;
    points.push_back(point);
  }
  return points;
}

std::vector<FitPoint> fit_points(const std::vector<TrialResult>& trials, double fraction) {
  return fit_points(at_horizon(trials, fraction));
}

SeedNoise seed_noise(const std::vector<TrialResult>& trials, int replicates) {
  std::map<std::pair<double, double>, std::vector<double>> cells;
  for (const auto& trial : trials)
    if (is_complete(trial)) cells[{trial.spec.base.lr, trial.spec.base.wd}].push_back(*trial.loss);
  const auto n = static_cast<std::size_t>(replicates);
  std::vector<std::pair<double, std::vector<double>>> full;  // mean, losses by replicate
  for (const auto& [point, losses] : cells) {
    if (losses.size() != n) continue;
    double mean = 0;
    for (const double loss : losses) mean += loss / replicates;
    full.emplace_back(mean, losses);
  }
  std::sort(full.begin(), full.end());
  full.resize((full.size() + 1) / 2);
  if (n < 2 || full.size() < 2) return {};

  std::vector<double> seed_mean(n, 0.0);
  for (const auto& [mean, losses] : full)
    for (std::size_t i = 0; i < n; ++i) seed_mean[i] += (losses[i] - mean) / static_cast<double>(full.size());
  double squares = 0;
  for (const auto& [mean, losses] : full)
    for (std::size_t i = 0; i < n; ++i) squares += std::pow(losses[i] - mean - seed_mean[i], 2);
  const double df = static_cast<double>((n - 1) * (full.size() - 1));
  return {.sigma = std::sqrt(squares / df), .df = df};
}

std::pair<double, double> values_to_transfer(const Optimum& fit, const std::vector<FitPoint>& points) {
  double wd = fit.wd_fitted ? fit.wd.estimate : fit.best_observed.y;
  if (fit.wd_fitted && !fit.wd.bracketed) {
    const auto [lowest, highest] = std::ranges::minmax_element(points, {}, &FitPoint::y);
    wd = std::clamp(wd, lowest->y, highest->y);
  }
  return {rounded(std::exp2(fit.lr.estimate)), rounded(std::exp2(wd))};
}

std::optional<Confirmation> confirmation(const Study& study, const Analysis& analysis) {
  const auto* fit = analysis.fit ? std::get_if<Optimum>(&*analysis.fit) : nullptr;
  if (!fit || !analysis.optimum) return std::nullopt;
  Confirmation result;
  for (const auto& trial : analysis.confirmation)
    if (is_complete(trial)) ++result.num_trials, result.mean += *trial.loss;
  if (result.num_trials == 0) return std::nullopt;
  result.mean /= result.num_trials;
  const double expected =
      evaluate(*fit, fit->mean, std::log2(analysis.optimum->lr), std::log2(analysis.optimum->wd));
  result.difference = result.mean - expected;
  // The seeds of the sweep have a common part that no residual of the fit shows: one more draw of it.
  const double share = 1.0 / result.num_trials + 1.0 / study.search.replicates;
  result.bound = quantile(boost::math::students_t(fit->df), 0.975) * fit->sigma * std::sqrt(share);
  return result;
}

Analysis analyse(const Study& study, const std::vector<TrialResult>& results) {
  return Analyst(study, results).run();
}

}  // namespace sweeps
