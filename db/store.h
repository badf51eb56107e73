#pragma once

#include <array>
#include <chrono>
#include <map>
#include <unordered_map>

#include "db/reader.h"
#include "sweeps/analysis.h"

namespace db {

class Statements;

/// A trial that may be started.
struct WaitingTrial {
  std::int64_t id = 0;
  sweeps::TrialKey key;
  sweeps::TrialSpec spec;
  std::int64_t num_attempts = 0;
  /// Attempts lost to each sweeps::FailureClass since the trial was last asked for by hand.
  std::array<int, sweeps::kNumFailureClasses> losses{};

  int& lost_to(sweeps::FailureClass failure) { return losses[static_cast<std::size_t>(failure)]; }
};

/// Who carries an attempt out.
struct AttemptInfo {
  std::string device;
  std::string device_name;
  std::string device_uuid = {};  // of a GPU; empty where the device has none
  std::string host;
  std::int64_t worker_pid = 0;
  std::string worker_build;
  std::string log;
};

/// What is known of an attempt when it ends, beside its outcome.
struct AttemptEnd {
  std::string last_lines;                   // of its log, of an attempt that failed; empty: none
  std::optional<std::int64_t> peak_memory;  // bytes, of the device; absent where nobody measured it
};

/// The program at work, so that every result can be traced to what made it.
struct ProgramInfo {
  std::string git_commit;    // of the source it was built from; "unknown" where there was no repository
  std::string program_hash;  // of the file of tuneonce
  std::string worker_hash;   // of the file of the worker
};

/// SQLite's `synchronous`: whether a commit waits for the disk. With `normal` a power cut, though no kill, may
/// take the last commits back.
enum class Synchronous { full, normal };

/// The one writer of a results database. Every state that a method returns from is on the disk, unless group
/// commit is asked for; curve points and steps are gathered and written with the next state or flush().
/// REQUIRES: the caller holds the owner lock. Every method throws StoreError; with nothing written, if
/// another opened the database for writing after us (Trouble::owned) or the file lost its name. A sync or
/// write that failed is not tried again: every later call throws, and whoever opens the file anew has it
/// checked.
class Store : public Reader {
 public:
  /// Opens `file`, creates it, or migrates it from an older schema after a copy. Rows still `running` have no living owner and go back to waiting.
  static Store open(const std::filesystem::path& file, SpecCodec codec,
                    Synchronous synchronous = Synchronous::full);
  Store(Store&&) noexcept;
  ~Store();

  /// Remembers the program that works on a study from now on; attempts that start point to it.
  void begin_run(std::int64_t study_id, const ProgramInfo& program);

  /// Remembers the study; a changed text or fingerprint becomes a new row. Returns the row's id.
  /// Trouble::state when the database holds a study of another name.
  std::int64_t put_study(const sweeps::Study& study, const std::filesystem::path& study_file);

  /// Afterwards exactly those of `specs` that have not ended wait: unknown keys become waiting rows, known
  /// ones are left alone, waiting trials that nobody asks for any more are dropped, and dropped and pruned ones
  /// that are asked for wait again. Returns the new rows.
  int add_plan(std::int64_t study_id, const std::vector<sweeps::TrialSpec>& specs);
  std::vector<WaitingTrial> waiting() const;
  /// The same, one at a time.
  void each_waiting(const std::function<void(const WaitingTrial&)>& visit) const;
  /// Trouble::state when trial `id` does not wait.
  WaitingTrial waiting_trial(std::int64_t id) const;
  bool is_waiting(const sweeps::TrialKey& key) const;

  /// From now on states share commits: one may wait so long for those that follow, until the next state or
  /// flush() makes the commit. 0, as at first: each has its own. Commits what is open.
  void set_group_commit(std::chrono::milliseconds longest);
  /// Whether states wait for a commit; nobody may be told of them before.
  bool has_uncommitted() const { return in_transaction_; }

  /// waiting -> running. Returns the number of the attempt.
  std::int64_t start(const sweeps::TrialKey& key, const AttemptInfo& info);
  /// Ends attempt `attempt`: running -> complete, diverged or failed; or back to waiting with `again`.
  void finish(const sweeps::TrialKey& key, std::int64_t attempt, const sweeps::Outcome& outcome,
              bool again = false, const AttemptEnd& end = {});
  /// Ends an attempt that was stopped early: running -> pruned.
  void prune(const sweeps::TrialKey& key, std::int64_t attempt, const sweeps::Censoring& why,
             const AttemptEnd& end = {});
  /// waiting -> pruned: those that lost their worker past the evaluation that decided.
  void prune_waiting(const std::vector<sweeps::Censoring>& censored);
  /// failed -> waiting, and earlier losses count no more. Returns how many. With keys: these alone, all of them or
  /// none; Trouble::state when one has not failed.
  int retry_failed();
  int retry(const std::vector<sweeps::TrialKey>& keys);
  /// waiting -> failed, class cancelled: a person does not want it. Trouble::state when it does not wait.
  void cancel(const sweeps::TrialKey& key, const std::string& message);

  void note_started(const sweeps::TrialKey& key, std::int64_t attempt, std::int64_t first_step);
  void note_step(const sweeps::TrialKey& key, std::int64_t attempt, std::int64_t step);
  void append_curve(const sweeps::TrialKey& key, std::int64_t attempt, const std::string& metric,
                    const std::vector<std::int64_t>& steps, const std::vector<double>& values);
  void put_branch(const sweeps::TrialKey& key, const sweeps::BranchLoss& branch);
  /// What the trial drew; replaces what an earlier attempt did.
  void put_samples(const sweeps::TrialKey& key, const sweeps::SampleSheet& sheet);
  /// All of it is on the disk when this returns.
  void flush();

  /// One line of the database's diary.
  void record(const std::string& kind, const std::string& message, const sweeps::TrialKey& key = "");

  /// Writes what was decided into censored, optimum, target, target_group and drift_check, for people to
  /// read: nothing is read back from there.
  void put_decisions(std::int64_t study_id, const sweeps::Study& study, const sweeps::Analysis& analysis);

 private:
  Store(const std::filesystem::path& file, SpecCodec codec, std::unique_ptr<SQLite::Database> database);
  /// `work`, all of it or nothing, as part of the open transaction or of one of its own.
  void write(const std::function<void()>& work);
  void begin();
  /// The gathered curve points with it.
  void commit();
  void roll_back();
  void write_pending();
  void set_pruned(std::int64_t id, const sweeps::Censoring& why);
  void take_over();
  void check_owner() const;
  void checkpoint();
  void reopen_lost();
  std::int64_t trial_id(const sweeps::TrialKey& key) const;

  struct Owner {
    std::int64_t epoch = 0;
    std::string started;
  };
  Owner owner_;
  std::optional<std::int64_t> run_id_;
  std::unique_ptr<int> log_pages_;  // in the log (-wal); SQLite's hook holds its address
  bool suspect_ = false;            // reading or writing has failed: nobody knows what the disk holds

  struct Chunk {
    std::int64_t trial_id, attempt;
    std::string metric, steps, values;
  };
  std::unique_ptr<Statements> statements_;
  std::chrono::steady_clock::duration group_commit_{};
  std::chrono::steady_clock::time_point began_;  // the open transaction
  bool in_transaction_ = false;
  std::unordered_map<sweeps::TrialKey, std::int64_t> running_ids_;  // of the trials that run, for trial_id
  std::vector<Chunk> pending_chunks_;
  std::size_t pending_bytes_ = 0;
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t>
      pending_steps_;  // (trial id, attempt) -> step
};

}  // namespace db
