#include "orchestrator/scheduler.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>

#include <fmt/format.h>

#include "db/sqlite.h"
#include "orchestrator/exit_code.h"

namespace orchestrator {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using sweeps::FailureClass;

constexpr std::size_t kKeepOutput = 4096;
constexpr auto kCloseGrace = std::chrono::seconds(5);
constexpr auto kEndGrace = std::chrono::seconds(1);
constexpr int kRecordedRefusals = 20;
// States that come within this time share one commit: at most so old is what a kill takes back.
constexpr auto kGroupCommit = std::chrono::milliseconds(10);
constexpr double kMaxLoss = 1e100;  // beyond it squares overflow
constexpr auto kClockJump = std::chrono::seconds(60);
constexpr int kFailuresForShare = 5;
constexpr const char* kByHand = "by hand; `tuneonce retry` lets it wait again";

template <class... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};
template <class... Handlers>
Overloaded(Handlers...) -> Overloaded<Handlers...>;  // clang before 17 does not find it by itself

/// A number that a loss can be. One that overflowed or underflowed on its way is no result.
bool is_loss(double value) {
  return std::isfinite(value) && std::abs(value) < kMaxLoss && std::fpclassify(value) != FP_SUBNORMAL;
}

/// How far the wall clock is ahead of the monotonic one.
std::chrono::seconds clock_offset() {
  return std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch() -
      std::chrono::steady_clock::now().time_since_epoch());
}

std::string quoted_name(const db::WaitingTrial& trial) {
  return fmt::format("trial {} \"{}\"", trial.id, trial.spec.name);
}

}  // namespace

Scheduler::Scheduler(asio::io_context& context, Launcher& launcher, std::vector<DeviceSlot> slots,
                     SchedulerOptions options, SchedulerEvents events)
    : context_(context),
      launcher_(launcher),
      options_(std::move(options)),
      events_(std::move(events)),
      slots_(slots.size()),
      housekeeping_(context),
      all_served_(context),
      commit_timer_(context) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    slots_[i].device = slots[i];
    slots_[i].nap.emplace(context);
  }
  if (!options_.database.empty()) disk_.emplace(options_.disk, options_.database, options_.folder);
}

Scheduler::~Scheduler() = default;

fs::path Scheduler::checkpoint_file(const sweeps::TrialKey& key) const {
  return options_.folder / "checkpoints" / (key + ".safetensors");
}
fs::path Scheduler::log_file(std::int64_t trial_id) const {
  return options_.folder / "logs" / fmt::format("trial-{:04}.log", trial_id);
}

// --- workers ---

awaitable<void> Scheduler::start_worker(Slot& slot) {
  slot.output.clear();
  if (auto& free = devices_[slot.device.device].free_at_first; !free && !slot.device.uuid.empty())
    if (const auto memory = gpu_memory(slot.device.uuid)) free = memory->free;
  slot.worker = launcher_.start(slot.device);
  slot.worker->on_output = [this, &slot](std::string_view text) { write_output(slot, text); };
  slot.num_trained = 0;
  slot.peak_memory = 0;
  std::string problem;
  try {
    const auto message = co_await slot.worker->receive(std::chrono::duration<double>(options_.start_seconds));
    if (const auto* hello = message ? std::get_if<worker::Hello>(&*message) : nullptr) {
      if (hello->protocol == worker::kProtocolVersion) {
        slot.hello = *hello;
        co_return;
      }
      problem = fmt::format("speaks protocol {}, this tuneonce speaks {}; build both from one source tree",
                            hello->protocol, worker::kProtocolVersion);
    } else {
      problem = message ? "did not begin with a hello" : "ended before it said hello";
    }
  } catch (const worker::ProtocolError& error) {
    problem = fmt::format("does not speak this tuneonce's protocol ({}); build both from one source tree",
                          error.what());
  } catch (const Stalled& error) {
    problem = fmt::format("did not say hello: {}", error.what());
  }
  const auto end = co_await slot.worker->end(kEndGrace);
  const auto text = fmt::format("{} --device {}: {}; {}{}", launcher_.program(), slot.device.device, problem,
                                end.message, tail_of_output(slot));
  slot.worker.reset();
  throw ExitError(kEnvironment, text);
}

