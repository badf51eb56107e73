#pragma once

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sweeps/censoring.h"
#include "sweeps/drift.h"
#include "sweeps/fit.h"
#include "sweeps/plan.h"
#include "sweeps/study.h"
#include "sweeps/transfer.h"

namespace sweeps {

/// Where a study stands. Each stage is a pure function of the results so far, so any stage can be computed
/// again from the database and a killed run goes on where it was.
enum class Stage { scan, sweep, targets, done };
/// The stage that asks for such trials.
Stage stage_of(TrialRole role);
std::string_view name(Stage stage);

/// The initial-std scan: for each std the losses at the start LR and one octave either side.
struct ScanRow {
  double init_std = 0;
  std::vector<TrialResult> trials;  // in order of LR
  std::optional<TrialResult> best;  // lowest loss; absent while none is complete
};

struct TargetAnalysis {
  TargetSpec spec;
  TargetConfig config;
  std::optional<TrialResult> transferred;  // at the transferred point
  std::optional<TrialResult> baseline;     // same shape under SP at the proxy's values
  std::vector<TrialResult> around;         // the drift design, the transferred point included
  std::optional<DriftReport> drift;        // once all of `around` has ended
  std::optional<double> tolerance;         // nats; known once the transferred point is trained
  /// sigma_0 against the proxy's as measured, to be compared with config.sigma0_ratio: geometric mean of
  /// TrialResult::gradient_noise within an octave of the transferred LR, over the same of the proxy's sweep, times
  /// the duration's LR factor. Empty while either is not known.
  std::optional<double> measured_sigma0;
};

/// The optimum of the sweep at one horizon: the fit of the decayed losses there.
struct Horizon {
  double fraction = 1;  // of the steps
  std::int64_t steps = 0;
  FitResult fit;
};
/// "proxy@0.25": how tables call the proxy's optimum at a shorter horizon.
std::string model_name(const Horizon& horizon);
/// How the optimum LR moves with the length of the run: slope of log2 LR* over log2 steps, octaves per
/// doubling, by least squares with weights 1 / (95 % width)^2 over the horizons with a bracketed optimum. The
/// interval is that of the slopes of the fits' draws, taken as independent; they share trials, so it is
/// rather too wide.
struct HorizonTrend {
  double slope = 0;
  Interval ci;
  int num_horizons = 0;
};

struct Analysis {
  Stage stage = Stage::scan;
  std::vector<ScanRow> scan;
  double init_std = 0;                     // the proxy's, scanned or given
  std::vector<TrialResult> sweep;          // proxy trials, extensions included
  std::optional<FitResult> fit;            // once all of `sweep` has ended
  std::optional<Hyperparameters> optimum;  // rule coordinates
  std::vector<Horizon> horizons;           // of [train] branches, the shortest first, the whole run last
  std::optional<HorizonTrend> trend;       // once two horizons have a bracketed optimum
  std::string search_end;                  // adaptive: why the search stopped, once it has
  bool search_settled = false;             // because its stop rule held
  std::vector<TrialResult> confirmation;   // trials at the optimum in fresh seeds
  std::vector<TargetAnalysis> targets;     // once there is an optimum
  /// What the rules of early stopping keep out of the fits; such a trial is shown as pruned, whether it was
  /// stopped in time or trained to its end.
  std::vector<Censoring> censored;
  std::set<TrialKey> asked;  // every trial that the study asks for, of this stage and earlier ones
  int num_failed = 0;                      // trials without a result after their retries
  std::vector<TrialSpec> missing;          // trials of this stage that have not ended: what to run next
  /// 0 done and every gate passed; 1 failed trials; 3 DRIFT; 4 no verdict yet. Meaningful when done.
  /// A proven DRIFT stands whatever else happened, so it goes first; unless the proxy itself is not
  /// bracketed: a point that was not the optimum says nothing about the rule. Failed trials explain most
  /// missing verdicts, so 1 goes before 4. Verdicts on comparators (other rules than the study's) count for
  /// nothing here.
  int exit_code = 0;
  std::vector<std::string> notes;  // why the exit code, what would settle it
};

/// A line a horizon and the trend, no trailing newline; empty without branches.
std::string describe_horizons(const Analysis& analysis);

/// Looks every planned trial up in `results` by key and takes each decision that they allow: best init std,
/// fit and up to [search] extensions on an edge, optimum, transfer, drift with further runs up to [drift]
/// max_trials while its verdict is open.
/// REQUIRES: study.data.fingerprint is filled in. Throws std::invalid_argument where the rule refuses.
Analysis analyse(const Study& study, const std::vector<TrialResult>& results);

/// The sweeps of the stage that lacks trials and that early stopping is for, for a SweepWatch: the proxy's. A drift
/// design has no point to spare, its verdict needs them all.
std::vector<std::vector<TrialResult>> sweeps_under_way(const Study& study, const Analysis& analysis);

/// The trials at the optimum against the fitted loss there. Their mean may differ by the noise of its seeds
/// and of the sweep's own: within `bound` (95 %) it agrees. Empty until one has finished.
struct Confirmation {
  int num_trials = 0;
  double mean = 0, difference = 0, bound = 0;  // nats
  bool agrees() const { return difference <= bound && difference >= -bound; }
};
std::optional<Confirmation> confirmation(const Study& study, const Analysis& analysis);

/// Results as the fit sees them: rule coordinates, diverged kept as barriers, pruned and failed left out.
std::vector<FitPoint> fit_points(const std::vector<TrialResult>& trials);
/// The same with the losses of one horizon; trials without one are left out. Horizons are never pooled.
std::vector<FitPoint> fit_points(const std::vector<TrialResult>& trials, double fraction);

/// Standard deviation between seeds from cells that are complete in every replicate, each cell's and each
/// seed's mean taken out; the trials of a cell in the same order of seeds everywhere. The worse half of the cells
/// is left out: far from the optimum the spread is larger. All 0 where there is nothing to compare.
struct SeedNoise {
  double sigma = 0;  // nats
  double df = 0;
};
SeedNoise seed_noise(const std::vector<TrialResult>& trials, int replicates);

/// LR and WD that a fit hands to the targets, with four digits. Without a fitted WD axis there is one WD, or too
/// few points to tell several apart: the best seen. Where WD is open on a side, the fit only says "as far as you
/// like": no further than what was tried.
std::pair<double, double> values_to_transfer(const Optimum& fit, const std::vector<FitPoint>& points);

}  // namespace sweeps
