#include "db/store.h"

#include <cmath>
#include <set>

#include <SQLiteCpp/SQLiteCpp.h>
#include <SQLiteCpp/VariadicBind.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "db/sqlite.h"

namespace db {
namespace {

using sweeps::FailureClass;
using sweeps::TrialState;

int code(TrialState state) { return static_cast<int>(state); }

std::string json_array(const std::vector<std::int64_t>& numbers) {
  return fmt::format("[{}]", fmt::join(numbers, ","));
}
/// Numbers that read back the same; one that is not finite becomes null.
std::string json_array(const std::vector<double>& numbers) {
  std::string text = "[";
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (i) text += ',';
    text += std::isfinite(numbers[i]) ? fmt::format("{}", numbers[i]) : "null";
  }
  return text + "]";
}

void check_sound(SQLite::Database& database, const std::filesystem::path& file) {
  SQLite::Statement check(database, "PRAGMA quick_check(1)");
  check.executeStep();
  const std::string answer = check.getColumn(0).getString();
  if (answer != "ok")
    throw StoreError(Trouble::corrupt,
                     fmt::format("{}: is damaged ({}) and was left as it is: restore a copy, or try "
                                 "`sqlite3 {} .recover`",
                                 file.string(), answer, file.string()));
}

}  // namespace

bool counts_as_loss(FailureClass failure) {
  switch (failure) {
    case FailureClass::crash:
    case FailureClass::oom_gpu:
    case FailureClass::oom_host:
    case FailureClass::stalled:
    case FailureClass::worker_lost: return true;
    case FailureClass::user_error:
    case FailureClass::cancelled: return false;
  }
  throw std::logic_error("counts_as_loss: unknown FailureClass");
}

Store::Store(const std::filesystem::path& file, SpecCodec codec, std::unique_ptr<SQLite::Database> database)
    : Reader(file, std::move(codec), std::move(database)) {}
Store::Store(Store&&) noexcept = default;
Store::~Store() = default;

Store Store::open(const std::filesystem::path& file, SpecCodec codec) {
  if (!is_our_database(file)) create_database(file);
  Store store(file, std::move(codec), open_writer(file));
  guarded(file, [&] { check_sound(*store.database_, file); });
  migrate_database(file);
  store.reopen_lost();
  return store;
}

void Store::write(const std::function<void()>& work) {
  guarded(file_, [&] {
    SQLite::Transaction transaction(*database_, SQLite::TransactionBehavior::IMMEDIATE);
    write_pending();
    work();
    transaction.commit();
    pending_chunks_.clear();
    pending_steps_.clear();
  });
}

void Store::write_pending() {
  if (!pending_chunks_.empty()) {
    SQLite::Statement insert(
        *database_,
        R"(INSERT INTO curve_chunk (trial_id, attempt, metric, steps, "values") VALUES (?, ?, ?, ?, ?))");
    for (const Chunk& chunk : pending_chunks_) {
      SQLite::bind(insert, chunk.trial_id, chunk.attempt, chunk.metric, chunk.steps, chunk.values);
      insert.exec();
      insert.reset();
    }
  }
  if (!pending_steps_.empty()) {
    SQLite::Statement update(*database_, "UPDATE attempt SET step = ? WHERE trial_id = ? AND number = ?");
    for (const auto& [attempt, step] : pending_steps_) {
      SQLite::bind(update, step, attempt.first, attempt.second);
      update.exec();
      update.reset();
    }
  }
}

void Store::flush() {
  if (!pending_chunks_.empty() || !pending_steps_.empty()) write([] {});
}