std::string Scheduler::tail_of_output(const Slot& slot) const {
  return slot.output.empty() ? "" : "; it printed:\n" + slot.output;
}

void Scheduler::write_output(Slot& slot, std::string_view text) {
  slot.output.append(text);
  if (slot.output.size() > kKeepOutput) slot.output.erase(0, slot.output.size() - kKeepOutput);
  if (!disk_trouble_.empty()) return;  // nothing more goes where nothing fits
  for (auto& [key, running] : slot.running) write_log(slot, running, text);
  if (!disk_ || stopping_ || !disk_->has_grown(text.size() * slot.running.size())) return;
  if (const auto trouble = disk_->trouble()) stop_for_disk(*trouble);
}

/// An attempt's part of the log begins when there is something to say.
void Scheduler::write_log(const Slot& slot, Running& running, std::string_view text) const {
  std::string lines;
  if (!std::exchange(running.has_log, true))
    lines = fmt::format("{} attempt {} of {} on {}, worker pid {}\n", db::now_utc(), running.attempt,
                        quoted_name(running.trial), slot.device.device, slot.worker->pid());
  lines += text;
  // Two files of half the size: what is newest stays, and a worker that prints without end does not fill the disk.
  const auto half = static_cast<std::uintmax_t>(std::max<std::int64_t>(options_.disk.log / 2, 1));
  std::error_code error;
  const auto size = fs::file_size(running.log, error);
  if (!error && size + lines.size() > half) fs::rename(running.log, running.log.string() + ".1", error);
  if (lines.size() > half) lines.erase(0, lines.size() - half);
  std::ofstream(running.log, std::ios::app) << lines;
}

awaitable<worker::WorkerMessage> Scheduler::ask(worker::OrchestratorMessage question) {
  return ask(slots_.front(), std::move(question));
}

awaitable<void> Scheduler::ask_all(std::vector<worker::OrchestratorMessage> questions, Answered answered) {
  Questions list{.all = std::move(questions), .next = 0, .answered = std::move(answered)};
  num_serving_ = static_cast<int>(std::min(slots_.size(), list.all.size()));
  all_served_.expires_at(asio::steady_timer::time_point::max());
  for (int i = 0, n = num_serving_; i < n; ++i)
    asio::co_spawn(context_, ask_in_turn(slots_[static_cast<std::size_t>(i)], list), asio::detached);
  while (num_serving_ > 0) {
    boost::system::error_code ignored;
    co_await all_served_.async_wait(asio::redirect_error(use_awaitable, ignored));
  }
  if (error_) std::rethrow_exception(error_);
}

awaitable<void> Scheduler::ask_in_turn(Slot& slot, Questions& questions) {
  try {
    while (!error_ && questions.next < questions.all.size()) {
      const std::size_t place = questions.next++;
      worker::OrchestratorMessage question = std::move(questions.all[place]);
      const auto answer = co_await ask(slot, std::move(question));
      questions.answered(place, answer);
    }
  } catch (...) {
    if (!error_) error_ = std::current_exception();
  }
  if (--num_serving_ == 0) all_served_.cancel();
}

awaitable<worker::WorkerMessage> Scheduler::ask(Slot& slot, worker::OrchestratorMessage question) {
  if (!slot.worker) co_await start_worker(slot);
  std::string problem = "closed the channel";
  try {
    co_await slot.worker->send(std::move(question));
    auto answer = co_await slot.worker->receive(std::chrono::duration<double>(options_.stall_seconds));
    if (answer) {
      if (const auto* refused = std::get_if<worker::Refused>(&*answer))
        throw ExitError(refused->failure == FailureClass::user_error ? kUsage : kEnvironment,
                        refused->message);
      co_return *answer;
    }
  } catch (const worker::ProtocolError& error) {
    problem = error.what();
  } catch (const Stalled& error) {
    problem = error.what();
  } catch (const boost::system::system_error& error) {
    problem = error.what();
  }
  const auto end = co_await slot.worker->end(kEndGrace);
  const auto text =
      fmt::format("{}: {}; {}{}", launcher_.program(), problem, end.message, tail_of_output(slot));
  slot.worker.reset();
  throw ExitError(kEnvironment, text);
}

