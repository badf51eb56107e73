#include "orchestrator/commands.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "db/query.h"
#include "db/sqlite.h"
#include "orchestrator/disk_guard.h"
#include "orchestrator/exit_code.h"
#include "orchestrator/owner_lock.h"
#include "orchestrator/pipeline.h"
#include "orchestrator/progress.h"
#include "orchestrator/report_file.h"
#include "orchestrator/spec_codec.h"
#include "orchestrator/standing.h"
#include "orchestrator/verdicts.h"
#include "sweeps/study_file.h"

namespace orchestrator {
namespace {

namespace fs = std::filesystem;

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }
void print(const db::Table& table, Format format) { print(format_table(table, format)); }
/// For people the text, for programs the rows.
void print(const std::string& text, const db::Table& table, Format format) {
  if (format == Format::table)
    print(text + "\n");
  else
    print(table, format);
}

/// What a database holds, analysed anew.
struct Loaded {
  sweeps::Study study;
  sweeps::Analysis analysis;
  std::vector<db::CurveSeries> curves;
  Samples samples;
};
Loaded load(const fs::path& database, bool for_report = false) {
  const db::Reader reader(database, spec_codec());
  const auto row = reader.study();
  if (!row) throw ExitError(kUsage, fmt::format("{}: holds no study yet", database.string()));
  Loaded loaded;
  loaded.study = sweeps::parse_study(row->text, row->file);
  loaded.study.data.fingerprint = row->fingerprint;
  loaded.analysis = sweeps::analyse(loaded.study, reader.results());
  if (for_report) loaded.curves = reader.curves(), loaded.samples = reader.samples();
  return loaded;
}

std::string cell(const db::Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return fmt::format("{}", *integer);
  if (const auto* real = std::get_if<double>(&value)) return fmt::format("{:.4g}", *real);
  return "";
}

db::Table num_by_state(const Standing& standing) {
  return db::run_query(standing.database, R"(
    SELECT role, target, count(*) AS trials, sum(state = 'waiting' OR state = 'running' AND NOT ?1) AS waiting,
      sum(state = 'running' AND ?1) AS running,
      sum(state = 'complete') AS complete, sum(state = 'diverged') AS diverged, sum(state = 'pruned') AS pruned,
      sum(state = 'failed') AS failed
    FROM results WHERE state != 'dropped' GROUP BY role, target ORDER BY min(trial))",
                       {std::int64_t{standing.owner.has_value()}});
}

db::Table decided(const fs::path& database) {
  // Decisions are stored at the end of a stage; a target that is trained already shows its loss before that.
  return db::run_query(database, R"(
    SELECT target.name AS target, target.moe,
      coalesce(target.loss, (SELECT loss FROM results WHERE results.target = target.name AND role = 'target'
        AND state = 'complete' ORDER BY trial DESC LIMIT 1)) AS loss,
      coalesce(baseline_loss, (SELECT loss FROM results WHERE results.target = target.name AND role = 'check'
        AND state = 'complete' ORDER BY trial DESC LIMIT 1)) AS baseline_loss,
      CASE verdict WHEN 0 THEN 'PASS' WHEN 1 THEN 'DRIFT' WHEN 2 THEN 'NOT BRACKETED' WHEN 3 THEN 'INCONCLUSIVE'
        WHEN 4 THEN 'UNUSABLE' END AS verdict, reason
    FROM target LEFT JOIN drift_check ON drift_check.target = target.name)");
}

/// What a study takes, and what is left, in bytes.
struct Disk {
  std::uintmax_t database = 0, folder = 0, free = 0;
};
Disk disk_use(const fs::path& database) {
  std::error_code error;
  const auto space = fs::space(fs::absolute(database).parent_path(), error);
  return {database_bytes(database), folder_bytes(database.string() + ".d"), error ? 0 : space.available};
}

