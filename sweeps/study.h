#pragma once

#include <string>
#include <vector>

#include "sweeps/trial.h"

namespace sweeps {

/// The values one hyperparameter may take. Either `values` (at least one) or a range.
struct Range {
  double min = 0;
  double max = 0;
  bool log_scale = true;
  std::vector<double> values = {};  // explicit grid; then min and max are its ends
  int count = 0;                    // grid points of a range, end points included
};

enum class SearchMethod { grid, random, list, adaptive };
enum class StopRule {  // of the adaptive search
  measure,             // the 95 % half width of LR* is at most lr_half_width
  tune,                // the fitted optimum costs at most a third of [drift] tolerance, with 95 % confidence
};

struct SearchSpec {
  SearchMethod method = SearchMethod::grid;
  int max_trials = 36;         // random: this many points; adaptive: at most; grid, list: an error to exceed
  int replicates = 1;          // seeds per point
  int extensions = 4;          // times a sweep other than adaptive may grow where the optimum lies on an edge
  bool early_stopping = true;  // of runs that the fit would give no weight: censoring.h
  std::vector<std::pair<double, double>> points;  // list: (lr, wd)
  std::pair<double, double> start;                // adaptive: the guess (lr, wd)
  int batch = 2;                                  // adaptive: points at a time after the start
  StopRule stop = StopRule::measure;
  double lr_half_width = 0.25;  // octaves
  int confirm = 0;              // trials at the fitted optimum, each in a fresh seed
};

struct SpaceSpec {
  Range lr;
  Range wd;
  std::vector<double> init_std;  // empty: train.init_std is used as it is; else scanned first
  double scan_lr = 0;            // start LR of the scan; default the geometric middle of lr
  double scan_wd = 0;            // WD of the scan; default the geometric middle of wd
};

/// One [[target]]: a shape to transfer to and train; or the copy of one under a rule of [transfer] compare.
struct TargetSpec {
  std::string name;
  models::RunShape run;
  models::RuleOptions rule = {};  // the study's, unless the target names one of its own
  bool drift = false;             // sweep around the transferred point and judge
  bool baseline = true;           // also train the same shape under SP at the proxy's values
  std::string copy_of = {};       // the target that a copy shares its seed with; empty for a [[target]]
};

struct DriftSpec {
  double tolerance_fraction = 0.001;  // of the target's loss; or
  double tolerance_nats = 0;          // absolute, in loss_unit(), if above 0
  double lr_shift = 0.5;              // octaves, "location equivalent" bounds
  double wd_shift = 1.0;
  bool strict = false;  // a location proven to lie outside these bounds is DRIFT, though it costs little
  int max_trials = 25;  // runs around one target: 7 to begin with, more while the verdict is open
};

struct ResourceSpec {
  std::vector<std::string> devices;  // resolved names or "auto"
  int workers_per_device = 1;        // 0: as many as fit, by the memory that the first one was seen to take
  double device_share = 0;           // of a device, for each worker: floor(1 / share) on each; 0: not said
  std::int64_t memory = 0;           // bytes a worker may take, of its GPU or of the host; 0: not bounded
  std::int64_t host_reserve = std::int64_t{512} << 20;  // bytes of the host's memory that workers leave alone
};

/// How often a trial is tried again after each kind of loss. A user's error is never tried again.
struct RetrySpec {
  int crash = 2;
  int stalled = 2;
  int worker_lost = 2;
  int oom_host = 2;
  int oom_gpu = 1;  // alone on the device
  int gpu_lost = 2;
  double backoff = 1;  // seconds before the second attempt, doubling with each further loss, at most a minute
  int stop_after = 5;  // failures in a row from different trials; 0 = never

  int limit(FailureClass failure) const;
};

/// Bytes on the disk. What would go above them is rotated away (logs) or stops the run until there is room.
struct DiskSpec {
  std::int64_t log = std::int64_t{10} << 20;  // of one trial, rotated files included
  std::int64_t checkpoints = std::int64_t{20} << 30;
  std::int64_t study = std::int64_t{50} << 30;      // database, logs and checkpoints
  std::int64_t keep_free = std::int64_t{100} << 20;  // left to others on the database's file system
};

/// Everything one TOML file asks for, every default filled in. `load_study` makes it; nothing changes it
/// after.
struct Study {
  std::string name;
  std::uint64_t seed = 1;
  std::string text;  // resolved study as TOML, every default filled in; stored
  std::string hash;  // of the resolved text
  DataSpec data;
  models::RunShape proxy;  // the dense proxy
  CommandSpec command;     // what trains it, of family "command"
  Schedule schedule;
  std::vector<double> branches;  // horizons of the proxy's sweep, see TrialSpec
  Hyperparameters base;          // adamw and init_std; lr and wd are set by the sweep
  double clip = 1.0;
  Precision precision = Precision::float32;
  Balancing balancing = Balancing::bias;
  EvalSpec eval;
  SpaceSpec space;
  SearchSpec search;
  models::RuleOptions rule;
  std::vector<models::Parameterization> compare;  // each target with a drift check is tried under these too
  std::vector<TargetSpec> targets;                // a target's copies follow it
  DriftSpec drift;
  ResourceSpec resources;
  RetrySpec retry;
  DiskSpec disk;
};

/// A target under another rule than the study's is there to be compared with: its verdict is shown, and does
/// not decide the study's exit code.
bool is_comparator(const Study& study, const TargetSpec& target);

/// The options of [transfer] that some rule of the study looks at.
models::RuleUse options_in_use(const Study& study);

}  // namespace sweeps
