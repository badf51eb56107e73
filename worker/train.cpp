#include "worker/train.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "models/diffusion_model.h"
#include "models/model.h"
#include "models/recorder.h"
#include "worker/checkpoint.h"
#include "worker/data.h"
#include "worker/feed.h"
#include "worker/gradient_noise.h"
#include "worker/optimizer.h"
#include "worker/schedule.h"

namespace worker {
namespace {

constexpr std::int64_t kDrawnPictures = 64;
constexpr std::int64_t kDrawnBytes = 16 << 20;  // at most, so that a sheet fits a message
constexpr std::int64_t kDrawingSteps = 25;      // of Heun's method
constexpr std::uint64_t kDrawingSeed = 1;
constexpr double kReportSeconds = 0.5;             // between Progress messages
constexpr std::int64_t kEvalTokensCpu = 4096;      // tokens a chunk of an evaluation: stays near the caches
constexpr std::int64_t kEvalTokensCuda = 65536;    // over all slots
constexpr std::int64_t kEvalLogitsCuda = 1 << 28;  // over all slots: 1 GiB in float32

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

models::ModelOptions model_options(const sweeps::TrialSpec& spec, std::int64_t slots, const Device& device) {
  models::ModelOptions options;
  options.run = spec.run;
  options.proxy = spec.proxy;
  options.rule = spec.rule;
  options.slots = slots;
  options.device = device.device;
  options.bfloat16 = spec.precision == sweeps::Precision::bfloat16;
  options.balance_by_bias = spec.balancing == sweeps::Balancing::bias;
  return options;
}

/// A spec by hand may hold anything; the planner's own are sound.
const sweeps::TrialSpec& checked(const sweeps::TrialSpec& spec) {
  const auto require_positive = [](std::int64_t value, const std::string& key) {
    if (value < 1) throw UserError(key + " must be at least 1, found " + std::to_string(value));
  };
  for (std::size_t i = 0; i < spec.branches.size(); ++i) {
    if (!(spec.branches[i] > (i == 0 ? 0 : spec.branches[i - 1])) || spec.branches.back() != 1)
      throw UserError("branches must rise from above 0 to 1");
    if (spec.schedule.kind != sweeps::ScheduleKind::wsd) throw UserError("branches need a wsd schedule");
  }
  for (const auto& branch : sweeps::branch_points(spec))
    if (branch.steps < 1 || branch.start < warmup_steps(spec.schedule, spec.run.steps))
      throw UserError("branches: " + std::to_string(branch.fraction) + " would decay within the warm-up");
  for (const auto& [key, run] : {std::pair{"run", &spec.run}, std::pair{"proxy", &spec.proxy}}) {
    models::validate(run->shape);
    require_positive(run->batch, std::string(key) + ".batch");
    require_positive(run->steps, std::string(key) + ".steps");
  }
  return spec;
}

/// One trial in its slot.
struct Slot {
  Assignment assignment;
  TrialProgress progress;
  std::vector<sweeps::BranchPoint> branches = {};  // all of them, in order
  std::optional<SlotState> trunk = {};             // while a branch is under way
  double started = 0;                              // clock
  double earlier_seconds = 0;  // of attempts before this one
  double last_checkpoint = 0;  // clock

  const sweeps::TrialSpec& spec() const { return assignment.spec; }
  double seconds() const { return earlier_seconds + now() - started; }

  CurveRecorder& curve(const std::string& metric, bool every_step) {
    const auto [found, is_new] = progress.curves.try_emplace(metric);
    if (is_new && every_step) found->second = CurveRecorder::every_step(spec().run.steps);
    return found->second;
  }
  /// The branch that leaves the trunk here, once the trunk has been evaluated; null when none is left to do.
  const sweeps::BranchPoint* branch() const {
    const auto done = progress.branches.size();
    return done < branches.size() && branches[done].start == progress.step ? &branches[done] : nullptr;
  }
  /// The step whose batch comes next and whose update is counted.
  std::int64_t data_step() const { return progress.step + progress.branch_updates; }
  double schedule() const {
    if (const auto* point = branch()) return branch_factor(*point, data_step());
    return schedule_factor(spec().schedule, progress.step, spec().run.steps);
  }
  bool branch_is_at_its_end() const {
    const auto* point = branch();
    return point && data_step() == point->steps;
  }
  bool noise_is_due() {
    return progress.step == spec().run.steps / 2 && !trunk && !progress.curves.contains("gradient_noise");
  }
  /// Due after `step` updates and not done yet.
  bool evaluation_is_due() { return trunk_evaluation_is_due() || branch_is_at_its_end(); }
  bool trunk_evaluation_is_due() {
    if (progress.branch_updates > 0) return false;
    const std::int64_t step = progress.step, steps = spec().run.steps;
    const std::int64_t every = sweeps::eval_interval(spec());
    const bool due = step == steps || (step > 0 && every > 0 && step % every == 0);
    const auto& done = curve("eval_loss", false).steps;
    return due && (done.empty() || done.back() != step);
  }
};

/// Sends messages about the trials of a stack and remembers which have ended.
class Reporter {
 public:
  Reporter(const std::vector<Assignment>& assignments, const Emit& emit) : emit_(emit) {
    for (const auto& assignment : assignments) {
      Slot& slot = slots_.emplace_back();
      slot.assignment = assignment;
      slot.branches = sweeps::branch_points(assignment.spec);
      slot.started = slot.last_checkpoint = now();
      active_.push_back(true);
    }
  }

