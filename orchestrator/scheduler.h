#pragma once

#include <exception>
#include <filesystem>
#include <map>
#include <set>

#include "db/store.h"
#include "orchestrator/disk_guard.h"
#include "orchestrator/launcher.h"
#include "orchestrator/trial_queue.h"

namespace orchestrator {

struct SchedulerOptions {
  sweeps::RetrySpec retry;
  std::filesystem::path folder;  // of logs/ and checkpoints/
  int max_failures = 0;         // trials that fail before the run stops; 0: no limit
  double max_failed_share = 0;  // the same as a share of those that ended, from the fifth failure on
  double checkpoint_seconds = 30;
  double stall_seconds = 900;  // a worker silent for this long while it trains is killed
  double start_seconds = 300;  // from its start to its hello
  sweeps::DiskSpec disk = {};
  std::filesystem::path database = {};  // whose disk is watched; empty: none
  std::int64_t memory = 0;           // bytes a worker on the host may take; 0: not bounded
  std::int64_t host_reserve = 0;     // bytes of the host's memory that workers leave alone; 0: not watched
  double memory_wait_seconds = 60;   // for a GPU's memory to come back after a worker
  int trials_per_worker = 0;   // a worker that has trained so many is let go; 0: it stays
  double cancel_seconds = 10;  // after which a worker that does not stop a cancelled trial is killed
};

/// What a scheduler tells whoever watches; a member that is not set is not told. An end is told when it is on
/// the disk.
struct SchedulerEvents {
  std::function<void(const db::WaitingTrial&)> started = [](const auto&) {};
  std::function<void(const db::WaitingTrial&, std::int64_t step)> stepped = [](const auto&, auto) {};
  std::function<void(const db::WaitingTrial&, const sweeps::Outcome&, bool again)> ended =
      [](const auto&, const auto&, bool) {};
  std::function<void(const std::string&)> message = [](const auto&) {};
  std::function<void()> tick = [] {};  // about once a second
};

/// Feeds waiting trials to workers and records what they say. One thread, one coroutine per conversation.
/// Workers are started when there is work for them, at most one a slot, and live until close().
class Scheduler {
 public:
  enum class End { done, drained, broken, disk_full };

  Scheduler(asio::io_context& context, Launcher& launcher, std::vector<DeviceSlot> slots,
            SchedulerOptions options, SchedulerEvents events);
  ~Scheduler();

  /// Asks a worker (the first slot's) an Inspect, a Measure or a Probe. Throws ExitError with what it refuses.
  awaitable<worker::WorkerMessage> ask(worker::OrchestratorMessage question);

  /// Asks all of these, as many at a time as there are slots; `answered` gets each question's place and answer
  /// as it comes. Throws what ask() throws, when no question is under way any more.
  using Answered = std::function<void(std::size_t, const worker::WorkerMessage&)>;
  awaitable<void> ask_all(std::vector<worker::OrchestratorMessage> questions, Answered answered);

  /// Runs every waiting trial of `store` to an end; what `watch` finds censored on the way is stopped.
  /// `broken`: retry.stop_after trials failed in a row. `disk_full`: disk_trouble() says what is. Throws
  /// ExitError{kEnvironment} when no device is left.
  awaitable<End> run(db::Store& store, sweeps::SweepWatch watch = {});
  /// Start nothing more; workers checkpoint what they train and exit; run() returns `drained`.
  void drain();
  /// Stops one trial for good: it becomes failed, class cancelled. False when it neither waits nor runs.
  bool cancel(const sweeps::TrialKey& key);
  /// These wait, too, from now on; without effect while run() is not under way.
  void add(std::vector<db::WaitingTrial> trials);
  /// Kill all workers now; their trials go back to waiting.
  void stop();
  /// Lets the workers go. REQUIRES: run() has returned.
  awaitable<void> close();

  int num_busy() const;
  const std::string& disk_trouble() const { return disk_trouble_; }

 private:
  static constexpr auto kLook = std::chrono::milliseconds(100);  // how often what others do is looked at