awaitable<void> Scheduler::close() {
  for (auto& slot : slots_) {
    if (!slot.worker || !slot.worker->alive()) continue;
    try {
      worker::OrchestratorMessage drain = worker::Drain{};
      co_await slot.worker->send(std::move(drain));
    } catch (const boost::system::system_error&) {
      // It is gone already; end() below sees that.
    }
  }
  for (auto& slot : slots_) {
    if (slot.worker) co_await slot.worker->end(kCloseGrace);
    slot.worker.reset();
  }
}

// --- the loop ---

awaitable<Scheduler::End> Scheduler::run(db::Store& store, sweeps::SweepWatch watch) {
  store_ = &store;
  watch_ = std::move(watch);
  // The longest first: a short trial at the end leaves the other workers little to wait for.
  queue_.clear();
  delayed_.clear();
  store.each_waiting([this](const db::WaitingTrial& trial) { queue_.push(trial); });
  std::error_code error;
  for (const char* folder : {"logs", "checkpoints"}) {
    fs::create_directories(options_.folder / folder, error);
    if (error)
      throw ExitError(kEnvironment,
                      fmt::format("{}: {}", (options_.folder / folder).string(), error.message()));
  }
  remove_stale_checkpoints();
  if (auto trouble = disk_ ? disk_->trouble() : std::nullopt) {
    disk_trouble_ = *trouble;
    co_return End::disk_full;
  }
  store.set_group_commit(kGroupCommit);

  for (std::size_t i = 0; i < std::min(slots_.size(), queue_.size()); ++i) serve_in_background(slots_[i]);
  asio::co_spawn(context_, housekeep(), asio::detached);
  all_served_.expires_at(asio::steady_timer::time_point::max());
  while (num_serving_ > 0) {
    boost::system::error_code ignored;
    co_await all_served_.async_wait(asio::redirect_error(use_awaitable, ignored));
  }
  housekeeping_.cancel();
  commit_timer_.cancel();
  commit_is_due_ = false;
  try {
    store.set_group_commit({});
    if (const auto refused = std::exchange(num_refused_, 0); refused > 0)
      store.record("refusals", fmt::format("{} messages of workers were refused", refused));
    commit();
  } catch (...) {
    if (!error_) error_ = std::current_exception();
  }
  if (error_) std::rethrow_exception(error_);
  if (!disk_trouble_.empty()) co_return End::disk_full;
  if (!stopping_ && !(queue_.empty() && delayed_.empty()))
    throw ExitError(kEnvironment, fmt::format("no device is left to train on; {} trials wait",
                                              queue_.size() + delayed_.size()));
  co_return broken_ ? End::broken : stopping_ ? End::drained : End::done;
}

/// Gathered curve points reach the disk about once a second. Nothing here depends on the wall clock, but times
/// are stored; a jump is written down for who reads them.
awaitable<void> Scheduler::housekeep() {
  auto offset = clock_offset();
  while (num_serving_ > 0) {
    housekeeping_.expires_after(std::chrono::seconds(1));
    boost::system::error_code cancelled;
    co_await housekeeping_.async_wait(asio::redirect_error(use_awaitable, cancelled));
    if (cancelled) co_return;
    try {
      commit();
      if (const auto jump = clock_offset() - offset; jump > kClockJump || jump < -kClockJump) {
        store_->record("clock", fmt::format("the wall clock was put {} by {} s; times of before are not "
                                            "comparable with those of after",
                                            jump.count() > 0 ? "forward" : "back", std::abs(jump.count())));
        offset += jump;
      }
      events_.tick();
      watch_host_memory();
      if (const auto trouble = disk_ && !stopping_ ? disk_->trouble() : std::nullopt) stop_for_disk(*trouble);
    } catch (...) {
      fail(std::current_exception());
    }
  }
}