  std::vector<Slot>& slots() { return slots_; }
  const std::vector<bool>& active() const { return active_; }
  bool any_active() const { return std::find(active_.begin(), active_.end(), true) != active_.end(); }

  void send(const WorkerMessage& message) const { emit_(message); }
  void send_curves(std::size_t k) {
    const auto& [trial, attempt, spec, file, every] = slots_[k].assignment;
    for (auto& [metric, curve] : slots_[k].progress.curves) {
      if (curve.num_sent == curve.steps.size()) continue;
      const auto sent = static_cast<std::ptrdiff_t>(curve.num_sent);
      send(Curve{trial,
                 attempt,
                 metric,
                 {curve.steps.begin() + sent, curve.steps.end()},
                 {curve.values.begin() + sent, curve.values.end()}});
      curve.num_sent = curve.steps.size();
    }
  }
  void end(std::size_t k, const sweeps::Outcome& outcome) {
    // A trial that is not over yet goes on within its last, unfinished point.
    if (!std::holds_alternative<sweeps::Failed>(outcome)) {
      for (auto& [metric, curve] : slots_[k].progress.curves) curve.end_point(slots_[k].progress.step - 1);
    }
    send_curves(k);
    active_[k] = false;  // before it is sent: an exception on the way must not end it twice
    send(Ended{slots_[k].assignment.trial, slots_[k].assignment.attempt, outcome});
  }
  void end_all(const sweeps::Outcome& outcome) {
    for (std::size_t k = 0; k < slots_.size(); ++k) {
      if (active_[k]) end(k, outcome);
    }
  }

 private:
  const Emit& emit_;
  std::vector<Slot> slots_;
  std::vector<bool> active_;
};

/// Model, optimizer and data of K trials.
class Stack {
 public:
  Stack(Reporter& reporter, const Device& device)
      : reporter_(reporter),
        device_(device),
        num_slots_(static_cast<std::int64_t>(reporter.slots().size())),
        spec_(checked(reporter.slots().at(0).spec())),
        feed_(make_feed(spec_, num_slots_)),
        model_(models::make_model(model_options(spec_, num_slots_, device))),
        optimizer_(model_->parameters(), spec_.run, spec_.proxy, spec_.rule) {
    for (std::int64_t k = 0; k < num_slots_; ++k) {
      const sweeps::TrialSpec& spec = slot(k).spec();
      optimizer_.reset(k, spec.base, spec.clip);
      model_->initialise(k, spec.seed, spec.base.init_std);
    }
  }

  /// Takes up what checkpoints hold and says that the trials have started.
  void start() {
    for (std::int64_t k = 0; k < num_slots_; ++k) {
      Slot& own = slot(k);
      const Assignment& assignment = own.assignment;
      if (!assignment.checkpoint.empty()) {
        if (auto saved = load_checkpoint(assignment.checkpoint, assignment.trial, own.spec().run.steps, k,
                                         *model_, optimizer_, own.trunk)) {
          own.progress = std::move(*saved);
          own.earlier_seconds = own.progress.seconds;
        }
      }
      reporter_.send(Started{assignment.trial, assignment.attempt, own.progress.step});
      for (const auto& branch : own.progress.branches) send_branch(own, branch);
    }
  }