void Store::reopen_lost() {
  write([&] {
    SQLite::Statement end(*database_, R"(
      UPDATE attempt SET state = ?, failure = ?, message = 'the run that owned it ended', ended = ? WHERE state = ?)");
    SQLite::bind(end, code(TrialState::failed), static_cast<int>(FailureClass::cancelled), now_utc(),
                 code(TrialState::running));
    end.exec();
    SQLite::Statement reopen(*database_, "UPDATE trial SET state = ?, changed = ? WHERE state = ?");
    SQLite::bind(reopen, code(TrialState::waiting), now_utc(), code(TrialState::running));
    reopen.exec();
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

std::vector<WaitingTrial> Store::waiting() const {
  return guarded(file_, [&] {
    SQLite::Statement select(*database_, R"(
      SELECT id, key, spec, (SELECT count(*) FROM attempt WHERE trial_id = trial.id),
        (SELECT count(*) FROM attempt WHERE trial_id = trial.id AND number > trial.forgiven
          AND failure IS NOT NULL AND failure NOT IN (?, ?))
      FROM trial WHERE state = ? ORDER BY id)");
    SQLite::bind(select, static_cast<int>(FailureClass::user_error),
                 static_cast<int>(FailureClass::cancelled), code(TrialState::waiting));
    std::vector<WaitingTrial> waiting;
    while (select.executeStep())
      waiting.push_back({select.getColumn(0).getInt64(), select.getColumn(1).getString(),
                         codec_.from_text(select.getColumn(2).getString()), select.getColumn(3).getInt64(),
                         select.getColumn(4).getInt64()});
    return waiting;
  });
}

std::int64_t Store::trial_id(const sweeps::TrialKey& key) const {
  SQLite::Statement select(*database_, "SELECT id FROM trial WHERE key = ?");
  select.bind(1, key);
  if (!select.executeStep())
    throw StoreError(Trouble::state, fmt::format("{}: there is no trial with key {}", file_.string(), key));
  return select.getColumn(0).getInt64();
}

std::int64_t Store::start(const sweeps::TrialKey& key, const AttemptInfo& info) {
  std::int64_t number = 0;
  write([&] {
    const auto id = trial_id(key);
    const std::string now = now_utc();
    SQLite::Statement run(*database_, "UPDATE trial SET state = ?, changed = ? WHERE id = ? AND state = ?");
    SQLite::bind(run, code(TrialState::running), now, id, code(TrialState::waiting));
    if (run.exec() != 1)
      throw StoreError(Trouble::state, fmt::format("{}: trial {} is not waiting", file_.string(), id));
    SQLite::Statement last(*database_, "SELECT coalesce(max(number), 0) FROM attempt WHERE trial_id = ?");
    last.bind(1, id);
    last.executeStep();
    number = last.getColumn(0).getInt64() + 1;
    SQLite::Statement insert(*database_, R"(
      INSERT INTO attempt (trial_id, number, state, device, device_name, host, worker_pid, worker_build, log, started)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?))");
    SQLite::bind(insert, id, number, code(TrialState::running), info.device, info.device_name, info.host,
                 info.worker_pid, info.worker_build, info.log, now);
    insert.exec();
  });
  return number;
}

void Store::finish(const sweeps::TrialKey& key, std::int64_t attempt, const sweeps::Outcome& outcome,
                   bool again) {
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

    SQLite::Statement end(*database_, R"(
      UPDATE attempt SET state = ?, failure = ?, message = ?, ended = ? WHERE trial_id = ? AND number = ? AND state = ?)");
    end.bind(1, code(state));
    if (failed) {
      end.bind(2, static_cast<int>(failed->failure));
      end.bind(3, failed->message);
    }
    end.bind(4, now);
    end.bind(5, id);
    end.bind(6, attempt);
    end.bind(7, code(TrialState::running));
    if (end.exec() != 1)
      throw StoreError(Trouble::state,
                       fmt::format("{}: attempt {} of trial {} is not running", file_.string(), attempt, id));

    SQLite::Statement update(*database_, R"(
      UPDATE trial SET state = ?, loss = ?, floor = ?, steps = ?, diverged_step = ?, seconds = ?, message = ?, changed = ?
      WHERE id = ?)");
    update.bind(1, code(failed && again ? TrialState::waiting : state));
    if (finished) {
      update.bind(2, finished->loss);
      if (finished->floor) update.bind(3, *finished->floor);
      update.bind(4, finished->steps);
      update.bind(6, finished->seconds);
    }
    if (diverged) {
      update.bind(5, diverged->step);
      update.bind(6, diverged->seconds);
    }
    if (failed) update.bind(7, fmt::format("{}: {}", sweeps::name(failed->failure), failed->message));
    update.bind(8, now);
    update.bind(9, id);
    update.exec();
  });
}