void Scheduler::serve_in_background(Slot& slot) {
  slot.serving = true;
  ++num_serving_;
  asio::co_spawn(context_, serve_and_note(slot), asio::detached);
}

awaitable<void> Scheduler::serve_and_note(Slot& slot) {
  try {
    co_await serve(slot);
  } catch (const ExitError& error) {
    // A worker that does not start: the others go on where there are any; killed while it started: no matter.
    if (!stopping_ && num_serving_ > 1)
      events_.message(error.what());
    else if (!stopping_)
      fail(std::current_exception());
  } catch (...) {
    fail(std::current_exception());
  }
  slot.serving = false;
  wake_all();
  if (--num_serving_ == 0) all_served_.cancel();
}

/// Take what can be trained together, train it; repeat until nothing waits.
awaitable<void> Scheduler::serve(Slot& slot) {
  while (!stopping_ && !slot.retired) {
    admit_delayed();
    if (queue_.empty() && delayed_.empty()) break;
    if (slot.worker && !slot.worker->alive()) slot.worker.reset();
    if (queue_.empty()) {
      co_await sleep(slot, delayed_.begin()->first - Clock::now());
      continue;
    }
    if (!may_work(slot)) {
      if (slot.worker) co_await let_go(slot);  // its memory is what the other waits for
      co_await sleep(slot, kLook);
      continue;
    }
    if (!slot.worker) {
      if (!co_await wait_for_device_memory(slot)) continue;
      slot.has_waited = true;
      co_await start_worker(slot);
      continue;  // the world may have changed meanwhile
    }
    if (!std::exchange(slot.has_waited, true) && lacks_memory(slot)) {
      co_await let_go(slot);
      continue;
    }
    auto batch = take_batch(slot.hello.slots);
    slot.alone = batch.front().lost_to(FailureClass::oom_gpu) > 0;
    if (!slot.alone || co_await have_device_alone(slot))
      co_await train(slot, std::move(batch));
    slot.alone = false;
    wake_all();
    if (std::exchange(slot.gpu_lost, false)) note_gpu_loss(slot);
    if (slot.worker && options_.trials_per_worker > 0 && slot.num_trained >= options_.trials_per_worker)
      co_await let_go(slot);
  }
}

awaitable<void> Scheduler::sleep(Slot& slot, Clock::duration time) {
  slot.nap->expires_after(time);
  boost::system::error_code woken;
  co_await slot.nap->async_wait(asio::redirect_error(use_awaitable, woken));
}
void Scheduler::wake_all() {
  for (auto& slot : slots_) slot.nap->cancel();
}

/// Trials whose time to be tried again has come.
void Scheduler::admit_delayed() {
  const auto due = delayed_.upper_bound(Clock::now());
  for (auto it = delayed_.begin(); it != due; ++it) queue_.push(it->second);
  delayed_.erase(delayed_.begin(), due);
}

/// A lost trial waits before it is tried again, the longer the oftener it was lost.
void Scheduler::put_back(db::WaitingTrial trial) {
  constexpr double kLongest = 60;
  int losses = 0;
  for (std::size_t i = 0; i < trial.losses.size(); ++i)
    if (options_.retry.limit(static_cast<FailureClass>(i)) > 0) losses += trial.losses[i];
  const double seconds =
      losses == 0 ? 0 : std::min(kLongest, options_.retry.backoff * std::exp2(std::min(losses - 1, 30)));
  delayed_.emplace(Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds)),
                   std::move(trial));
  wake_all();
}