  /// Trains until every trial has ended.
  void run(const PollRequests& poll) {
    while (true) {
      obey(poll());
      if (!reporter_.any_active()) return;
      if (evaluation_is_due()) {
        if (!evaluate(poll)) continue;
        end_finished();
      } else {
        if (noise_is_due()) measure_noise();
        train_step();
      }
      save_due_checkpoints();
      report();
    }
  }

  /// One update of every active slot. Returns the losses before it, [K] float64 on the CPU.
  at::Tensor train_step() {
    const std::vector<bool>& active = reporter_.active();
    std::vector<double> schedule(static_cast<std::size_t>(num_slots_), 0.0);
    for (std::int64_t k = 0; k < num_slots_; ++k) {
      if (!active[static_cast<std::size_t>(k)]) continue;
      Slot& own = slot(k);
      if (own.branch() && !own.trunk) own.trunk = copy_of(k, *model_, optimizer_);
      schedule[static_cast<std::size_t>(k)] = own.schedule();
      feed_->load(k, own.spec().seed, one_batch_ ? 0 : own.data_step());
    }
    const at::Tensor losses_K = model_->loss(feed_->training_batch(device_.device));
    losses_K.sum().backward();  // the sum of means: slots do not share a gradient
    if (one_batch_) note_gradients();
    const at::Tensor norms_K = optimizer_.step(losses_K.detach(), schedule, active);
    optimizer_.clear_gradients();
    at::Tensor losses_on_host_K = losses_K.detach().to(at::kCPU, at::kDouble);
    record(losses_on_host_K, norms_K.to(at::kCPU));
    model_->update_balance(active);
    return losses_on_host_K;
  }

  /// Once a trial, at half of its steps, for a fortieth of its work; from batches that it never trains on, so
  /// that the training does not notice.
  void measure_noise() {
    GradientNoise noise;
    const std::int64_t num_batches = std::clamp<std::int64_t>(spec_.run.steps / 40, 4, 32);
    for (std::int64_t batch = 0; batch < num_batches; ++batch) {
      for (std::int64_t k = 0; k < num_slots_; ++k)
        feed_->load(k, slot(k).spec().seed, spec_.run.steps + batch);
      model_->loss(feed_->training_batch(device_.device)).sum().backward();
      noise.add(model_->parameters());
      optimizer_.clear_gradients();
    }
    for (std::int64_t k = 0; k < num_slots_; ++k) {
      if (!reporter_.active()[static_cast<std::size_t>(k)] || !slot(k).noise_is_due()) continue;
      if (const auto ratio = noise.ratio(k)) slot(k).curve("gradient_noise", false).add(slot(k).progress.step, *ratio);
    }
  }

  /// Held-out loss of the trials for which it is due. False when a request came in between: nothing is kept.
  bool evaluate(const PollRequests& poll) {
    at::Tensor sum_K = at::zeros({num_slots_}, at::kDouble);
    const std::int64_t count = num_holdout_sequences(feed_->source().needs());
    for (std::int64_t start = 0; start < count; start += eval_rows()) {
      const std::int64_t rows = std::min(eval_rows(), count - start);
      sum_K += eval_chunk(start, rows) * static_cast<double>(rows);
      if (concerns_us(poll())) return false;
      report();
    }
    for (std::int64_t k = 0; k < num_slots_; ++k) {
      if (!reporter_.active()[static_cast<std::size_t>(k)] || !slot(k).evaluation_is_due()) continue;
      const double loss = sum_K.const_data_ptr<double>()[k] / static_cast<double>(count);
      if (slot(k).trunk_evaluation_is_due())
        slot(k).curve("eval_loss", false).add(slot(k).progress.step, loss);
      else
        end_branch(k, loss);
    }
    return true;
  }

  /// From here on every update is made from the sequences of step 0, under the eyes of the recorder, so that
  /// what is learnt is seen where it was learnt. REQUIRES: one slot.
  void train_on_one_batch(models::Recorder& recorder) {
    one_batch_ = true;
    model_->record_to(&recorder);
  }

  /// The rms gradient of each tensor group in the last update; only after train_on_one_batch().
  const std::map<std::string, double>& gradients() const { return gradients_; }

  /// Seconds of a whole evaluation, from one chunk.
  double time_evaluation() {
    const std::int64_t count = num_holdout_sequences(feed_->source().needs()),
                       rows = std::min(eval_rows(), count);
    const double begin = now();
    eval_chunk(0, rows);
    return (now() - begin) * static_cast<double>(count) / static_cast<double>(rows);
  }