std::string status_text(const Standing& standing) {
  const auto& database = standing.database;
  std::string text =
      fmt::format("study {}, database {}, {}\n\n", standing.study, database.string(),
                  standing.owner ? fmt::format("a run is on ({})", *standing.owner) : std::string("no run is on"));
  text += format_table(num_by_state(standing), Format::table);
  if (standing.interrupted > 0)
    text +=
        fmt::format("\nof those that wait, {} ran when the last run ended; the next one goes on with them\n",
                    standing.interrupted);
  for (const auto& trial : standing.trials)
    text += fmt::format("{}trial {} \"{}\": step {} of {} on {}, attempt {}{}\n", text.ends_with("\n\n") ? "" : "\n",
                        trial.trial, trial.name, trial.step, trial.steps, trial.device, trial.attempt,
                        trial.eta_seconds ? ", done in about " + duration_text(*trial.eta_seconds) : "");
  if (standing.eta_seconds) text += fmt::format("\nall done in about {}\n", duration_text(*standing.eta_seconds));
  const auto optimum =
      db::run_query(database, "SELECT lr, lr_low, lr_high, wd, bracketed FROM optimum WHERE model = 'proxy'");
  for (const auto& row : optimum.rows)
    text += fmt::format("\nproxy: LR {} [{}, {}], WD {}{}\n", cell(row[0]), cell(row[1]), cell(row[2]),
                        cell(row[3]), cell(row[4]) == "1" ? "" : ", not bracketed");
  for (const auto& row : decided(database).rows)
    text += fmt::format("{} ({}): loss {}, SP {}{}\n", cell(row[0]), cell(row[1]),
                        row[2].index() ? cell(row[2]) : "-", row[3].index() ? cell(row[3]) : "-",
                        row[4].index() ? fmt::format("; {}: {}", cell(row[4]), cell(row[5])) : "");
  if (standing.failed > 0) text += fmt::format("\nfailed: {}; `tuneonce retry --failed` lets them wait again\n", standing.failed);
  for (const auto& failure : standing.failures)
    text += fmt::format("trial {} \"{}\": {}{}\n", failure.trial, failure.name, failure.message,
                        failure.log.empty() ? "" : "; log: " + failure.log);
  const auto disk = disk_use(database);
  return text + fmt::format("\ndisk: database {}, logs and checkpoints {}, free {}\n", short_size(disk.database),
                            short_size(disk.folder), short_size(disk.free));
}

nlohmann::ordered_json rows_as_json(const db::Table& table) {
  return nlohmann::ordered_json::parse(format_table(table, Format::json));
}

nlohmann::ordered_json status_json(const Standing& standing) {
  using Json = nlohmann::ordered_json;
  const auto or_null = [](const auto& value) { return value ? Json(*value) : Json(nullptr); };
  Json status;
  status["study"] = standing.study;
  status["database"] = standing.database.string();
  status["owner"] = or_null(standing.owner);
  status["stage"] = standing.stage;
  status["eta_seconds"] = or_null(standing.eta_seconds);
  status["states"] = {{"waiting", standing.waiting},   {"running", standing.running}, {"complete", standing.complete},
                      {"diverged", standing.diverged}, {"pruned", standing.pruned},   {"failed", standing.failed}};
  status["trials"] = rows_as_json(num_by_state(standing));
  status["running"] = Json::array();
  for (const auto& trial : standing.trials)
    status["running"].push_back({{"trial", trial.trial},
                                 {"name", trial.name},
                                 {"step", trial.step},
                                 {"steps", trial.steps},
                                 {"device", trial.device},
                                 {"attempts", trial.attempt},
                                 {"eta_seconds", or_null(trial.eta_seconds)}});
  status["targets"] = rows_as_json(decided(standing.database));
  status["failures"] = Json::array();  // the last ones; "states" has their number
  for (const auto& failure : standing.failures)
    status["failures"].push_back({{"trial", failure.trial},
                                  {"name", failure.name},
                                  {"message", failure.message},
                                  {"log", failure.log},
                                  {"time", failure.time}});
  const auto disk = disk_use(standing.database);
  status["disk"] = {{"database_bytes", disk.database}, {"folder_bytes", disk.folder}, {"free_bytes", disk.free}};
  return status;
}

}  // namespace