void Scheduler::stop_for_disk(const std::string& trouble) {
  if (!disk_trouble_.empty()) return;
  disk_trouble_ = trouble;
  drain();
  try {
    store_->record("stopped", trouble);
  } catch (...) {
    fail(std::current_exception());  // there is no room for that either
  }
}

awaitable<void> Scheduler::let_go(Slot& slot) {
  try {
    worker::OrchestratorMessage drain = worker::Drain{};
    co_await slot.worker->send(std::move(drain));
  } catch (const boost::system::system_error&) {
    // It is gone already; end() below sees that.
  }
  co_await slot.worker->end(kCloseGrace);
  slot.worker.reset();
}

/// The next trial, and those that can train beside it: equal stack keys, at most `slots`.
std::vector<db::WaitingTrial> Scheduler::take_batch(int slots) {
  std::vector<db::WaitingTrial> batch;
  for (const auto id : queue_.take(slots)) batch.push_back(store_->waiting_trial(id));
  // One that ran out of a GPU's memory trains alone.
  const auto crowded = [](db::WaitingTrial& trial) { return trial.lost_to(FailureClass::oom_gpu) > 0; };
  const auto keep = crowded(batch.front()) ? batch.begin() + 1
                                           : std::stable_partition(batch.begin(), batch.end(), std::not_fn(crowded));
  std::for_each(keep, batch.end(), [this](const auto& trial) { queue_.push(trial); });
  batch.erase(keep, batch.end());
  return batch;
}

worker::Assign Scheduler::start_batch(Slot& slot, std::vector<db::WaitingTrial> batch) {
  slot.output.clear();
  slot.killed = false;
  worker::Assign assign;
  for (auto& trial : batch) {
    const auto log = log_file(trial.id);
    const auto attempt =
        store_->start(trial.key, {.device = slot.device.device,
                                  .device_name = slot.hello.device_name,
                                  .device_uuid = slot.device.uuid,
                                  .host = launcher_.host(),
                                  .worker_pid = slot.worker->pid(),
                                  .worker_build = slot.hello.build,
                                  .log = (options_.folder.filename() / "logs" / log.filename()).string()});
    assign.trials.push_back({.trial = trial.key,
                             .attempt = attempt,
                             .spec = trial.spec,
                             .checkpoint = checkpoint_file(trial.key).string(),
                             .checkpoint_seconds = options_.checkpoint_seconds});
    const auto key = trial.key;
    events_.started((slot.running[key] = {std::move(trial), attempt, log, {}, false}).trial);
  }
  slot.num_trained += static_cast<int>(assign.trials.size());
  commit_soon();
  return assign;
}

awaitable<void> Scheduler::train(Slot& slot, std::vector<db::WaitingTrial> batch) {
  worker::OrchestratorMessage assign = start_batch(slot, std::move(batch));
  std::optional<sweeps::Failed> lost;
  try {
    co_await slot.worker->send(std::move(assign));
    co_await converse(slot);
    if (slot.running.empty()) co_return;
  } catch (const boost::system::system_error&) {
    // It went while we wrote to it; how, its end tells.
  } catch (const Stalled& error) {
    lost = {FailureClass::stalled, error.what()};
  } catch (const worker::ProtocolError& error) {
    lost = {FailureClass::crash, fmt::format("sent what is no message: {}", error.what())};
  }
  if (lost) slot.worker->terminate();
  const auto end = co_await slot.worker->end(kEndGrace);
  if (!lost) lost = {end.failure, end.message};
  if (slot.ended_for) lost = *std::exchange(slot.ended_for, std::nullopt);
  const bool device_gone = !slot.device.uuid.empty() && !gpu_memory(slot.device.uuid);
  if (device_gone)
    lost = {FailureClass::gpu_lost, fmt::format("{} ({}) does not answer any more; the worker's end: {}",
                                                slot.device.device, slot.device.uuid, end.message)};
  if (end.stuck) {
    slot.retired = true;
    events_.message(fmt::format("{}; its slot on {} gets no more work", end.message, slot.device.device));
  }
  if (stopping_ || slot.killed) lost->failure = FailureClass::cancelled;
  while (!slot.running.empty()) settle(slot, slot.running.begin()->first, *lost);
  slot.worker.reset();
}

