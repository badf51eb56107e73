#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/parameterization.h"

namespace sweeps {

/// Why a trial is trained. Stored in the database; add at the end only.
enum class TrialRole {
  scan = 0,    // initial-std scan of the proxy, before the sweep
  proxy = 1,   // LR x WD sweep of the dense proxy
  target = 2,  // a target at its transferred point
  drift = 3,   // around a target's transferred point
  check = 4,   // a target's shape under SP at the proxy's values
};

/// Stored in the database; add at the end only.
/// waiting -> running -> complete | diverged | failed; back to waiting when an attempt is lost and retries
/// remain. Stopped early: running -> pruned. Nobody asks for it any more: waiting -> dropped;
/// one that has ended keeps its state, and readers see it as dropped.
enum class TrialState {
  waiting = 0,
  running = 1,
  complete = 2,
  diverged = 3,
  failed = 4,
  pruned = 5,
  dropped = 6
};

/// Base values, in rule coordinates: what the proxy would use. group_scaling() turns them into a group's
/// values.
struct Hyperparameters {
  double lr = 1e-3;
  double wd = 0.1;  // decoupled decay, PyTorch's convention: theta *= 1 - lr * wd
  double init_std = 0.02;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-10;
  bool operator==(const Hyperparameters&) const = default;
};

enum class ScheduleKind { wsd, cosine, linear };

/// Fractions of the steps. LR rises linearly over `warmup`; wsd holds and falls linearly to 0 over the last
/// `decay`; cosine and linear fall to 0 from the end of the warm-up and ignore `decay`.
struct Schedule {
  ScheduleKind kind = ScheduleKind::wsd;
  double warmup = 0.02;
  double decay = 0.2;
  bool operator==(const Schedule&) const = default;
};

enum class DataSource {
  teacher,
  text,
  tokens,
  templates,
  images,
  command,  // whatever the user's own program reads
};
/// Whether a diffusion model learns from it; the others hold tokens for a language model.
bool has_images(DataSource source);

/// Where the tokens or images come from. `fingerprint` is filled in by inspecting the data and is part of a
/// trial's key, so a changed corpus is a different trial; the path is not.
struct DataSpec {
  DataSource source = DataSource::teacher;
  std::string path;  // text: a file or a folder; tokens: a .bin file or a folder with train.bin, val.bin;
                     // images: a file or a folder; command: handed to the program
  std::string validation_path;     // tokens: optional held-out file
  double holdout = 0.02;           // share held out, by a hash of document or image; 0: the test images
  std::uint64_t teacher_seed = 0;  // of the built-in sources: which teacher, which templates
  std::string fingerprint;
  bool operator==(const DataSpec&) const = default;
};

struct EvalSpec {
  std::int64_t tokens = 131072;  // fixed held-out set; of a diffusion model, images * patches of an image
  double every = 0.1;            // of the steps; the last evaluation is the objective
  bool operator==(const EvalSpec&) const = default;
};

enum class Precision { float32, bfloat16 };
enum class Balancing { bias, none };

/// The user's own program that trains a trial of family "command", and how its answer is found.
struct CommandSpec {
  std::vector<std::string> words;   // program and arguments as written, with {placeholders}: command_line.h
  std::string folder;               // where it runs; not part of a trial's key
  std::string metric = "val_loss";  // its last value is the objective, less is better
  std::string metric_regex;         // finds it in what the program prints (metric_pattern.h); empty: JSON lines
  double timeout_seconds = 0;       // of one attempt; 0: none; not part of a trial's key
  bool operator==(const CommandSpec&) const = default;
};

/// One training run: shape, hyperparameters, seed, data, schedule. Planned by sweeps, kept by db::Store,
/// carried out by a worker. A plain value: nothing in it changes after planning.
struct TrialSpec {
  std::string name;  // "proxy lr=1.0e-03 wd=0.10", for people; unique within a study
  TrialRole role = TrialRole::proxy;
  std::string target;  // the [[target]] it belongs to; empty for the proxy
  models::RunShape run;
  models::RunShape proxy;
  models::RuleOptions rule;
  Hyperparameters base;
  Schedule schedule;
  double clip = 1.0;  // per-slot global gradient norm; 0 = off
  Precision precision = Precision::float32;
  Balancing balancing = Balancing::bias;
  std::uint64_t seed = 0;  // initial weights and data order; the same for all cells of a sweep
  DataSpec data;
  EvalSpec eval;
  /// Horizons whose decayed loss is wanted too, as rising fractions of the steps that end with 1; empty:
  /// none. Only with a wsd schedule. See branch_points.
  std::vector<double> branches;
  CommandSpec command;  // of family "command"
  bool operator==(const TrialSpec&) const = default;
};

/// Steps between evaluations of the held-out loss; 0: only the last one is made.
std::int64_t eval_interval(const TrialSpec& spec);

/// A branch of the trunk, which is the run up to where it starts its own decay: what a run of `steps` steps
/// with the same warm-up would do after update `start`, where its decay begins.
struct BranchPoint {
  double fraction = 1;     // of the whole run
  std::int64_t start = 0;  // updates of the trunk
  std::int64_t steps = 0;  // updates at its end
};
/// Of the horizons below 1, in order.
std::vector<BranchPoint> branch_points(const TrialSpec& spec);

/// Updates a trial makes: those of the run and those of the branches' decays.
std::int64_t trained_steps(const TrialSpec& spec);

/// 32 hex digits: a 128-bit hash (XXH3) of everything that changes the trial's result and nothing else:
/// name, role, target's name and data path are left out.
using TrialKey = std::string;
TrialKey trial_key(const TrialSpec& spec);

/// Trials with equal stack keys can train side by side in one stack of slots: same run, proxy, rule,
/// precision, balancing, data, eval, schedule kind; LR, WD, init std, seed and betas are per slot.
std::string stack_key(const TrialSpec& spec);

/// A seed that depends on the study's seed and a purpose only (XXH3-64), never on order or worker.
std::uint64_t derived_seed(std::uint64_t study_seed, std::string_view purpose);

// --- outcomes of an attempt: a closed set ---

/// Why an attempt ended without a result. Stored; add at the end only.
enum class FailureClass {
  crash = 0,
  oom_gpu = 1,
  oom_host = 2,
  stalled = 3,
  worker_lost = 4,
  user_error = 5,
  cancelled = 6,
  gpu_lost = 7,   // the device went, not the trial
  disk_full = 8,  // the trial waits until there is room
};
inline constexpr std::size_t kNumFailureClasses = 9;

struct Finished {
  double loss =
      0;  // held-out, at the end of the decayed schedule: nats per token, or squared error per pixel
  std::optional<double> floor;  // exact floor on the same data (teacher, templates): excess = loss - floor
  std::int64_t steps = 0;
  double seconds = 0;  // training, evaluation and checkpoints included
};
struct Diverged {
  std::int64_t step = 0;  // the first step whose loss was not finite, or at which it had run away
  double seconds = 0;
};
struct Failed {
  FailureClass failure = FailureClass::crash;
  std::string message;
};
using Outcome = std::variant<Finished, Diverged, Failed>;

/// Held-out loss of a trial while it trained: losses[i] after steps[i] updates, steps rising.
struct EvalCurve {
  std::vector<std::int64_t> steps;
  std::vector<double> losses;
};

/// Held-out loss at the end of one horizon's decay.
struct BranchLoss {
  double fraction = 1;
  std::int64_t steps = 0;
  double loss = 0;
};

/// One row of results: what a finished or unfinished trial came to. Fit, drift and report read these.
struct TrialResult {
  TrialKey key;
  TrialSpec spec;
  TrialState state = TrialState::waiting;
  std::int64_t attempts = 0;
  std::optional<double> loss;  // of a complete trial
  std::optional<double> floor;
  std::optional<std::int64_t> steps;
  std::optional<std::int64_t> diverged_step;
  std::optional<double> seconds;
  std::string device;
  std::string message;               // of a failed or pruned trial
  std::optional<double> gradient_noise;  // of the FFN's gradient over its mean, at half of the steps
  EvalCurve evaluations;             // as far as it came, whatever became of it
  std::vector<BranchLoss> branches;  // horizons that are done, the shortest first
};

/// "nats" (a token) of a language model, "mse" (squared error of a velocity a pixel) of a diffusion model.
std::string_view loss_unit(const models::ModelShape& shape);

std::string_view name(TrialRole role);
std::string_view name(TrialState state);
std::string_view name(ScheduleKind kind);
std::string_view name(DataSource source);
std::string_view name(Precision precision);
std::string_view name(Balancing balancing);
std::string_view name(FailureClass failure);

}  // namespace sweeps
