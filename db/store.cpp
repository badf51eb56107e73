#include "db/store.h"

#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>
#include <thread>

#include <fmt/format.h>

#include "db/health.h"
#include "db/sqlite.h"
#include "db/statements.h"

namespace db {
namespace {

using sweeps::FailureClass;
using sweeps::TrialState;

int code(TrialState state) { return static_cast<int>(state); }

constexpr const char* kSelectWaiting = R"(
  SELECT id, key, spec, (SELECT count(*) FROM attempt WHERE trial_id = trial.id),
    (SELECT group_concat(failure) FROM attempt WHERE trial_id = trial.id AND number > trial.forgiven)
  FROM trial)";
WaitingTrial waiting_row(SQLite::Statement& row, const SpecCodec& codec) {
  WaitingTrial trial{row.getColumn(0).getInt64(), row.getColumn(1).getString(),
                     codec.from_text(row.getColumn(2).getString()), row.getColumn(3).getInt64()};
  std::istringstream failures(row.getColumn(4).getString());  // "0,0,4"
  for (std::string one; std::getline(failures, one, ',');) ++trial.losses.at(std::stoul(one));
  return trial;
}

/// Curve points are written at the latest when there are so many bytes of them.
constexpr std::size_t kMaxPendingBytes = 4u << 20;

/// Numbers that read back the same; one that is not finite becomes null.
template <class Number>
std::string json_array(const std::vector<Number>& numbers) {
  constexpr std::size_t kLongest = 25;  // -2.2250738585072014e-308 and a comma
  std::string text(2 + kLongest * numbers.size(), '[');
  char* at = text.data() + 1;
  for (const Number number : numbers) {
    if (std::isfinite(static_cast<double>(number)))
      at = std::to_chars(at, at + kLongest, number).ptr;
    else
      at = std::copy_n("null", 4, at);
    *at++ = ',';
  }
  if (!numbers.empty()) --at;
  *at++ = ']';
  text.resize(static_cast<std::size_t>(at - text.data()));
  text.shrink_to_fit();
  return text;
}

/// Pages of the log after which its rows are copied into the file.
constexpr int kMaxLogPages = 1000;

/// After a failed fsync the kernel may have dropped the pages and say next time that all is well: closing touches
/// nothing, and what the log holds is sorted out by whoever opens the file next.
void keep_log(SQLite::Database& database) {
  sqlite3_db_config(database.getHandle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
}

bool has_lost_its_name(SQLite::Database& database) {
  int moved = 0;
  sqlite3_file_control(database.getHandle(), nullptr, SQLITE_FCNTL_HAS_MOVED, &moved);
  return moved != 0;
}

int note_log_pages(void* pages, sqlite3*, const char*, int count) {
  *static_cast<int*>(pages) = count;
  return SQLITE_OK;
}

}  // namespace

Store::Store(const std::filesystem::path& file, SpecCodec codec, std::unique_ptr<SQLite::Database> database)
    : Reader(file, std::move(codec), std::move(database)),
      log_pages_(std::make_unique<int>(0)),
      statements_(std::make_unique<Statements>(*database_)) {
  sqlite3_wal_hook(database_->getHandle(), note_log_pages, log_pages_.get());
}
Store::Store(Store&&) noexcept = default;
Store::~Store() = default;

Store Store::open(const std::filesystem::path& file, SpecCodec codec, Synchronous synchronous) {
  if (is_our_database(file))
    check_sound(file);  // before anything opens it for writing
  else
    create_database(file);
  migrate_database(file);
  Store store(file, std::move(codec), open_writer(file));
  store.take_over();
  if (synchronous == Synchronous::normal) store.database_->exec("PRAGMA synchronous = NORMAL");
  return store;
}

/// A new epoch, in which nobody but us may write; what the last owner left running waits again.
void Store::take_over() {
  guarded(file_, [&] {
    owner_.started = now_utc();
    SQLite::Transaction transaction(*database_, SQLite::TransactionBehavior::IMMEDIATE);
    SQLite::Statement take(
        *database_,
        "UPDATE owner SET epoch = epoch + 1, log = 1, pid = ?, host = ?, started = ? RETURNING epoch");
    SQLite::bind(take, ::getpid(), host_name(), owner_.started);
    take.executeStep();
    owner_.epoch = take.getColumn(0).getInt64();
    take.reset();
    reopen_lost();
    transaction.commit();
    checkpoint();
  });
}

/// Copies the log into the file, which afterwards says that a log belongs to it: `log` is 0 in the file and 1 in the
/// log's first page, so that a log that is lost (with the rows in it) is missed, and one that SQLite has copied
/// itself - the file was closed, or another program opened it after a crash - is not.
void Store::checkpoint() {
  try {
    database_->exec("UPDATE owner SET log = 0");
    // Readers of older rows keep this from the file, which would then say 1. They are soon gone, and hold
    // nobody up if they are not.
    const auto patience = run_id_ ? std::chrono::milliseconds(5) : std::chrono::seconds(1);
    const auto deadline = std::chrono::steady_clock::now() + patience;
    const int last_page = *log_pages_;
    while (true) {
      SQLite::Statement copy(*database_, "PRAGMA wal_checkpoint(PASSIVE)");
      copy.executeStep();
      constexpr int kNumCopied = 2;
      if (copy.getColumn(kNumCopied).getInt() >= last_page || std::chrono::steady_clock::now() > deadline)
        break;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    database_->exec("UPDATE owner SET log = 1");
  } catch (...) {
    suspect_ = true;
    keep_log(*database_);  // with `log` at 0 in the file
    throw;
  }
}


/// REQUIRES: a write transaction. The lock that the caller holds tells this only while nobody removes its file.
void Store::check_owner() const {
  if (has_lost_its_name(*database_))  // SQLite would write on
    throw StoreError(
        Trouble::environment,
        fmt::format("{}: was removed, or replaced by another file, while a run was on; the run has stopped",
                    file_.string()));
  auto select = statements_->use("SELECT epoch, pid, host, started FROM owner");
  select->executeStep();
  if (select->getColumn(0).getInt64() == owner_.epoch && select->getColumn(3).getString() == owner_.started) return;
  throw StoreError(Trouble::owned,
                   fmt::format("{}: pid {} on {} has taken it over; this run, an earlier owner, has stopped and "
                               "wrote nothing more",
                               file_.string(), select->getColumn(1).getInt64(), select->getColumn(2).getString()));
}

// --- transactions ---

void Store::write(const std::function<void()>& work) {
  guarded(file_, [&] {
    begin();
    try {
      statements_->use("SAVEPOINT one_write")->exec();
      work();
      statements_->use("RELEASE one_write")->exec();
    } catch (...) {
      // SQLite has undone the whole transaction where the disk is full and the like.
      if (sqlite3_get_autocommit(database_->getHandle())) in_transaction_ = false;
      if (in_transaction_) database_->tryExec("ROLLBACK TO one_write; RELEASE one_write");
      if (group_commit_.count() == 0) roll_back();
      throw;
    }
    if (std::chrono::steady_clock::now() - began_ >= group_commit_) commit();
  });
}

void Store::begin() {
  if (in_transaction_) return;
  if (suspect_)
    throw StoreError(Trouble::environment,
                     fmt::format("{}: reading or writing it has failed; it is not written to any more: run the same "
                                 "command again, which checks it first",
                                 file_.string()));
  statements_->use("BEGIN IMMEDIATE")->exec();
  in_transaction_ = true;
  began_ = std::chrono::steady_clock::now();
  try {
    check_owner();
  } catch (...) {
    roll_back();
    throw;
  }
}

void Store::commit() {
  try {
    write_pending();
    statements_->use("COMMIT")->exec();
  } catch (...) {
    roll_back();
    throw;
  }
  in_transaction_ = false;
  pending_chunks_.clear();
  pending_bytes_ = 0;
  pending_steps_.clear();
  if (*log_pages_ >= kMaxLogPages) checkpoint();
}

void Store::roll_back() {
  if ((sqlite3_errcode(database_->getHandle()) & 0xff) == SQLITE_IOERR) {
    suspect_ = true;
    keep_log(*database_);
  }
  if (in_transaction_ && !sqlite3_get_autocommit(database_->getHandle())) database_->tryExec("ROLLBACK");
  in_transaction_ = false;
}

void Store::write_pending() {
  for (const Chunk& chunk : pending_chunks_) {
    // Where a transaction has failed the attempt's start may have been undone; the next one gets its number.
    auto insert = statements_->use(R"(
      INSERT INTO curve_chunk (trial_id, attempt, metric, steps, "values") SELECT ?1, ?2, ?3, ?4, ?5
      WHERE EXISTS (SELECT 1 FROM attempt WHERE trial_id = ?1 AND number = ?2))");
    insert->bind(1, chunk.trial_id);
    insert->bind(2, chunk.attempt);
    insert->bindNoCopy(3, chunk.metric);
    insert->bindNoCopy(4, chunk.steps);
    insert->bindNoCopy(5, chunk.values);
    insert->exec();
  }
  for (const auto& [attempt, step] : pending_steps_) {
    auto update = statements_->use("UPDATE attempt SET step = ? WHERE trial_id = ? AND number = ?");
    SQLite::bind(*update, step, attempt.first, attempt.second);
    update->exec();
  }
}

void Store::flush() {
  guarded(file_, [&] {
    if (!pending_chunks_.empty() || !pending_steps_.empty()) begin();
    if (in_transaction_) commit();
  });
}

void Store::set_group_commit(std::chrono::milliseconds longest) {
  group_commit_ = longest;
  flush();
}

void Store::reopen_lost() {
  SQLite::Statement end(*database_, R"(
    UPDATE attempt SET state = ?, failure = ?, message = 'the run that owned it ended', ended = ? WHERE state = ?)");
  SQLite::bind(end, code(TrialState::failed), static_cast<int>(FailureClass::cancelled), now_utc(),
               code(TrialState::running));
  end.exec();
  SQLite::Statement reopen(*database_, "UPDATE trial SET state = ?, changed = ? WHERE state = ?");
  SQLite::bind(reopen, code(TrialState::waiting), now_utc(), code(TrialState::running));
  reopen.exec();
}

void Store::begin_run(std::int64_t study_id, const ProgramInfo& program) {
  write([&] {
    SQLite::Statement insert(*database_, R"(
      INSERT INTO run (study_id, epoch, version, git_commit, program_hash, worker_hash, host, pid, started)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?))");
    SQLite::bind(insert, study_id, owner_.epoch, TUNEONCE_VERSION, program.git_commit, program.program_hash,
                 program.worker_hash, host_name(), ::getpid(), now_utc());
    insert.exec();
    run_id_ = database_->getLastInsertRowid();
  });
}

std::int64_t Store::put_study(const sweeps::Study& study, const std::filesystem::path& study_file) {
  const auto known = this->study();
  if (known && known->name != study.name)
    throw StoreError(Trouble::state,
                     fmt::format("{}: holds the study \"{}\", not \"{}\"; choose another file with --db",
                                 file_.string(), known->name, study.name));
  if (known && known->text == study.text && known->fingerprint == study.data.fingerprint) return known->id;
  std::int64_t row = 0;
  write([&] {
    SQLite::Statement insert(*database_, R"(
      INSERT INTO study (name, text, hash, fingerprint, file, program, created) VALUES (?, ?, ?, ?, ?, ?, ?))");
    SQLite::bind(insert, study.name, study.text, study.hash, study.data.fingerprint,
                 std::filesystem::absolute(study_file).lexically_normal().string(), TUNEONCE_VERSION,
                 now_utc());
    insert.exec();
    row = database_->getLastInsertRowid();
  });
  return row;
}

int Store::add_plan(std::int64_t study_id, const std::vector<sweeps::TrialSpec>& specs) {
  int added = 0;
  write([&] {
    const std::string now = now_utc();
    SQLite::Statement drop(*database_, "UPDATE trial SET state = ?, changed = ? WHERE state = ?");
    SQLite::bind(drop, code(TrialState::dropped), now, code(TrialState::waiting));
    drop.exec();
    SQLite::Statement insert(*database_, R"(
      INSERT INTO trial (key, study_id, name, role, target, lr, wd, init_std, seed, spec, state, created, changed)
      VALUES (?, ?, ?, ?, nullif(?, ''), ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING)");
    SQLite::Statement wait(*database_,
                           "UPDATE trial SET state = ?, steps = NULL, message = NULL, changed = ? WHERE key "
                           "= ? AND state IN (?, ?)");
    for (const auto& spec : specs) {
      const auto key = sweeps::trial_key(spec);
      SQLite::bind(insert, key, study_id, spec.name, static_cast<int>(spec.role), spec.target, spec.base.lr,
                   spec.base.wd, spec.base.init_std, fmt::format("{}", spec.seed), codec_.to_text(spec),
                   code(TrialState::waiting), now, now);
      added += insert.exec();
      insert.reset();
      SQLite::bind(wait, code(TrialState::waiting), now, key, code(TrialState::dropped),
                   code(TrialState::pruned));
      wait.exec();
      wait.reset();
    }
  });
  return added;
}

void Store::each_waiting(const std::function<void(const WaitingTrial&)>& visit) const {
  guarded(file_, [&] {
    SQLite::Statement select(*database_, std::string(kSelectWaiting) + " WHERE state = ? ORDER BY id");
    select.bind(1, code(TrialState::waiting));
    while (select.executeStep()) visit(waiting_row(select, codec_));
  });
}

std::vector<WaitingTrial> Store::waiting() const {
  std::vector<WaitingTrial> waiting;
  each_waiting([&](const WaitingTrial& trial) { waiting.push_back(trial); });
  return waiting;
}

WaitingTrial Store::waiting_trial(std::int64_t id) const {
  return guarded(file_, [&] {
    static const std::string sql = std::string(kSelectWaiting) + " WHERE id = ? AND state = ?";
    auto select = statements_->use(sql.c_str());
    SQLite::bind(*select, id, code(TrialState::waiting));
    if (!select->executeStep())
      throw StoreError(Trouble::state, fmt::format("{}: trial {} is not waiting", file_.string(), id));
    return waiting_row(*select, codec_);
  });
}

bool Store::is_waiting(const sweeps::TrialKey& key) const {
  return guarded(file_, [&] {
    auto select = statements_->use("SELECT 1 FROM trial WHERE key = ? AND state = ?");
    SQLite::bind(*select, key, code(TrialState::waiting));
    return select->executeStep();
  });
}

std::int64_t Store::trial_id(const sweeps::TrialKey& key) const {
  if (const auto it = running_ids_.find(key); it != running_ids_.end()) return it->second;
  auto select = statements_->use("SELECT id FROM trial WHERE key = ?");
  select->bind(1, key);
  if (!select->executeStep())
    throw StoreError(Trouble::state, fmt::format("{}: there is no trial with key {}", file_.string(), key));
  return select->getColumn(0).getInt64();
}

std::int64_t Store::start(const sweeps::TrialKey& key, const AttemptInfo& info) {
  std::int64_t number = 0;
  write([&] {
    const auto id = trial_id(key);
    const std::string now = now_utc();
    auto run = statements_->use("UPDATE trial SET state = ?, changed = ? WHERE id = ? AND state = ?");
    SQLite::bind(*run, code(TrialState::running), now, id, code(TrialState::waiting));
    if (run->exec() != 1)
      throw StoreError(Trouble::state, fmt::format("{}: trial {} is not waiting", file_.string(), id));
    auto last = statements_->use("SELECT coalesce(max(number), 0) FROM attempt WHERE trial_id = ?");
    last->bind(1, id);
    last->executeStep();
    number = last->getColumn(0).getInt64() + 1;
    auto insert = statements_->use(R"(
      INSERT INTO attempt (trial_id, number, state, device, device_name, host, worker_pid, worker_build, log, started,
        device_uuid, run_id)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, nullif(?, ''), ?))");
    SQLite::bind(*insert, id, number, code(TrialState::running), info.device, info.device_name, info.host,
                 info.worker_pid, info.worker_build, info.log, now, info.device_uuid);
    if (run_id_) insert->bind(12, *run_id_);
    insert->exec();
    running_ids_[key] = id;
  });
  return number;
}

void Store::finish(const sweeps::TrialKey& key, std::int64_t attempt, const sweeps::Outcome& outcome,
                   bool again, const AttemptEnd& known) {
  write([&] {
    const auto id = trial_id(key);
    const std::string now = now_utc();
    const auto* finished = std::get_if<sweeps::Finished>(&outcome);
    const auto* diverged = std::get_if<sweeps::Diverged>(&outcome);
    const auto* failed = std::get_if<sweeps::Failed>(&outcome);
    if (finished && !std::isfinite(finished->loss))
      throw StoreError(Trouble::state,
                       fmt::format("{}: trial {}: a result must be finite", file_.string(), id));
    const auto state = finished ? TrialState::complete : diverged ? TrialState::diverged : TrialState::failed;

    auto end = statements_->use(R"(
      UPDATE attempt SET state = ?, failure = ?, message = ?, ended = ?, last_lines = nullif(?, ''), peak_memory = ?
      WHERE trial_id = ? AND number = ? AND state = ?)");
    end->bind(1, code(state));
    if (failed) {
      end->bind(2, static_cast<int>(failed->failure));
      end->bind(3, failed->message);
    }
    end->bind(4, now);
    end->bind(5, known.last_lines);
    if (known.peak_memory) end->bind(6, *known.peak_memory);
    end->bind(7, id);
    end->bind(8, attempt);
    end->bind(9, code(TrialState::running));
    if (end->exec() != 1)
      throw StoreError(Trouble::state,
                       fmt::format("{}: attempt {} of trial {} is not running", file_.string(), attempt, id));

    auto update = statements_->use(R"(
      UPDATE trial SET state = ?, loss = ?, floor = ?, steps = ?, diverged_step = ?, seconds = ?, message = ?, changed = ?
      WHERE id = ?)");
    update->bind(1, code(failed && again ? TrialState::waiting : state));
    if (finished) {
      update->bind(2, finished->loss);
      if (finished->floor) update->bind(3, *finished->floor);
      update->bind(4, finished->steps);
      update->bind(6, finished->seconds);
    }
    if (diverged) {
      update->bind(5, diverged->step);
      update->bind(6, diverged->seconds);
    }
    if (failed) update->bind(7, fmt::format("{}: {}", sweeps::name(failed->failure), failed->message));
    update->bind(8, now);
    update->bind(9, id);
    update->exec();
    running_ids_.erase(key);
  });
}

void Store::prune(const sweeps::TrialKey& key, std::int64_t attempt, const sweeps::Censoring& why,
                  const AttemptEnd& known) {
  write([&] {
    const auto id = trial_id(key);
    auto end = statements_->use(R"(
      UPDATE attempt SET state = ?, message = ?, ended = ?, last_lines = nullif(?, ''), peak_memory = ?
      WHERE trial_id = ? AND number = ? AND state = ?)");
    SQLite::bind(*end, code(TrialState::pruned), why.reason, now_utc(), known.last_lines);
    if (known.peak_memory) end->bind(5, *known.peak_memory);
    end->bind(6, id);
    end->bind(7, attempt);
    end->bind(8, code(TrialState::running));
    if (end->exec() != 1)
      throw StoreError(Trouble::state,
                       fmt::format("{}: attempt {} of trial {} is not running", file_.string(), attempt, id));
    set_pruned(id, why);
    running_ids_.erase(key);
  });
}

void Store::prune_waiting(const std::vector<sweeps::Censoring>& censored) {
  if (censored.empty()) return;
  write([&] {
    SQLite::Statement select(*database_, "SELECT id FROM trial WHERE key = ? AND state = ?");
    for (const auto& why : censored) {
      SQLite::bind(select, why.trial, code(TrialState::waiting));
      if (select.executeStep()) set_pruned(select.getColumn(0).getInt64(), why);
      select.reset();
    }
  });
}

void Store::set_pruned(std::int64_t id, const sweeps::Censoring& why) {
  auto update =
      statements_->use("UPDATE trial SET state = ?, steps = ?, message = ?, changed = ? WHERE id = ?");
  SQLite::bind(*update, code(TrialState::pruned), why.step, why.reason, now_utc(), id);
  update->exec();
}

namespace {
/// What retry_failed() and retry() do to the trials that the condition after it picks.
constexpr const char* kRetry = R"(
  UPDATE trial SET state = ?, message = NULL, changed = ?,
    forgiven = (SELECT coalesce(max(number), 0) FROM attempt WHERE trial_id = trial.id)
  WHERE state = ?)";
}  // namespace