/// Handles messages until every running trial has ended or the worker has closed the channel.
awaitable<void> Scheduler::converse(Slot& slot) {
  while (!slot.running.empty()) {
    const auto message = co_await slot.worker->receive(std::chrono::duration<double>(options_.stall_seconds));
    if (!message) co_return;
    handle(slot, *message);
  }
}

void Scheduler::handle(Slot& slot, const worker::WorkerMessage& message) {
  std::visit(Overloaded{
                 [&](const worker::Started& m) {
                   if (find(slot, m)) store_->note_started(m.trial, m.attempt, m.first_step);
                 },
                 [&](const worker::Progress& m) {
                   auto* running = find(slot, m);
                   if (!running) return;
                   if (m.step < running->step || m.step > sweeps::trained_steps(running->trial.spec))
                     return refuse(fmt::format("worker pid {} spoke of step {} of {} after step {}",
                                               slot.worker->pid(), m.step, quoted_name(running->trial),
                                               running->step));
                   running->step = m.step;
                   store_->note_step(m.trial, m.attempt, m.step);
                   events_.stepped(running->trial, m.step);
                 },
                 [&](const worker::Curve& m) {
                   auto* running = find(slot, m);
                   if (!running) return;
                   store_->append_curve(m.trial, m.attempt, m.metric, m.steps, m.values);
                   if (m.metric == "eval_loss" || m.metric == "train_loss") note_odd_loss(*running, m);
                   if (m.metric == "eval_loss") stop_censored(m);
                 },
                 [&](const worker::Branch& m) {
                   if (find(slot, m)) store_->put_branch(m.trial, {m.fraction, m.steps, m.loss});
                 },
                 [&](const worker::Checkpointed& m) {
                   if (find(slot, m)) commit();  // the attempt that resumes from it does not say these points again
                 },
                 [&](const worker::Sampled& m) {
                   if (find(slot, m)) store_->put_samples(m.trial, m.sheet);
                 },
                 [&](const worker::Ended& m) {
                   if (find(slot, m)) settle(slot, m.trial, m.outcome);
                 },
                 [&](const auto&) { throw worker::ProtocolError("an answer to no question"); },
             },
             message);
  commit_soon();
}

/// What a message is about; null, and counted, when trial and attempt are not what this worker trains.
template <class Message>
Scheduler::Running* Scheduler::find(Slot& slot, const Message& message) {
  const auto it = slot.running.find(message.trial);
  if (it != slot.running.end() && it->second.attempt == message.attempt) return &it->second;
  refuse(fmt::format("worker pid {} spoke of attempt {} of trial {}, which it does not train",
                     slot.worker->pid(), message.attempt, message.trial));
  return nullptr;
}

void Scheduler::refuse(const std::string& what) {
  if (++num_refused_ <= kRecordedRefusals) store_->record("refused", what);
}

void Scheduler::note_odd_loss(Running& running, const worker::Curve& curve) {
  for (std::size_t i = 0; i < curve.values.size(); ++i)
    if (!is_loss(curve.values[i]))
      running.odd_step = std::min(running.odd_step.value_or(curve.steps[i]), curve.steps[i]);
}

/// A held-out loss may censor its own trial or others of its sweep; those that run are told to stop.
void Scheduler::stop_censored(const worker::Curve& curve) {
  for (auto& censoring : watch_.add(curve.trial, curve.steps, curve.values))
    for (auto& slot : slots_) {
      const auto it = slot.running.find(censoring.trial);
      if (it == slot.running.end() || it->second.censoring) continue;
      it->second.censoring = censoring;
      asio::co_spawn(context_, slot.worker->send(worker::Cancel{censoring.trial}), asio::detached);
    }
}

// --- the end of an attempt ---