  struct Running {
    db::WaitingTrial trial;
    std::int64_t attempt = 0;
    std::filesystem::path log;
    std::optional<sweeps::Censoring> censoring;  // it was told to stop
    bool has_log = false;                        // there was something to say
    std::int64_t step = 0;                       // last one heard of
    bool cancelled = false;                      // by a person
    std::optional<std::int64_t> odd_step = {};   // first one whose loss is none
  };
  struct Slot {
    DeviceSlot device;
    std::unique_ptr<Worker> worker;
    worker::Hello hello;
    std::map<sweeps::TrialKey, Running> running;
    std::string output;  // last lines printed
    int num_trained = 0;
    std::optional<asio::steady_timer> nap;
    bool serving = false;  // its coroutine is at work
    bool has_waited = false;  // for its device's memory; not yet where its worker was started for a question
    bool alone = false;    // its trial wants the device for itself
    bool gpu_lost = false;
    bool retired = false;                       // its device is lost or its worker stuck
    bool killed = false;  // by us, for a trial that would not stop: what else it trained has lost nothing
    std::optional<sweeps::Failed> ended_for;    // why we killed its worker
    std::int64_t peak_memory = 0;               // bytes, of the worker since its start
  };
  struct DeviceState {
    int num_losses = 0;
    bool waits_for_memory = false;              // and that was told
    std::optional<std::int64_t> free_at_first;  // bytes, before the first worker
    std::int64_t peak = 0;                      // bytes that one worker was seen to take
  };
  struct Ending {
    db::WaitingTrial trial;
    sweeps::Outcome outcome;
  };

  struct Questions {
    std::vector<worker::OrchestratorMessage> all;
    std::size_t next = 0;
    Answered answered;
  };
  awaitable<void> start_worker(Slot& slot);
  awaitable<worker::WorkerMessage> ask(Slot& slot, worker::OrchestratorMessage question);
  awaitable<void> ask_in_turn(Slot& slot, Questions& questions);
  awaitable<void> serve(Slot& slot);
  awaitable<void> let_go(Slot& slot);
  awaitable<void> sleep(Slot& slot, std::chrono::steady_clock::duration time);
  void wake_all();
  void admit_delayed();
  void put_back(db::WaitingTrial trial);
  bool may_work(const Slot& slot) const;
  bool others_have_workers(const Slot& slot) const;
  awaitable<bool> have_device_alone(Slot& slot);
  bool lacks_memory(const Slot& slot) const;
  awaitable<bool> wait_for_device_memory(Slot& slot);
  void measure(Slot& slot);
  void note_gpu_loss(Slot& slot);
  void watch_host_memory();
  void stop_for_disk(const std::string& trouble);
  awaitable<void> serve_and_note(Slot& slot);
  awaitable<void> train(Slot& slot, std::vector<db::WaitingTrial> batch);
  awaitable<void> converse(Slot& slot);
  awaitable<void> kill_if_it_still_trains(Slot& slot, sweeps::TrialKey key, std::int64_t attempt);
  awaitable<void> housekeep();
  void serve_in_background(Slot& slot);
  std::vector<db::WaitingTrial> take_batch(int slots);
  worker::Assign start_batch(Slot& slot, std::vector<db::WaitingTrial> batch);
  void handle(Slot& slot, const worker::WorkerMessage& message);
  template <class Message>
  Running* find(Slot& slot, const Message& message);
  void refuse(const std::string& what);
  static void note_odd_loss(Running& running, const worker::Curve& curve);
  void stop_censored(const worker::Curve& curve);
  void commit();
  void commit_soon();
  void settle(Slot& slot, const sweeps::TrialKey& key, sweeps::Outcome outcome);
  void remove_checkpoint(const sweeps::TrialKey& key) const;
  void count_failure(const db::WaitingTrial& trial, const sweeps::Failed& failed);
  void fail(std::exception_ptr error);
  std::string tail_of_output(const Slot& slot) const;
  std::filesystem::path checkpoint_file(const sweeps::TrialKey& key) const;
  std::filesystem::path log_file(std::int64_t trial_id) const;
  void remove_stale_checkpoints();
  void write_output(Slot& slot, std::string_view text);
  void write_log(const Slot& slot, Running& running, std::string_view text) const;

  asio::io_context& context_;
  Launcher& launcher_;
  SchedulerOptions options_;
  SchedulerEvents events_;
  std::vector<Slot> slots_;
  db::Store* store_ = nullptr;
  sweeps::SweepWatch watch_;
  TrialQueue queue_;
  std::vector<Ending> endings_;  // of trials that ended well; told with their commit
  std::multimap<std::chrono::steady_clock::time_point, db::WaitingTrial> delayed_;  // until then
  std::map<std::string, DeviceState> devices_;
  std::optional<DiskGuard> disk_;
  std::string disk_trouble_;
  std::set<std::int64_t> failing_;  // trials that failed since the last one that ended well
  int num_failed_ = 0, num_ended_ = 0;
  std::int64_t num_refused_ = 0;  // messages that matched nothing, of this run()
  asio::steady_timer housekeeping_, all_served_, commit_timer_;
  bool commit_is_due_ = false;
  int num_serving_ = 0;
  bool stopping_ = false, broken_ = false;
  std::exception_ptr error_;
};

}  // namespace orchestrator
