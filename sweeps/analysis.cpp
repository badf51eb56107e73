#include "sweeps/analysis.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <stdexcept>

#include <fmt/format.h>

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
    if (found != by_key_.end()) result = *found->second;
    if (!has_ended(result.state) && seen_missing_.insert(key).second) missing_.push_back(spec);
    if (result.state == TrialState::failed) failed_.insert(key);
    return result;
  }

  std::vector<TrialResult> look_up(const std::vector<TrialSpec>& specs) {
    std::vector<TrialResult> results;
    for (const auto& spec : specs) results.push_back(look_up(spec));
    return results;
  }

  const std::vector<TrialSpec>& missing() const { return missing_; }
  int num_failed() const { return static_cast<int>(failed_.size()); }

 private:
  std::map<TrialKey, const TrialResult*> by_key_;
  std::vector<TrialSpec> missing_;
  std::set<TrialKey> seen_missing_, failed_;
};

/// Adds the trials that are not there yet; true when there were any.
bool append_new(std::vector<TrialResult>& trials, const std::vector<TrialResult>& more) {
  const auto size = trials.size();
  for (const auto& trial : more)
    if (std::none_of(trials.begin(), trials.end(), [&](const auto& old) { return old.key == trial.key; }))
      trials.push_back(trial);
  return trials.size() > size;
}

bool all_ended(const std::vector<TrialResult>& trials) {
  return std::all_of(trials.begin(), trials.end(), [](const auto& trial) { return has_ended(trial.state); });
}

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
  return options;
}

/// Walks the stages in order and stops at the first that lacks trials. Every decision is made anew from the
/// results, so the points that an extension added are found again by making the same fit again.
class Analyst {
 public:
  Analyst(const Study& study, const std::vector<TrialResult>& results) : study_(study), ledger_(results) {}