fs::path choose_database(const std::string& named) {
  if (!named.empty()) {
    const bool study = named.ends_with(".toml");
    const fs::path database = study ? default_database(sweeps::load_study(named)) : fs::path(named);
    if (!fs::exists(database))
      throw ExitError(kUsage, fmt::format("{}: there is no such database; {}", database.string(),
                                          study ? fmt::format("`tuneonce run {}` makes it", named)
                                                : std::string("name one that `tuneonce run` made")));
    return database;
  }
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(".")) {
    if (entry.path().extension() != ".db") continue;
    try {
      if (db::is_our_database(entry.path())) found.push_back(entry.path().filename());
    } catch (const db::StoreError&) {
      // Somebody else's file; not what is meant.
    }
  }
  if (found.size() == 1) return found.front();
  if (found.empty())
    throw ExitError(kUsage, "no tuneonce database in this folder; name one, or the study file");
  std::string names;
  for (const auto& file : found) names += fmt::format(" {}", file.string());
  throw ExitError(kUsage, "several tuneonce databases in this folder; name one:" + names);
}

int show_status(const fs::path& database, Format format) {
  const auto standing = read_standing(database);
  switch (format) {
    case Format::table: print(status_text(standing)); break;
    case Format::json: print(status_json(standing).dump(2) + "\n"); break;
    case Format::jsonl: print(status_json(standing).dump() + "\n"); break;
    case Format::csv: print(flatten(status_json(standing)), format); break;
  }
  return kDone;
}

int show_results(const fs::path& database, Format format) {
  auto table = db::run_query(database, "SELECT * FROM results WHERE state != 'dropped' ORDER BY trial");
  if (!OwnerLock::owner(database)) {  // what its last run left behind waits for the next one
    const auto state = std::ranges::find(table.columns, "state") - table.columns.begin();
    for (auto& row : table.rows)
      if (auto& value = row[static_cast<std::size_t>(state)]; value == db::Value("running"))
        value = "waiting";
  }
  print(table, format);
  return kDone;
}

int show_best(const fs::path& database, Format format) {
  print(best_trials(database), format);
  return kDone;
}

int show_query(const fs::path& database, const std::string& sql, double seconds, Format format) {
  print(db::run_query(database, sql, {}, {.seconds = seconds}), format);
  return kDone;
}

int show_fit(const fs::path& database, Format format) {
  const auto loaded = load(database);
  print(fit_text(loaded.study, loaded.analysis), fit_table(loaded.study, loaded.analysis), format);
  const auto* optimum = loaded.analysis.fit ? std::get_if<sweeps::Optimum>(&*loaded.analysis.fit) : nullptr;
  return optimum && optimum->bracketed() ? kDone : kNoVerdict;
}

int show_transfer(const fs::path& database, Format format) {
  const auto loaded = load(database);
  std::vector<sweeps::TargetConfig> targets;
  for (const auto& target : loaded.analysis.targets) targets.push_back(target.config);
  if (!loaded.analysis.optimum)
    throw ExitError(kNoVerdict,
                    fmt::format("{}: nothing to transfer: the proxy has no optimum yet", database.string()));
  print(transfer_text(targets), transfer_table(targets), format);
  return kDone;
}

int show_calculated(const CalculatorOptions& options, Format format) {
  const auto targets = calculate(options);
  print(transfer_text(targets), transfer_table(targets), format);
  return kDone;
}

int show_drift(const fs::path& database, bool trend, Format format) {
  const auto loaded = load(database);
  const auto& targets = loaded.analysis.targets;
  if (std::ranges::none_of(targets, [](const auto& target) { return target.spec.drift; }))
    throw ExitError(kNoVerdict, fmt::format("{}: no target has a drift check yet", database.string()));
  int code = kDone;
  for (const auto& target : targets) {
    if (!target.spec.drift || sweeps::is_comparator(loaded.study, target.spec)) continue;
    const int one = target.drift ? sweeps::exit_code(target.drift->verdict) : kNoVerdict;
    if (code != kGateFailed && one != kDone) code = one;
  }
  if (trend)
    print(trend_table(loaded.study, loaded.analysis), format);
  else
    print(drift_text(loaded.study, loaded.analysis, code), drift_table(loaded.analysis), format);
  return code;
}

int make_report(const fs::path& database, fs::path file, const fs::path& charts) {
  const auto loaded = load(database, true);
  if (file.empty()) file = fs::path(database).replace_extension(".html");
  check_report_file(file, database);
  write_report(file, loaded.study, loaded.analysis, loaded.curves, loaded.samples);
  print(file.string() + "\n");
  if (!charts.empty())
    for (const auto& chart : write_charts(charts, loaded.analysis)) print(chart.string() + "\n");
  return kDone;
}

}  // namespace orchestrator