 private:
  void send_branch(const Slot& own, const sweeps::BranchLoss& branch) {
    reporter_.send(
        Branch{own.assignment.trial, own.assignment.attempt, branch.fraction, branch.steps, branch.loss});
  }

  /// Back to the trunk, bit for bit. A branch of no decay has left nothing to undo.
  void end_branch(std::int64_t k, double loss) {
    Slot& own = slot(k);
    const auto point = *own.branch();
    if (!(loss <= feed_->unusable_loss())) {  // also when it is not a number
      reporter_.end(static_cast<std::size_t>(k), sweeps::Diverged{own.data_step(), own.seconds()});
      return;
    }
    own.progress.branches.push_back({point.fraction, point.steps, loss});
    own.progress.branch_updates = 0;
    if (own.trunk) restore(*own.trunk, k, *model_, optimizer_);
    own.trunk.reset();
    send_branch(own, own.progress.branches.back());
  }

  Slot& slot(std::int64_t k) { return reporter_.slots()[static_cast<std::size_t>(k)]; }

  std::int64_t eval_rows() const {
    const auto& shape = spec_.run.shape;
    const std::int64_t outputs = shape.is_diffusion() ? shape.patch_pixels() : shape.vocab;
    const std::int64_t tokens = device_.device.is_cpu()
                                    ? kEvalTokensCpu
                                    : std::min(kEvalTokensCuda, kEvalLogitsCuda / outputs) / num_slots_;
    return std::max<std::int64_t>(1, tokens / shape.context);
  }

  /// Mean losses of held-out sequences or images [start, start + rows), [K] float64 on the CPU.
  at::Tensor eval_chunk(std::int64_t start, std::int64_t rows) {
    const at::NoGradGuard no_grad;
    return model_->loss(feed_->holdout_batch(start, rows, device_.device)).to(at::kCPU, at::kDouble);
  }

  void note_gradients() {
    std::map<std::string, int> counts;
    gradients_.clear();
    for (const auto& [parameter, value] : model_->parameters()) {
      const std::string group(models::name(parameter.group));
      gradients_[group] += value.grad().square().mean().item<double>();
      ++counts[group];
    }
    for (auto& [group, value] : gradients_) value = std::sqrt(value / counts[group]);
  }

  void record(const at::Tensor& losses_K, const at::Tensor& norms_K) {
    const std::vector<double> imbalance = model_->load_imbalance();
    for (std::int64_t k = 0; k < num_slots_; ++k) {
      const auto index = static_cast<std::size_t>(k);
      if (!reporter_.active()[index]) continue;
      Slot& own = slot(k);
      const double loss = losses_K.const_data_ptr<double>()[k], norm = norms_K.const_data_ptr<double>()[k];
      if (!std::isfinite(loss) || !std::isfinite(norm)) {
        reporter_.end(index, sweeps::Diverged{own.data_step(), own.seconds()});
        continue;
      }
      if (own.branch()) {
        ++own.progress.branch_updates;
        continue;
      }
      own.curve("train_loss", true).add(own.progress.step, loss);
      own.curve("grad_norm", true).add(own.progress.step, norm);
      if (!imbalance.empty()) own.curve("load_imbalance", true).add(own.progress.step, imbalance.at(index));
      own.progress.runaway.add(loss);
      if (own.progress.step >= warmup_steps(own.spec().schedule, own.spec().run.steps) &&
          own.progress.runaway.has_run_away()) {
        reporter_.end(index, sweeps::Diverged{own.progress.step, own.seconds()});
        continue;
      }
      ++own.progress.step;
    }
  }

  bool noise_is_due() {
    for (std::int64_t k = 0; k < num_slots_; ++k) {
      if (reporter_.active()[static_cast<std::size_t>(k)] && slot(k).noise_is_due()) return true;
    }
    return false;
  }

  bool evaluation_is_due() {
    for (std::int64_t k = 0; k < num_slots_; ++k) {
      if (reporter_.active()[static_cast<std::size_t>(k)] && slot(k).evaluation_is_due()) return true;
    }
    return false;
  }