int Store::retry_failed() {
  int retried = 0;
  write([&] {
    SQLite::Statement update(*database_,
                             std::string(kRetry) + " AND id NOT IN (SELECT trial_id FROM dropped)");
    SQLite::bind(update, code(TrialState::waiting), now_utc(), code(TrialState::failed));
    retried = update.exec();
  });
  return retried;
}

int Store::retry(const std::vector<sweeps::TrialKey>& keys) {
  write([&] {
    SQLite::Statement update(*database_, std::string(kRetry) + " AND key = ?");
    for (const auto& key : keys) {
      SQLite::bind(update, code(TrialState::waiting), now_utc(), code(TrialState::failed), key);
      if (update.exec() != 1)
        throw StoreError(Trouble::state, fmt::format("{}: trial {} has not failed", file_.string(), trial_id(key)));
      update.reset();
    }
  });
  return static_cast<int>(keys.size());
}

void Store::cancel(const sweeps::TrialKey& key, const std::string& message) {
  write([&] {
    SQLite::Statement update(*database_,
                             "UPDATE trial SET state = ?, message = ?, changed = ? WHERE key = ? AND state = ?");
    SQLite::bind(update, code(TrialState::failed),
                 fmt::format("{}: {}", sweeps::name(FailureClass::cancelled), message), now_utc(), key,
                 code(TrialState::waiting));
    if (update.exec() != 1)
      throw StoreError(Trouble::state, fmt::format("{}: trial {} is not waiting", file_.string(), trial_id(key)));
  });
}

