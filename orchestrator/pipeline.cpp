#include "orchestrator/pipeline.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <set>

#include <fmt/format.h>
#include <boost/asio/signal_set.hpp>

#include "db/sqlite.h"
#include "db/store.h"
#include "orchestrator/build_info.h"
#include "orchestrator/control.h"
#include "orchestrator/nominal_plan.h"
#include "orchestrator/output.h"
#include "orchestrator/owner_lock.h"
#include "orchestrator/plan_diff.h"
#include "orchestrator/process_tree.h"
#include "orchestrator/progress.h"
#include "orchestrator/report_file.h"
#include "orchestrator/scheduler.h"
#include "orchestrator/spec_codec.h"
#include "orchestrator/study_changes.h"
#include "orchestrator/trial_commands.h"
#include "orchestrator/verdicts.h"
#include "orchestrator/worker_process.h"
#include "sweeps/study_file.h"

namespace orchestrator {
namespace {

namespace fs = std::filesystem;

worker::Inspect inspect_question(const sweeps::Study& study) {
  const auto& shape = study.proxy.shape;
  return {.data = study.data,
          .context = shape.context,
          .vocab = shape.vocab,
          .eval_tokens = study.eval.tokens,
          .image_size = shape.image_size,
          .channels = shape.channels};
}

template <class Answer>
Answer answer_as(const worker::WorkerMessage& message) {
  if (const auto* answer = std::get_if<Answer>(&message)) return *answer;
  throw ExitError(kEnvironment, "the worker answered another question than the one it was asked");
}

constexpr double kNearTheEnd = 0.9;  // of the steps: programs count from 0, or report every so many

/// "3" -> {3, 0}, "10%" -> {0, 0.1}, "" -> {0, 0}. Throws std::invalid_argument.
std::pair<int, double> parse_max_failures(const std::string& text) {
  if (text.empty()) return {0, 0};
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const auto rest = std::string_view(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (error != std::errc{} || number < 1 || (!rest.empty() && rest != "%") || (rest == "%" && number > 99))
    throw std::invalid_argument(fmt::format("--max-failures {}: takes a number of trials from 1, or a share from 1% to "
                                            "99%",
                                            text));
  return rest.empty() ? std::pair{number, 0.0} : std::pair{0, number / 100.0};
}

/// A worker that was stopped while it started or answered, say.
bool is_exit_error(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const ExitError&) {
    return true;
  } catch (...) {
    return false;
  }
}

/// A run from the study file to the exit code; its coroutine is the only one that decides anything.
class Run {
 public:
  Run(const RunOptions& options, Console& console);
  /// Runs the whole thing on the calling thread.
  int go();

 private:
  awaitable<int> work();
  awaitable<void> inspect();
  void open_store();
  void refuse_change(const db::StudyRow& before) const;
  awaitable<sweeps::Analysis> train_what_is_missing();
  void show_stage();
  int conclude(const sweeps::Analysis& analysis);
  SchedulerEvents events();
  void note_early_end(const db::WaitingTrial& trial, const sweeps::Outcome& outcome);
  void watch_signals();
  void drain_for(int signal);
  void listen();
  std::string obey(const ControlRequest& request);
  std::string cancel(const std::vector<std::string>& names);
  std::string resume_command() const;