  Analysis run() {
    walk();
    out_.missing = ledger_.missing();
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

  double loss_scale(const std::vector<TrialResult>& trials) const {
    const auto* best = lowest(trials);
    return best ? *best->loss : 0;
  }
  double tolerance(double loss) const {
    return study_.drift.tolerance_nats > 0 ? study_.drift.tolerance_nats
                                           : study_.drift.tolerance_fraction * loss;
  }

  void fit_sweep();
  double transferred_log2_wd(const Optimum& fit) const;
  Hyperparameters optimum(const Optimum& fit) const;
  TargetAnalysis target(const TargetSpec& spec);
  void drift(TargetAnalysis& target);
  DriftOptions drift_options(const TargetAnalysis& target, int runs_left) const;
  DriftReport judge(const TargetAnalysis& target, int runs_left) const;

  void conclude();
  void note_scan_edge();
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

bool Analyst::sweep() {
  append_new(out_.sweep, ledger_.look_up(plan_sweep(study_, out_.init_std)));
  for (int round = 0;; ++round) {
    out_.fit.reset();
    if (!all_ended(out_.sweep)) return false;
    fit_sweep();
    const auto* fit = std::get_if<Optimum>(&*out_.fit);
    if (!fit || round == study_.search.extensions) break;
    const auto points = to_log_points(extension_points(*fit, fit_points(out_.sweep)));
    if (!append_new(out_.sweep, ledger_.look_up(plan_extension(study_, out_.init_std, points)))) break;
  }
  if (const auto* few = std::get_if<TooFewTrials>(&*out_.fit)) give_up("proxy: " + few->message);
  if (const auto* poor = std::get_if<RankDeficient>(&*out_.fit)) give_up("proxy: " + poor->message);
  const auto* fit = std::get_if<Optimum>(&*out_.fit);
  if (fit) out_.optimum = optimum(*fit);
  return fit != nullptr;
}

/// Standard deviation between seeds from cells that are complete in every replicate, each cell's and each
/// seed's mean taken out. The worse half of the cells is left out: far from the optimum the spread is larger.
struct SeedNoise {
  double sigma = 0;
  double df = 0;
};
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

void Analyst::fit_sweep() {
  FitOptions options = fit_options(study_, "fit/proxy");
  const auto noise = seed_noise(out_.sweep, study_.search.replicates);
  options.sigma0 = noise.sigma;
  options.nu0 = noise.df;
  options.regret_tolerance = tolerance(loss_scale(out_.sweep));
  out_.fit = fit_optimum(fit_points(out_.sweep), options);
}

/// Without a fitted WD axis there is one WD, or too few points to tell several apart: the best seen. Where WD
/// is open on a side, the fit only says "as far as you like": no further than what was tried.
double Analyst::transferred_log2_wd(const Optimum& fit) const {
  if (!fit.wd_fitted) return fit.best_observed.y;
  if (fit.wd.bracketed) return fit.wd.estimate;
  const auto points = fit_points(out_.sweep);
  const auto [lowest, highest] = std::ranges::minmax_element(points, {}, &FitPoint::y);
  return std::clamp(fit.wd.estimate, lowest->y, highest->y);
}

Hyperparameters Analyst::optimum(const Optimum& fit) const {
  Hyperparameters values = study_.base;
  values.init_std = out_.init_std;
  values.lr = rounded(std::exp2(fit.lr.estimate));
  values.wd = rounded(std::exp2(transferred_log2_wd(fit)));
  return values;
}

bool Analyst::targets() {
  for (const auto& spec : study_.targets) out_.targets.push_back(target(spec));
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
  return result;
}

/// The seven points first; while the verdict is open, the points that the judge asks for, up to the cap.
void Analyst::drift(TargetAnalysis& target) {
  for (const auto& spec : plan_target(study_, target.spec, *out_.optimum))
    if (spec.role != TrialRole::check) target.around.push_back(ledger_.look_up(spec));
  for (;;) {
    target.drift.reset();
    if (!all_ended(target.around)) return;
    const auto left = study_.drift.max_trials - static_cast<int>(target.around.size());
    target.drift = judge(target, left);
    auto points = to_log_points(target.drift->next);
    points.resize(std::min(points.size(), static_cast<std::size_t>(std::max(left, 0))));
    const auto specs = plan_drift_extension(study_, target.spec, *out_.optimum, points);
    if (!append_new(target.around, ledger_.look_up(specs))) break;
  }
  // Nothing more can be added: a verdict that counts on more runs is not one.
  if (!target.drift->next.empty()) target.drift = judge(target, 0);
}

DriftOptions Analyst::drift_options(const TargetAnalysis& target, int runs_left) const {
  DriftOptions options;
  options.tolerance = target.tolerance.value_or(tolerance(loss_scale(target.around)));
  options.lr_shift = study_.drift.lr_shift;
  options.wd_shift = study_.drift.wd_shift;
  options.extensions_left = runs_left;
  options.fit = fit_options(study_, "fit/" + target.spec.name);
  options.fit.regret_tolerance = options.tolerance;
  return options;
}

DriftReport Analyst::judge(const TargetAnalysis& target, int runs_left) const {
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
                     std::get<Optimum>(*out_.fit), drift_options(target, runs_left));
}

void Analyst::conclude() {
  note_scan_edge();
  const auto* fit = out_.fit ? std::get_if<Optimum>(&*out_.fit) : nullptr;
  const bool bracketed = fit && fit->bracketed();
  if (fit && !bracketed)
    undecided(
        fmt::format("proxy: the best LR lies on the edge of what was tried ({} trials); widen [space.lr] or "
                    "raise [search] extensions",
                    out_.sweep.size()));
  for (const auto& target : out_.targets) conclude_target(target);
  if (out_.num_failed > 0)
    note(fmt::format(
        "{} trial{} failed after all retries; see `tuneonce results`, mend the cause and run again",
        out_.num_failed, out_.num_failed == 1 ? "" : "s"));
  out_.exit_code = drifted_ && bracketed ? 3 : out_.num_failed > 0 ? 1 : undecided_ || drifted_ ? 4 : 0;
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
                    ? fmt::format("{} (about {} more runs would settle it)", verdict, report.more_runs)
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

std::vector<FitPoint> fit_points(const std::vector<TrialResult>& trials) {
  std::vector<FitPoint> points;
  std::map<std::uint64_t, int> blocks;  // seeds in order of appearance
  for (const auto& trial : trials) {
    const bool diverged = trial.state == TrialState::diverged;
    if (!diverged && !is_complete(trial)) continue;
    FitPoint point{.x = std::log2(trial.spec.base.lr), .y = std::log2(trial.spec.base.wd)};
    point.diverged = diverged;
    if (!diverged) point.loss = *trial.loss;
    point.seed_block = blocks.emplace(trial.spec.seed, static_cast<int>(blocks.size())).first->second;
    points.push_back(point);
  }
  return points;
}

Analysis analyse(const Study& study, const std::vector<TrialResult>& results) {
  return Analyst(study, results).run();
}

}  // namespace sweeps