void Store::note_started(const sweeps::TrialKey& key, std::int64_t attempt, std::int64_t first_step) {
  write([&] {
    auto update =
        statements_->use("UPDATE attempt SET first_step = ?, step = ? WHERE trial_id = ? AND number = ?");
    SQLite::bind(*update, first_step, first_step, trial_id(key), attempt);
    update->exec();
  });
}

void Store::note_step(const sweeps::TrialKey& key, std::int64_t attempt, std::int64_t step) {
  guarded(file_, [&] { pending_steps_[{trial_id(key), attempt}] = step; });
}

void Store::append_curve(const sweeps::TrialKey& key, std::int64_t attempt, const std::string& metric,
                         const std::vector<std::int64_t>& steps, const std::vector<double>& values) {
  guarded(file_, [&] {
    const auto& chunk = pending_chunks_.emplace_back(
        Chunk{trial_id(key), attempt, metric, json_array(steps), json_array(values)});
    pending_bytes_ += chunk.steps.size() + chunk.values.size();
    if (pending_bytes_ < kMaxPendingBytes) return;
    begin();
    commit();
  });
}

void Store::put_branch(const sweeps::TrialKey& key, const sweeps::BranchLoss& branch) {
  write([&] {
    auto insert = statements_->use("INSERT OR REPLACE INTO branch VALUES (?, ?, ?, ?)");
    SQLite::bind(*insert, trial_id(key), branch.fraction, branch.steps, branch.loss);
    insert->exec();
  });
}

void Store::put_samples(const sweeps::TrialKey& key, const sweeps::SampleSheet& sheet) {
  write([&] {
    auto insert = statements_->use(R"(
      INSERT OR REPLACE INTO sample (trial_id, width, height, channels, drawn, real) VALUES (?, ?, ?, ?, ?, ?))");
    SQLite::bind(*insert, trial_id(key), sheet.width, sheet.height, sheet.channels);
    insert->bind(5, sheet.drawn.data(), static_cast<int>(sheet.drawn.size()));
    insert->bind(6, sheet.real.empty() ? static_cast<const void*>("") : sheet.real.data(),  // null is no blob
                static_cast<int>(sheet.real.size()));
    insert->exec();
  });
}

void Store::record(const std::string& kind, const std::string& message, const sweeps::TrialKey& key) {
  write([&] {
    auto insert = statements_->use(R"(
      INSERT INTO event (time, kind, trial_id, message)
      VALUES (?, ?, (SELECT id FROM trial WHERE key = ?), ?))");
    SQLite::bind(*insert, now_utc(), kind, key, message);
    insert->exec();
  });
}

}  // namespace db