  void end_finished() {
    for (std::int64_t k = 0; k < num_slots_; ++k) {
      const auto index = static_cast<std::size_t>(k);
      Slot& own = slot(k);
      if (!reporter_.active()[index] || own.progress.step < own.spec().run.steps) continue;
      const double loss = own.curve("eval_loss", false).values.back();
      if (!(loss <= feed_->unusable_loss())) {  // also when it is not a number
        reporter_.end(index, sweeps::Diverged{own.progress.step, own.seconds()});
      } else {
        if (!own.spec().branches.empty()) send_branch(own, {1, own.progress.step, loss});
        const sweeps::Finished finished{loss, feed_->source().floor(), own.progress.step, own.seconds()};
        if (auto* model = dynamic_cast<models::DiffusionModel*>(model_.get());
            model && own.spec().role == sweeps::TrialRole::target)
          reporter_.send(Sampled{own.assignment.trial, own.assignment.attempt, draw(*model, k)});
        reporter_.end(index, finished);
      }
    }
  }

  sweeps::SampleSheet draw(models::DiffusionModel& model, std::int64_t k) {
    const auto& needs = feed_->source().needs();
    const std::int64_t count = std::clamp(kDrawnBytes / needs.pixels(), std::int64_t{1}, kDrawnPictures);
    const auto bytes = [](const at::Tensor& pictures) {
      const at::Tensor pixels =
          ((pictures.nan_to_num(0) + 1) * 127.5).round().clamp(0, 255).to(at::kByte).contiguous();
      const auto* first = pixels.const_data_ptr<std::uint8_t>();
      return std::vector<std::uint8_t>(first, first + pixels.numel());
    };
    const std::int64_t num_real = std::min(count, num_holdout_sequences(needs));
    return {needs.image_size, needs.image_size, needs.channels,
            bytes(model.sample(k, count, kDrawingSteps, kDrawingSeed)),
            bytes(feed_->holdout_batch(0, num_real, at::kCPU).images_KBCSS[k])};
  }

  bool concerns_us(const StopRequests& requests) const {
    if (requests.drain) return true;
    for (std::size_t k = 0; k < reporter_.slots().size(); ++k) {
      if (reporter_.active()[k] && requests.cancelled.contains(reporter_.slots()[k].assignment.trial))
        return true;
    }
    return false;
  }

  void obey(const StopRequests& requests) {
    for (std::size_t k = 0; k < reporter_.slots().size(); ++k) {
      if (!reporter_.active()[k]) continue;
      const auto& trial = reporter_.slots()[k].assignment.trial;
      if (requests.cancelled.contains(trial)) {
        reporter_.end(k, sweeps::Failed{sweeps::FailureClass::cancelled, "cancelled"});
      } else if (requests.drain) {
        save(static_cast<std::int64_t>(k));
        reporter_.end(k, sweeps::Failed{sweeps::FailureClass::cancelled, "stopped on request"});
      }
    }
  }

  void save(std::int64_t k) {
    Slot& own = slot(k);
    const Assignment& assignment = own.assignment;
    if (assignment.checkpoint.empty()) return;
    own.progress.seconds = own.seconds();
    own.last_checkpoint = now();
    std::string checksum;
    try {
      checksum = save_checkpoint(assignment.checkpoint, assignment.trial, k, *model_, optimizer_,
                                 own.progress, own.trunk);
    } catch (const std::runtime_error& cause) {  // a full disk costs the checkpoint, not the trial
      std::fprintf(stderr, "no checkpoint at step %lld: %s\n", static_cast<long long>(own.progress.step),
                   cause.what());
      return;
    }
    reporter_.send(Checkpointed{assignment.trial, assignment.attempt, own.progress.step,
                                assignment.checkpoint, checksum});
  }

  void save_due_checkpoints() {
    for (std::int64_t k = 0; k < num_slots_; ++k) {
      const double every = slot(k).assignment.checkpoint_seconds;
      const bool due = every > 0 && now() - slot(k).last_checkpoint >= every;
      if (due && reporter_.active()[static_cast<std::size_t>(k)]) save(k);
    }
  }

  void report() {
    if (now() - last_report_ < kReportSeconds) return;
    last_report_ = now();
    for (std::size_t k = 0; k < reporter_.slots().size(); ++k) {
      if (!reporter_.active()[k]) continue;
      const Slot& own = reporter_.slots()[k];
      reporter_.send_curves(k);
      reporter_.send(
          Progress{own.assignment.trial, own.assignment.attempt, own.progress.step, own.seconds()});
    }
  }