void Scheduler::settle(Slot& slot, const sweeps::TrialKey& key, sweeps::Outcome outcome) {
  measure(slot);
  const auto node = slot.running.extract(key);
  Running running = node.mapped();
  if (const auto* finished = std::get_if<sweeps::Finished>(&outcome);
      finished && !is_loss(finished->loss))
    outcome = sweeps::Diverged{finished->steps, finished->seconds};
  if (auto* diverged = std::get_if<sweeps::Diverged>(&outcome); diverged && running.odd_step)
    diverged->step = std::min(diverged->step, *running.odd_step);
  bool again = false;
  auto* failed = std::get_if<sweeps::Failed>(&outcome);
  const bool cancelled = failed && running.cancelled;
  if (cancelled) *failed = {FailureClass::cancelled, kByHand};
  const bool pruned = failed && !cancelled && failed->failure == FailureClass::cancelled && running.censoring;
  if (pruned) failed->message = running.censoring->reason;
  if (failed) {
    if (failed->failure == FailureClass::cancelled && !stopping_ && !slot.killed && !pruned && !cancelled)
      failed->failure = FailureClass::worker_lost;
    if (says_disk_full(failed->message)) failed->failure = FailureClass::disk_full;
    const bool untouched =
        failed->failure == FailureClass::cancelled || failed->failure == FailureClass::disk_full;
    int& losses = running.trial.lost_to(failed->failure);
    again = !pruned && !cancelled && (untouched || losses < options_.retry.limit(failed->failure));
    ++losses;
    slot.gpu_lost |= failed->failure == FailureClass::gpu_lost;
    if (failed->failure == FailureClass::disk_full)
      stop_for_disk(fmt::format("{}: the disk is full: {}", fs::absolute(options_.folder).string(), failed->message));
    write_log(slot, running,
              fmt::format("{} {}: {}\n", db::now_utc(), sweeps::name(failed->failure), failed->message));
  }
  db::AttemptEnd end;
  if (failed) end.last_lines = slot.output;
  if (slot.peak_memory > 0) end.peak_memory = slot.peak_memory;
  if (pruned)
    store_->prune(key, running.attempt, *running.censoring, end);
  else
    store_->finish(key, running.attempt, outcome, again, end);
  ++running.trial.num_attempts;
  num_ended_ += !again;
  if (!failed) {
    failing_.clear();
    endings_.push_back({std::move(running.trial), std::move(outcome)});
    return commit_soon();
  }
  commit();  // a failure is told at once
  if (!again) remove_checkpoint(key);
  events_.ended(running.trial, outcome, again);
  if (!again) count_failure(running.trial, *failed);
  if (again && !stopping_) put_back(std::move(running.trial));
}

void Scheduler::remove_checkpoint(const sweeps::TrialKey& key) const {
  std::error_code ignored;
  const auto file = checkpoint_file(key);
  fs::remove(file, ignored);
  fs::remove(file.string() + worker::kPreviousCheckpoint, ignored);
  fs::remove_all(file.string() + ".dir", ignored);  // of a command
}

/// What has happened so far reaches the disk; then it may be told, and checkpoints are needed no more.
void Scheduler::commit() {
  store_->flush();
  for (const auto& [trial, outcome] : std::exchange(endings_, {})) {
    remove_checkpoint(trial.key);
    events_.ended(trial, outcome, false);
  }
}

/// Commits a little later, unless somebody does before.
void Scheduler::commit_soon() {
  if (commit_is_due_ || !(store_->has_uncommitted() || !endings_.empty())) return;
  commit_is_due_ = true;
  commit_timer_.expires_after(kGroupCommit);
  commit_timer_.async_wait([this](const boost::system::error_code& cancelled) {
    if (cancelled) return;
    commit_is_due_ = false;
    try {
      commit();
    } catch (...) {
      fail(std::current_exception());
    }
  });
}

