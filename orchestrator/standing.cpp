#include "orchestrator/standing.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "db/reader.h"
#include "orchestrator/exit_code.h"
#include "orchestrator/nominal_plan.h"
#include "orchestrator/owner_lock.h"
#include "orchestrator/progress.h"
#include "orchestrator/spec_codec.h"
#include "sweeps/plan.h"
#include "sweeps/study_file.h"

namespace orchestrator {
namespace {

namespace fs = std::filesystem;
using Row = std::vector<db::Value>;

std::int64_t integer(const db::Value& value) {
  const auto* number = std::get_if<std::int64_t>(&value);
  return number ? *number : 0;
}
std::optional<double> maybe_real(const db::Value& value) {
  if (const auto* real = std::get_if<double>(&value)) return *real;
  if (const auto* number = std::get_if<std::int64_t>(&value)) return static_cast<double>(*number);
  return std::nullopt;
}
double real(const db::Value& value) { return maybe_real(value).value_or(0); }
std::string text(const db::Value& value) {
  const auto* found = std::get_if<std::string>(&value);
  return found ? *found : "";
}

/// Trials of one role and target: all of one shape, so that one spec tells the cost of each.
struct Group {
  double flops = 0;          // of a trial
  double flops_of_step = 0;
  std::int64_t open = 0, ended = 0;
};
using Groups = std::map<std::pair<std::int64_t, std::string>, Group>;

Groups read_groups(const fs::path& database) {
  Groups groups;
  const auto codec = spec_codec();
  // min() picks the row that the spec is of.
  for (const auto& row : db::run_query(database, R"(
      SELECT trial.role, coalesce(trial.target, ''), spec, sum(trial.state IN (0, 1)), sum(trial.state NOT IN (0, 1)), min(id)
      FROM trial JOIN results ON results.trial = id WHERE results.state != 'dropped' GROUP BY trial.role, trial.target)")
                             .rows) {
    const auto spec = codec.from_text(text(row[2]));
    auto& group = groups[{integer(row[0]), text(row[1])}];
    group.flops = sweeps::cost(spec).flops;
    group.flops_of_step = group.flops / static_cast<double>(spec.run.steps);
    group.open = integer(row[3]);
    group.ended = integer(row[4]);
  }
  return groups;
}

/// Seconds until all is done at the pace since the last run began; nothing before anything is trained.
std::optional<double> read_eta(const fs::path& database, const db::StudyRow& study) {
  auto groups = read_groups(database);
  double trained = 0, under_way = 0, ended = 0, remaining = 0, seconds = 0;
  const auto work = db::run_query(database, R"(
    WITH begun AS (SELECT time FROM event WHERE kind = 'run' AND message LIKE '% started, pid %' ORDER BY id DESC LIMIT 1)
    SELECT role, coalesce(target, ''), sum(coalesce(step, 0) - coalesce(first_step, 0)),
      sum(iif(attempt.state = 1, coalesce(step, 0), 0)), (julianday('now') - julianday((SELECT time FROM begun))) * 86400
    FROM attempt JOIN trial ON trial.id = trial_id WHERE started >= (SELECT time FROM begun) GROUP BY role, target)");
  for (const auto& row : work.rows) {
    const auto& group = groups[{integer(row[0]), text(row[1])}];
    trained += group.flops_of_step * real(row[2]);
    under_way += group.flops_of_step * real(row[3]);
    seconds = real(row[4]);
  }
  if (trained <= 0 || seconds < 1) return std::nullopt;
  for (const auto& [name, group] : groups) {
    ended += group.flops * static_cast<double>(group.ended);
    remaining += group.flops * static_cast<double>(group.open);
  }
  double planned = 0;
  try {
    planned = total_flops(nominal_plan(sweeps::parse_study(study.text, study.file)));
  } catch (const std::exception&) {
    // The owner is another version of this program; then the trials that are there are all that is known.
  }
  return std::max(0.0, std::max(planned - ended, remaining) - under_way) * seconds / trained;
}

void read_running(Standing& standing) {
  for (const auto& row : db::run_query(standing.database, R"(
      SELECT trial.id, trial.name, device, number, coalesce(step, 0), json_extract(spec, '$.run.steps'),
        coalesce(first_step, 0), (julianday('now') - julianday(started)) * 86400
      FROM trial JOIN attempt ON trial_id = trial.id WHERE trial.state = 1 AND attempt.state = 1 ORDER BY trial.id)")
                             .rows) {
    auto& trial = standing.trials.emplace_back(Standing::Running{.trial = integer(row[0]),
                                                                 .name = text(row[1]),
                                                                 .device = text(row[2]),
                                                                 .attempt = integer(row[3]),
                                                                 .step = integer(row[4]),
                                                                 .steps = integer(row[5]),
                                                                 .eta_seconds = {}});
    const auto done = trial.step - integer(row[6]);
    if (done > 0)
      trial.eta_seconds = real(row[7]) * static_cast<double>(trial.steps - trial.step) / static_cast<double>(done);
  }
}

void read_counts(Standing& standing) {
  const std::map<std::string, std::int64_t*> counts = {
      {"waiting", &standing.waiting},   {"running", &standing.running}, {"complete", &standing.complete},
      {"diverged", &standing.diverged}, {"pruned", &standing.pruned},   {"failed", &standing.failed}};
  for (const auto& row : db::run_query(standing.database, R"(
      WITH states AS MATERIALIZED (SELECT state FROM results) SELECT state, count(*) FROM states GROUP BY state)").rows)
    if (const auto found = counts.find(text(row[0])); found != counts.end()) *found->second = integer(row[1]);
  const auto next = db::run_query(standing.database,
                                  "SELECT role FROM results WHERE state IN ('running', 'waiting') ORDER BY "
                                  "state = 'waiting', trial LIMIT 1");
  standing.stage = next.rows.empty() ? "done" : text(next.rows[0][0]);
}

sweeps::TrialState state_named(const std::string& name) {
  using sweeps::TrialState;
  for (const auto state : {TrialState::running, TrialState::complete, TrialState::diverged, TrialState::failed,
                           TrialState::pruned})
    if (sweeps::name(state) == name) return state;
  return TrialState::waiting;
}

}  // namespace

db::Table best_trials(const fs::path& database) {
  return db::run_query(database, R"(
    WITH done AS MATERIALIZED (  -- in this form SQLite leaves out the view's join with attempts
      SELECT target, trial, name, lr, wd, init_std, loss, excess FROM results
      WHERE state = 'complete' AND role != 'check')
    SELECT coalesce(target, 'proxy') AS model, trial, name, lr, wd, init_std, min(loss) AS loss, excess
    FROM done GROUP BY target ORDER BY target IS NOT NULL, trial)");
}

Standing read_standing(const fs::path& database) {
  const auto study = db::Reader(database, spec_codec()).study();
  if (!study) throw ExitError(kUsage, fmt::format("{}: holds no study yet", database.string()));
  Standing standing;
  standing.study = study->name;
  standing.database = database;
  standing.owner = OwnerLock::owner(database);
  read_counts(standing);
  if (standing.owner) {
    read_running(standing);
  } else {  // the next run goes on with what the last one left behind
    standing.interrupted = std::exchange(standing.running, 0);
    standing.waiting += standing.interrupted;
  }
  for (const auto& row : best_trials(database).rows)
    standing.best.push_back(
        {text(row[0]), integer(row[1]), real(row[3]), real(row[4]), real(row[5]), real(row[6])});
  for (const auto& row : db::run_query(database, R"(
      WITH rows AS MATERIALIZED (
        SELECT trial, role, lr, wd, init_std, state, loss FROM results
        WHERE role IN ('proxy', 'scan') AND state != 'dropped')
      SELECT lr, wd, state, loss FROM rows
      WHERE init_std = coalesce((SELECT init_std FROM rows WHERE role = 'proxy' LIMIT 1),
        (SELECT init_std FROM rows WHERE loss IS NOT NULL ORDER BY loss LIMIT 1), init_std) ORDER BY trial)")
                             .rows)
    standing.sweep.push_back({real(row[0]), real(row[1]),
                              standing.owner || text(row[2]) != "running" ? state_named(text(row[2]))
                                                                          : sweeps::TrialState::waiting,
                              maybe_real(row[3])});
  for (const auto& row : db::run_query(database, R"(
      SELECT id, trial.name, message, (SELECT log FROM attempt WHERE trial_id = id ORDER BY number DESC LIMIT 1), changed
      FROM trial JOIN results ON results.trial = id WHERE results.state = 'failed' ORDER BY changed DESC, id DESC LIMIT 3)")
                             .rows)
    standing.failures.push_back({integer(row[0]), text(row[1]), text(row[2]),
                                 text(row[3]).empty() ? "" : (database.parent_path() / text(row[3])).string(),
                                 text(row[4])});
  if (standing.owner && standing.waiting + standing.running > 0) standing.eta_seconds = read_eta(database, *study);
  return standing;
}

std::string summary_line(const Standing& standing) {
  std::string line = fmt::format("{} {}/{} trials", standing.stage, standing.num_ended(), standing.num_trials());
  if (!standing.best.empty()) {
    const auto& best = *std::min_element(standing.best.begin(), standing.best.end(),
                                         [](const auto& a, const auto& b) { return a.loss < b.loss; });
    line += fmt::format(", best {:.4f}", best.loss);
  }
  if (standing.eta_seconds) line += fmt::format(", {} to go", duration_text(*standing.eta_seconds));
  line += fmt::format(", {} running", standing.running);
  for (const auto& [count, word] : {std::pair{standing.diverged, "diverged"}, {standing.pruned, "stopped early"},
                                    {standing.failed, "failed"}})
    if (count > 0) line += fmt::format(", {} {}", count, word);
  return line;
}

}  // namespace orchestrator