  RunOptions options_;
  Console& console_;
  sweeps::Study study_;
  fs::path database_;
  fs::path report_;
  asio::io_context context_{1};
  asio::signal_set signals_{context_};
  std::optional<ProcessLauncher> launcher_;
  std::optional<Scheduler> scheduler_;
  std::optional<OwnerLock> lock_;
  std::optional<Guard> guard_;
  std::optional<db::Store> store_;
  std::optional<Progress> progress_;
  std::optional<ControlServer> control_;
  sweeps::Stage stage_ = sweeps::Stage::scan;
  std::set<sweeps::TrialKey> asked_;  // for in this stage and earlier ones
  std::int64_t study_id_ = 0;
  int signal_ = 0;
  bool broken_ = false;
  bool early_end_told_ = false;
  bool cancelled_ = false;  // by `tuneonce cancel --all`
};

Run::Run(const RunOptions& options, Console& console)
    : options_(options), console_(console), study_(sweeps::load_study(options.study_file)) {
  database_ = options.database.empty() ? default_database(study_) : options.database;
  if (!options.gpus.empty()) study_.resources.devices = parse_gpus(options.gpus);
  auto slots = device_slots(study_.resources, options.num_workers, visible_gpus(), usable_cores());
  if (fs::is_symlink(database_))
    database_ = fs::canonical(database_);  // one folder, whatever link leads here
  report_ = options.report.empty() ? fs::path(database_).replace_extension(".html") : options.report;
  if (const auto folder = fs::absolute(database_).parent_path(); !fs::is_directory(folder))
    throw ExitError(kUsage, fmt::format("{}: there is no such folder for the database", folder.string()));
  check_report_file(report_, database_);
  if (study_.proxy.shape.family == models::ModelFamily::command)
    check_program(study_.command, options.study_file);
  db::is_our_database(database_);
  if (const auto owner = OwnerLock::owner(database_))
    throw ExitError(
        kOwned, fmt::format("{}: a run is already working on it ({}); `tuneonce status` shows how far it is",
                            database_.string(), *owner));
  SchedulerOptions scheduling;
  scheduling.retry = study_.retry;
  scheduling.folder = database_.string() + ".d";
  scheduling.disk = study_.disk;
  scheduling.database = database_;
  scheduling.memory = study_.resources.memory;
  scheduling.host_reserve = study_.resources.host_reserve;
  if (const auto trouble = DiskGuard(study_.disk, database_, scheduling.folder).trouble())
    throw ExitError(kEnvironment, *trouble);
  if (options.stall_seconds) scheduling.stall_seconds = *options.stall_seconds;
  if (options.memory_seconds) scheduling.memory_wait_seconds = *options.memory_seconds;
  const auto [failures, share] = parse_max_failures(options.max_failures);
  scheduling.max_failures = failures;
  scheduling.max_failed_share = share;
  if (options.checkpoint_seconds) scheduling.checkpoint_seconds = *options.checkpoint_seconds;
  launcher_.emplace(context_, find_worker_program(study_.proxy.shape.family), run_mark(database_));
  scheduler_.emplace(context_, *launcher_, std::move(slots), scheduling, events());
}

int Run::go() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction now {};
    const bool ignored = ::sigaction(number, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
    if (!ignored) signals_.add(number);  // nohup means it
  }
  watch_signals();
  int code = kDone;
  std::exception_ptr error;
  asio::co_spawn(context_, work(), [&](std::exception_ptr thrown, int result) {
    error = thrown;
    code = result;
    signals_.cancel();
    context_.stop();
  });
  context_.run();
  if (error && (signal_ == 0 || !is_exit_error(error))) std::rethrow_exception(error);
  if (signal_ == 0) return code;
  console_.message(fmt::format("stopped by {}; nothing is lost, go on with: {}",
                               cancelled_           ? "`tuneonce cancel`"
                               : signal_ == SIGINT  ? "Ctrl-C"
                               : signal_ == SIGTERM ? "SIGTERM"
                                                    : "SIGHUP",
                               resume_command()));
  return kSignal + signal_;
}

/// First: workers save what they train and go. Second: everything ends now.
void Run::watch_signals() {
  signals_.async_wait([this](const boost::system::error_code& error, int signal) {
    if (error) return;
    if (signal_ == 0)
      drain_for(signal);
    else
      scheduler_->stop();
    watch_signals();
  });
}

void Run::drain_for(int signal) {
  console_.message("stopping: running trials are being saved; once more stops at once");
  signal_ = signal;
  if (scheduler_->num_busy() > 0)
    scheduler_->drain();
  else
    scheduler_->stop();
}

/// `retry` and `cancel` come in here. A folder that takes no socket does not stop a run.
void Run::listen() {
  const auto message = [this](const std::string& text) { console_.message(text); };
  try {
    control_.emplace(context_, control_socket(database_), [this](const auto& request) { return obey(request); },
                     message, ControlServer::Limits{});
  } catch (const ExitError& error) {
    console_.message(fmt::format("{}; `retry` and `cancel` will not reach this run", error.what()));
  }
}

std::string Run::obey(const ControlRequest& request) {
  std::string done;
  if (request.command == ControlRequest::Command::cancel && request.all) {
    if (signal_ != 0) return "it is stopping already";
    cancelled_ = true;
    drain_for(SIGINT);
    return "running trials are being saved, then the run ends";
  }
  if (request.command == ControlRequest::Command::cancel) {
    done = cancel(request.trials);
  } else {
    std::set<std::int64_t> known;
    for (const auto& trial : store_->waiting()) known.insert(trial.id);
    done = retry(*store_, request);
    auto trials = store_->waiting();
    std::erase_if(trials, [&](const auto& trial) { return known.contains(trial.id); });
    scheduler_->add(std::move(trials));
  }
  store_->flush();
  console_.message(done);
  show_stage();
  return done;
}

std::string Run::cancel(const std::vector<std::string>& names) {
  const auto trials = named_trials(*store_, names);
  for (const auto& trial : trials)
    if (trial.state != sweeps::TrialState::waiting && trial.state != sweeps::TrialState::running)
      throw ExitError(kUsage,
                      fmt::format("{} is {}; there is nothing to stop", quoted(trial), sweeps::name(trial.state)));
  std::string done;
  for (const auto& trial : trials) {
    if (!scheduler_->cancel(trial.key))
      throw ExitError(kUsage, fmt::format("{} does not wait in this run", quoted(trial)));
    store_->record("cancel", "by hand", trial.key);
    done += fmt::format("{}{} {}", done.empty() ? "" : "; ", quoted(trial),
                        trial.state == sweeps::TrialState::running ? "is being stopped" : "will not be started");
  }
  return done;
}

awaitable<int> Run::work() {
  co_await inspect();
  if (signal_ != 0) co_return kDone;
  open_store();
  const auto analysis = co_await train_what_is_missing();
  co_await scheduler_->close();
  co_return signal_ != 0 ? kDone : conclude(analysis);
}

/// Bad data ends the command here, before anything is written.
awaitable<void> Run::inspect() {
  worker::OrchestratorMessage question = inspect_question(study_);
  const auto answer = co_await scheduler_->ask(std::move(question));
  const auto inspected = answer_as<worker::Inspected>(answer);
  study_.data.fingerprint = inspected.fingerprint;
  console_.message(fmt::format("data: {}", inspected.description));
}

void Run::open_store() {
  lock_.emplace(database_);
  if (const int ended = end_marked(database_); ended > 0)
    console_.message(fmt::format("ended {} processes that an earlier run left behind", ended));
  guard_.emplace(database_);
  store_.emplace(db::Store::open(database_, spec_codec()));
  const auto before = store_->study();
  // Of many trials, results are not read without a need.
  const bool changed = before && (before->text != study_.text || before->fingerprint != study_.data.fingerprint);
  if (changed && !options_.accept_change) refuse_change(*before);
  std::vector<std::string> changes;
  if (changed && before->name == study_.name) changes = plan_diff(*before, study_, store_->results());
  study_id_ = store_->put_study(study_, options_.study_file);
  store_->begin_run(study_id_, program_info(launcher_->program()));
  store_->record("run",
                 fmt::format("tuneonce {} started, pid {} on {}", TUNEONCE_VERSION, ::getpid(), host_name()));
  console_.message(fmt::format("database: {}", database_.string()));
  if (const auto shared = shared_file_system(fs::absolute(database_).parent_path()); !shared.empty())
    console_.message(
        fmt::format("warning: it is on {}; keep it on a local disk, where SQLite's log and the lock hold", shared));
  if (changed) {
    console_.message(
        "the study has changed since the last run; finished trials that are still asked for stay:");
    for (const auto& change : changes) {
      console_.message("  " + change);
      store_->record("study", change);
    }
  }
  progress_.emplace(console_, total_flops(nominal_plan(study_)));
  listen();
}

/// Finished trials of the proxy must not silently stop being part of its sweep.
void Run::refuse_change(const db::StudyRow& before) const {
  const auto results = store_->results();
  const auto finished = std::count_if(results.begin(), results.end(), [](const sweeps::TrialResult& trial) {
    const bool of_proxy = trial.spec.role == sweeps::TrialRole::scan || trial.spec.role == sweeps::TrialRole::proxy;
    return of_proxy && (trial.state == sweeps::TrialState::complete || trial.state == sweeps::TrialState::diverged);
  });
  if (finished == 0) return;
  auto old = sweeps::parse_study(before.text, before.file);
  old.data.fingerprint = before.fingerprint;
  const auto changes = changes_of_meaning(old, study_);
  if (changes.empty()) return;
  std::string list;
  for (const auto& change : changes) list += "\n  " + change;
  throw ExitError(kUsage,
                  fmt::format("{}: {} finished trials of the proxy would no longer belong to the study:{}\nundo this, name "
                              "another database with --db, or train them anew with --accept-change",
                              database_.string(), finished, list));
}

/// The pipeline: where do we stand, what is missing, train it; until nothing is.
awaitable<sweeps::Analysis> Run::train_what_is_missing() {
  while (true) {
    auto analysis = sweeps::analyse(study_, store_->results());
    store_->prune_waiting(analysis.censored);
    store_->add_plan(study_id_, analysis.missing);
    store_->put_decisions(study_id_, study_, analysis);
    if (analysis.missing.empty() || signal_ != 0 || broken_) co_return analysis;
    stage_ = analysis.stage;
    asked_ = analysis.asked;
    show_stage();
    sweeps::SweepWatch watch(sweeps::sweeps_under_way(study_, analysis));
    const auto end = co_await scheduler_->run(*store_, std::move(watch));
    broken_ = end == Scheduler::End::broken;
    if (end == Scheduler::End::disk_full)
      throw ExitError(kEnvironment, fmt::format("{}; no further trial is started. When there is room, go on with: {}",
                                                scheduler_->disk_trouble(), resume_command()));
  }
}

void Run::show_stage() {
  auto results = store_->results();
  std::erase_if(results, [this](const auto& result) { return !asked_.contains(result.key); });
  progress_->begin(sweeps::name(stage_), results);
}

int Run::conclude(const sweeps::Analysis& analysis) {
  console_.clear_progress();
  fmt::print("{}\n\n", summary_text(study_, analysis));
  write_report(report_, study_, analysis, store_->curves(), store_->samples());
  fmt::print("report: {}\n", report_.string());
  if (analysis.num_failed > 0)
    console_.error(
        fmt::format("{} failed and {} not tried again by itself: mend the cause, then tuneonce retry "
                    "--failed --db {}, then {}",
                    analysis.num_failed == 1 ? "a trial" : fmt::format("{} trials", analysis.num_failed),
                    analysis.num_failed == 1 ? "is" : "are", database_.string(), resume_command()));
  if (broken_) return kTrialsFailed;
  store_->record("run", fmt::format("ended with exit code {}", analysis.exit_code));
  return analysis.exit_code;
}

/// A program of the user's that stops before its last step may have run out of data, or counts steps of
/// another kind.
void Run::note_early_end(const db::WaitingTrial& trial, const sweeps::Outcome& outcome) {
  const auto* finished = std::get_if<sweeps::Finished>(&outcome);
  if (!finished || early_end_told_) return;
  if (static_cast<double>(finished->steps) > kNearTheEnd * static_cast<double>(trial.spec.run.steps)) return;
  early_end_told_ = true;
  console_.message(fmt::format(
      "trial {} \"{}\" ended after step {} of {}; its loss there is taken for that of the end, here "
      "and in other trials of which this is true",
      trial.id, trial.spec.name, finished->steps, trial.spec.run.steps));
}

SchedulerEvents Run::events() {
  const auto log_of = [this](const db::WaitingTrial& trial) {
    return fmt::format("{}.d/logs/trial-{:04}.log", database_.string(), trial.id);
  };
  return {.started = [this](const db::WaitingTrial& trial) { progress_->started(trial); },
          .stepped = [this](const db::WaitingTrial& trial,
                            std::int64_t step) { progress_->stepped(trial, step); },
          .ended =
              [this, log_of](const db::WaitingTrial& trial, const sweeps::Outcome& outcome, bool again) {
                progress_->ended(trial, outcome, again);
                note_early_end(trial, outcome);
                const auto* failed = std::get_if<sweeps::Failed>(&outcome);
                if (!failed || failed->failure == sweeps::FailureClass::cancelled) return;
                console_.message(fmt::format("trial {} \"{}\" {}: {}: {}; log: {}", trial.id, trial.spec.name,
                                             again ? "was lost and will be tried again" : "failed",
                                             sweeps::name(failed->failure), failed->message, log_of(trial)));
              },
          .message = [this](const std::string& text) { console_.message(text); },
          .tick = [this] { progress_->show(); }};
}

std::string Run::resume_command() const {
  std::string command = "tuneonce run " + options_.study_file.string();
  if (!options_.database.empty()) command += " --db " + options_.database.string();
  return command;
}

// --- plan ---

struct StepTime {
  std::string what;
  models::RunShape run;
  worker::Measured measured;
};

std::string shape_text(const models::RunShape& run) {
  const auto& s = run.shape;
  return fmt::format("{} width {} depth {} context {} batch {} steps {}", models::moe_code(s), s.width,
                     s.depth, s.context, run.batch, run.steps);
}

void print_plan(const sweeps::Study& study, const NominalPlan& plan, const std::vector<StepTime>& times,
                int num_workers) {
  fmt::print("{}\n", study.text);
  double seconds = 0;
  db::Table table;
  table.columns = {"part", "trials", "model", "parameters", "active", "tokens/trial", "FLOPs/trial"};
  if (!times.empty()) table.columns.insert(table.columns.end(), {"ms/step", "time/trial"});
  for (const auto& part : plan.parts) {
    const auto& spec = part.trials.front();
    const auto cost = sweeps::cost(spec);
    auto& row = table.rows.emplace_back(std::vector<db::Value>{
        part.what, static_cast<std::int64_t>(part.trials.size()), shape_text(spec.run), cost.parameters,
        cost.active_parameters, fmt::format("{:.3g}", cost.tokens), fmt::format("{:.3g}", cost.flops)});
    for (const auto& time : times) {
      if (!(time.run == spec.run)) continue;
      const double evals =
          1 + 1 / std::max(study.eval.every, 1e-9) + static_cast<double>(sweeps::branch_points(spec).size());
      const double trial = time.measured.seconds_per_step * static_cast<double>(sweeps::trained_steps(spec)) +
                           time.measured.seconds_per_eval * evals;
      row.insert(row.end(),
                 {fmt::format("{:.3g}", 1e3 * time.measured.seconds_per_step), duration_text(trial)});
      seconds += trial * static_cast<double>(part.trials.size());
      break;
    }
  }
  const auto& search = study.search;
  fmt::print("trials ({})\n{}",
             search.method == sweeps::SearchMethod::adaptive
                 ? fmt::format("the sweep goes on until its stop rule holds, at most to {} points",
                               search.max_trials)
                 : std::string("more where an optimum lies on an edge"),
             format_table(table, Format::table));
  fmt::print("all: {:.3g} FLOPs", total_flops(plan));
  if (!times.empty())
    fmt::print(", about {} on {} worker{}", duration_text(seconds / num_workers), num_workers,
               num_workers == 1 ? "" : "s");
  fmt::print("\n\ntransfer at the middle of the space, for illustration\n{}\n", transfer_text(plan.targets));
  for (const auto& part : plan.parts) {
    fmt::print("\n{}\n", part.what);
    for (const auto& trial : part.trials) fmt::print("  {}\n", trial.name);
  }
}

/// The difference to what the database holds, on stdout.
void print_diff(const sweeps::Study& study, const fs::path& database) {
  const db::Reader reader(database, spec_codec());
  const auto before = reader.study();
  if (!before) throw ExitError(kUsage, fmt::format("{}: holds no study yet", database.string()));
  if (before->name != study.name)
    throw ExitError(kUsage, fmt::format("{}: holds the study \"{}\", not \"{}\"; choose another file with --db",
                                        database.string(), before->name, study.name));
  const auto lines = plan_diff(*before, study, reader.results());
  if (lines.empty()) fmt::print("nothing has changed since the last run of {}\n", database.string());
  for (const auto& line : lines) fmt::print("{}\n", line);
}

awaitable<void> make_plan(sweeps::Study& study, Scheduler& scheduler, const PlanOptions& options, int num_workers) {
  worker::OrchestratorMessage data_question = inspect_question(study);
  const auto answer = co_await scheduler.ask(std::move(data_question));
  study.data.fingerprint = answer_as<worker::Inspected>(answer).fingerprint;
  if (options.diff) {
    print_diff(study, options.database);
    co_await scheduler.close();
    co_return;
  }
  const auto plan = nominal_plan(study);
  std::vector<StepTime> times;
  for (const auto& part : plan.parts) {
    const auto& spec = part.trials.front();
    const bool known =
        std::any_of(times.begin(), times.end(), [&](const auto& time) { return time.run == spec.run; });
    // A command has no step that could be timed on its own.
    if (!options.measure || known || spec.run.shape.family == models::ModelFamily::command) continue;
    worker::OrchestratorMessage question = worker::Measure{.spec = spec};
    const auto measured = co_await scheduler.ask(std::move(question));
    times.push_back({part.what, spec.run, answer_as<worker::Measured>(measured)});
  }
  print_plan(study, plan, times, num_workers);
  co_await scheduler.close();
}

}  // namespace