  Reporter& reporter_;
  const Device& device_;
  std::int64_t num_slots_;
  sweeps::TrialSpec spec_;  // of slot 0: what all have in common
  std::unique_ptr<Feed> feed_;
  std::unique_ptr<models::Model> model_;
  AdamW optimizer_;
  bool one_batch_ = false;
  std::map<std::string, double> gradients_;
  double last_report_ = now();
};

}  // namespace

void train_stack(const std::vector<Assignment>& assignments, const Device& device, const Emit& emit,
                 const PollRequests& poll) {
  Reporter reporter(assignments, emit);
  try {
    Stack stack(reporter, device);
    stack.start();
    stack.run(poll);
  } catch (const std::exception& cause) {
    if (is_device_fault(cause)) throw;
    reporter.end_all(failure_of(cause));
  }
}

Measured measure(const sweeps::TrialSpec& spec, int steps, const Device& device) {
  const Emit nobody = [](const WorkerMessage&) {};
  Assignment assignment;
  assignment.spec = spec;
  Reporter reporter({assignment}, nobody);
  Stack stack(reporter, device);
  stack.train_step();  // warms up allocator and caches
  const double begin = now();
  for (int i = 0; i < steps; ++i) stack.train_step();
  return {.seconds_per_step = (now() - begin) / std::max(1, steps),
          .seconds_per_eval = stack.time_evaluation()};
}

Probed probe(const Probe& request, const Device& device) {
  const Emit nobody = [](const WorkerMessage&) {};
  Assignment assignment;
  assignment.spec = request.spec;
  Reporter reporter({assignment}, nobody);
  Stack stack(reporter, device);
  models::Recorder recorder;
  std::map<models::Recorder::Key, std::vector<double>> series;
  if (request.layers) stack.train_on_one_batch(recorder);
  for (std::int64_t step = 0; step <= request.steps; ++step) {
    const double loss = stack.train_step().item<double>();
    if (!std::isfinite(loss)) break;
    series[{"loss", "loss"}].push_back(loss);
    for (const auto& [key, value] : recorder.end_pass()) series[key].push_back(value);
    for (const auto& [group, value] : stack.gradients()) series[{group, "gradient"}].push_back(value);
  }
  Probed probed;
  for (auto& [key, values] : series) probed.series.push_back({key.first, key.second, std::move(values)});
  return probed;
}

Inspected inspect(const Inspect& request) {
  const DataNeeds needs{request.context, request.vocab, request.eval_tokens, request.image_size,
                        request.channels};
  if (sweeps::has_images(request.data.source)) return open_image_source(request.data, needs)->facts();
  return open_source(request.data, needs)->facts();
}

sweeps::Failed failure_of(const std::exception& cause) {
  const std::string message = cause.what();
  const std::string first_line = message.substr(0, message.find('\n'));
  const auto is = [&]<class T>(const T*) { return dynamic_cast<const T*>(&cause) != nullptr; };
  const auto says = [&](const char* text) { return message.find(text) != std::string::npos; };
  using sweeps::FailureClass;
  if (const auto* file = dynamic_cast<const std::filesystem::filesystem_error*>(&cause);
      file && (file->code() == std::errc::no_space_on_device || file->code().value() == EDQUOT)) {
    return {FailureClass::disk_full, message};
  }
  if (is(static_cast<const UserError*>(nullptr)) || is(static_cast<const std::invalid_argument*>(nullptr)) ||
      is(static_cast<const std::filesystem::filesystem_error*>(nullptr))) {
    return {FailureClass::user_error, message};
  }
  // The allocator has a type for it; the libraries beneath, which take memory of their own, have a text.
  if (is(static_cast<const c10::OutOfMemoryError*>(nullptr)) || says("CUDA error: out of memory") ||
      says("CUBLAS_STATUS_ALLOC_FAILED")) {
    return {FailureClass::oom_gpu, first_line};
  }
  for (const char* gone : {"uncorrectable ECC", "GPU is lost", "hardware stack error", "devices are busy or unavailable",
                           "no CUDA-capable device"})
    if (says(gone)) return {FailureClass::gpu_lost, first_line};
  if (is(static_cast<const std::bad_alloc*>(nullptr)) || says("DefaultCPUAllocator")) {
    return {FailureClass::oom_host, "out of memory: " + first_line};
  }
  return {FailureClass::crash, first_line};
}

bool is_device_fault(const std::exception& cause) {
  const bool from_device = dynamic_cast<const c10::AcceleratorError*>(&cause) != nullptr ||
                           std::string_view(cause.what()).starts_with("CUDA error: ");
  const auto failure = failure_of(cause).failure;
  return from_device &&
         (failure == sweeps::FailureClass::crash || failure == sweeps::FailureClass::gpu_lost);
}

}  // namespace worker