void Store::prune(const sweeps::TrialKey& key, std::int64_t attempt, const sweeps::Censoring& why) {
  write([&] {
    const auto id = trial_id(key);
    SQLite::Statement end(*database_, R"(
      UPDATE attempt SET state = ?, message = ?, ended = ? WHERE trial_id = ? AND number = ? AND state = ?)");
    SQLite::bind(end, code(TrialState::pruned), why.reason, now_utc(), id, attempt,
                 code(TrialState::running));
    if (end.exec() != 1)
      throw StoreError(Trouble::state,
                       fmt::format("{}: attempt {} of trial {} is not running", file_.string(), attempt, id));
    set_pruned(id, why);
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
  SQLite::Statement update(*database_,
                           "UPDATE trial SET state = ?, steps = ?, message = ?, changed = ? WHERE id = ?");
  SQLite::bind(update, code(TrialState::pruned), why.step, why.reason, now_utc(), id);
  update.exec();
}

int Store::retry_failed() {
  int retried = 0;
  write([&] {
    SQLite::Statement update(*database_, R"(
      UPDATE trial SET state = ?, message = NULL, changed = ?,
        forgiven = (SELECT coalesce(max(number), 0) FROM attempt WHERE trial_id = trial.id)
      WHERE state = ?)");
    SQLite::bind(update, code(TrialState::waiting), now_utc(), code(TrialState::failed));
    retried = update.exec();
  });
  return retried;
}

void Store::note_started(const sweeps::TrialKey& key, std::int64_t attempt, std::int64_t first_step) {
  write([&] {
    SQLite::Statement update(*database_,
                             "UPDATE attempt SET first_step = ?, step = ? WHERE trial_id = ? AND number = ?");
    SQLite::bind(update, first_step, first_step, trial_id(key), attempt);
    update.exec();
  });
}

void Store::note_step(const sweeps::TrialKey& key, std::int64_t attempt, std::int64_t step) {
  guarded(file_, [&] { pending_steps_[{trial_id(key), attempt}] = step; });
}

void Store::append_curve(const sweeps::TrialKey& key, std::int64_t attempt, const std::string& metric,
                         const std::vector<std::int64_t>& steps, const std::vector<double>& values) {
  guarded(file_, [&] {
    pending_chunks_.push_back({trial_id(key), attempt, metric, json_array(steps), json_array(values)});
  });
}

void Store::put_branch(const sweeps::TrialKey& key, const sweeps::BranchLoss& branch) {
  write([&] {
    SQLite::Statement insert(*database_, "INSERT OR REPLACE INTO branch VALUES (?, ?, ?, ?)");
    SQLite::bind(insert, trial_id(key), branch.fraction, branch.steps, branch.loss);
    insert.exec();
  });
}

void Store::put_samples(const sweeps::TrialKey& key, const sweeps::SampleSheet& sheet) {
  write([&] {
    SQLite::Statement insert(*database_, R"(
      INSERT OR REPLACE INTO sample (trial_id, width, height, channels, drawn, real) VALUES (?, ?, ?, ?, ?, ?))");
    SQLite::bind(insert, trial_id(key), sheet.width, sheet.height, sheet.channels);
    insert.bind(5, sheet.drawn.data(), static_cast<int>(sheet.drawn.size()));
    insert.bind(6, sheet.real.empty() ? static_cast<const void*>("") : sheet.real.data(),  // null is no blob
                static_cast<int>(sheet.real.size()));
    insert.exec();
  });
}

void Store::record(const std::string& kind, const std::string& message, const sweeps::TrialKey& key) {
  write([&] {
    SQLite::Statement insert(*database_, R"(
      INSERT INTO event (time, kind, trial_id, message)
      VALUES (?, ?, (SELECT id FROM trial WHERE key = ?), ?))");
    SQLite::bind(insert, now_utc(), kind, key, message);
    insert.exec();
  });
}

}  // namespace db