fs::path default_database(const sweeps::Study& study) { return study.name + ".db"; }

int run_study(const RunOptions& options, Console& console) { return Run(options, console).go(); }

std::string max_failures_problem(const std::string& text) {
  try {
    parse_max_failures(text);
    return "";
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
}

int plan_study(const PlanOptions& given, Console& console) {
  auto options = given;
  auto study = sweeps::load_study(options.study_file);
  if (options.database.empty()) options.database = default_database(study);
  if (options.diff && !fs::exists(options.database))
    throw ExitError(kUsage, fmt::format("{}: there is no such database, so nothing to compare with; `tuneonce plan {}` "
                                        "shows the whole plan",
                                        options.database.string(), options.study_file.string()));
  auto slots = device_slots(study.resources, std::nullopt, visible_gpus(), usable_cores());
  const int num_workers = static_cast<int>(slots.size());
  nominal_plan(study);  // what the rule refuses needs no worker
  if (study.proxy.shape.family == models::ModelFamily::command)
    check_program(study.command, options.study_file);
  asio::io_context context{1};
  ProcessLauncher launcher(context, find_worker_program(study.proxy.shape.family));
  Scheduler scheduler(context, launcher, std::move(slots), {},
                      {.message = [&](const std::string& text) { console.message(text); }});
  std::exception_ptr error;
  asio::co_spawn(context, make_plan(study, scheduler, options, num_workers), [&](std::exception_ptr thrown) {
    error = thrown;
    context.stop();
  });
  context.run();
  if (error) std::rethrow_exception(error);
  return kDone;
}

}  // namespace orchestrator