/// Opens the breaker when `stop_after` different trials failed and none ended well in between, or too many in all.
void Scheduler::count_failure(const db::WaitingTrial& trial, const sweeps::Failed& failed) {
  if (failed.failure == FailureClass::cancelled) return;
  failing_.insert(trial.id);
  ++num_failed_;
  if (stopping_) return;
  std::string why;
  if (options_.retry.stop_after > 0 && static_cast<int>(failing_.size()) >= options_.retry.stop_after)
    why = fmt::format("{} trials failed in a row; stopping (retry.stop_after = {})", failing_.size(),
                      options_.retry.stop_after);
  else if (options_.max_failures > 0 && num_failed_ >= options_.max_failures)
    why = fmt::format("{} trials failed; stopping (--max-failures {})", num_failed_, options_.max_failures);
  else if (options_.max_failed_share > 0 && num_failed_ >= kFailuresForShare &&
           num_failed_ > options_.max_failed_share * num_ended_)
    why = fmt::format("{} of {} trials failed; stopping (--max-failures {:.0f}%)", num_failed_, num_ended_,
                      100 * options_.max_failed_share);
  if (why.empty()) return;
  broken_ = true;
  events_.message(why);
  store_->record("stopped", why);
  drain();
}

void Scheduler::fail(std::exception_ptr error) {
  if (!error_) error_ = error;
  // Undone with the transaction that failed: they are not told, and their checkpoints stay.
  if (!store_->has_uncommitted()) endings_.clear();
  stop();
}

void Scheduler::drain() {
  stopping_ = true;
  wake_all();
  for (auto& slot : slots_) {
    if (!slot.worker || slot.running.empty()) continue;
    asio::co_spawn(context_, slot.worker->send(worker::Drain{}), asio::detached);
  }
}

bool Scheduler::cancel(const sweeps::TrialKey& key) {
  for (auto& slot : slots_) {
    const auto it = slot.running.find(key);
    if (it == slot.running.end()) continue;
    it->second.cancelled = true;
    asio::co_spawn(context_, slot.worker->send(worker::Cancel{key}), asio::detached);
    asio::co_spawn(context_, kill_if_it_still_trains(slot, key, it->second.attempt), asio::detached);
    return true;
  }
  const auto delayed =
      std::find_if(delayed_.begin(), delayed_.end(), [&](const auto& entry) { return entry.second.key == key; });
  if (delayed != delayed_.end())
    delayed_.erase(delayed);
  else if (!queue_.remove(key))
    return false;
  store_->cancel(key, kByHand);
  return true;
}

awaitable<void> Scheduler::kill_if_it_still_trains(Slot& slot, sweeps::TrialKey key, std::int64_t attempt) {
  asio::steady_timer timer(context_);
  timer.expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(
      std::chrono::duration<double>(options_.cancel_seconds)));
  co_await timer.async_wait(use_awaitable);
  const auto it = slot.running.find(key);
  if (it == slot.running.end() || it->second.attempt != attempt || !slot.worker) co_return;
  slot.killed = true;
  slot.worker->kill();
}

void Scheduler::add(std::vector<db::WaitingTrial> trials) {
  if (num_serving_ == 0) return;  // run() reads what waits when it begins
  for (const auto& trial : trials) queue_.push(trial);
  wake_all();
  for (auto& slot : slots_)
    if (!slot.serving && !slot.retired) serve_in_background(slot);
}

void Scheduler::stop() {
  stopping_ = true;
  wake_all();
  for (auto& slot : slots_)
    if (slot.worker) slot.worker->kill();
}

int Scheduler::num_busy() const {
  return static_cast<int>(
      std::count_if(slots_.begin(), slots_.end(), [](const Slot& s) { return !s.running.empty(); }));
}

/// Checkpoints of trials that do not wait any more: a run was killed between a trial's end and its clean-up.
void Scheduler::remove_stale_checkpoints() {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(options_.folder / "checkpoints", ignored))
    if (!store_->is_waiting(entry.path().filename().string().substr(0, 32)))
      fs::remove_all(entry.path(), ignored);
}

}  // namespace orchestrator
