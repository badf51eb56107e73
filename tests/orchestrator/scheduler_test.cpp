#include "orchestrator/scheduler.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <boost/asio/post.hpp>

#include "db/query.h"
#include "db/sqlite.h"
#include "orchestrator/exit_code.h"
#include "orchestrator/spec_codec.h"
#include "orchestrator/worker_process.h"
#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

using namespace orchestrator;
using sweeps::TrialState;

namespace {

/// A scheduler over fake workers and a real store of `num_trials` waiting trials.
struct Bench {
  TemporaryFolder folder;
  std::filesystem::path database = folder / "a.db";
  int num_workers = 2;
  int num_trials = 6;
  std::function<void(std::vector<sweeps::TrialSpec>&)> change = [](auto&) {};
  SchedulerOptions options{.retry = {.crash = 2, .stop_after = 5}, .folder = folder / "a.db.d"};
  std::vector<std::string> messages;
  std::function<void(Scheduler&, const db::WaitingTrial&)> on_start = [](auto&, const auto&) {};
  std::function<void(const db::WaitingTrial&, const sweeps::Outcome&, bool)> on_end =
      [](const auto&, const auto&, bool) {};
  bool stop_early = false;

  Scheduler::End run(const std::string& behaviour = "") {
    ::setenv("TUNEONCE_FAKE", (behaviour + " dir=" + folder.path().string()).c_str(), 1);
    std::vector<sweeps::TrialSpec> trials;
    for (int i = 0; i < num_trials; ++i) {
      trials.push_back(test::trial(-9 + 0.25 * i));
      trials.back().name = "number-" + std::to_string(i);
      trials.back().run.steps = 20;
    }
    change(trials);
    auto store = test::store_with(database, trials);
    asio::io_context context{1};
    ProcessLauncher launcher(context, TUNEONCE_FAKE_WORKER);
    std::optional<Scheduler> scheduler;
    SchedulerEvents events;
    events.started = [&](const db::WaitingTrial& trial) { on_start(*scheduler, trial); };
    events.ended = on_end;
    events.message = [&](const std::string& text) { messages.push_back(text); };
    scheduler.emplace(context, launcher,
                      std::vector<DeviceSlot>(static_cast<std::size_t>(num_workers), {"cpu"}), options,
                      events);
    std::exception_ptr error;
    Scheduler::End end{};
    asio::co_spawn(
        context,
        [&]() -> awaitable<void> {
          sweeps::SweepWatch watch;
          if (stop_early) watch = sweeps::SweepWatch({store.results()});
          end = co_await scheduler->run(store, std::move(watch));
          co_await scheduler->close();
        },
        [&](std::exception_ptr thrown) {
          error = thrown;
          context.stop();
        });
    context.run();
    ::unsetenv("TUNEONCE_FAKE");
    if (error) std::rethrow_exception(error);
    return end;
  }

  std::int64_t count(const std::string& what) const {
    return std::get<std::int64_t>(db::run_query(database, "SELECT count(*) FROM " + what).rows.at(0).at(0));
  }
  int num_started() const {
    const auto lines = test::read_text(folder / "started");
    return static_cast<int>(std::count(lines.begin(), lines.end(), '\n'));
  }
};

}  // namespace

TEST_CASE("every waiting trial is trained exactly once, at any number of workers",
          "[orchestrator][scheduler]") {
  const int num_workers = GENERATE(1, 2, 8);
  Bench bench;
  bench.num_workers = num_workers;
  CHECK(bench.run() == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2") == 6);
  CHECK(bench.count("attempt") == 6);
  CHECK(bench.num_started() == 6);
  CHECK(bench.count("curves WHERE trial = 1 AND metric = 'train_loss'") == 20);
}

TEST_CASE("what a target draws is stored with it", "[orchestrator][scheduler]") {
  Bench bench;
  bench.change = [](auto& trials) { trials[1].role = sweeps::TrialRole::target; };
  bench.run("samples=1");
  const auto samples = db::Reader(bench.database, spec_codec()).samples();
  REQUIRE(samples.size() == 1);
  CHECK(samples.begin()->second == sweeps::SampleSheet{1, 1, 1, {10, 200}, {100}});
  CHECK(bench.count("sample WHERE trial_id = 2") == 1);
}

TEST_CASE("the longest trials start first, equal ones in the order of the plan",
          "[orchestrator][scheduler]") {
  Bench bench;
  bench.num_workers = 1;
  bench.num_trials = 3;
  bench.change = [](auto& trials) { trials[1].run.steps = 40; };
  std::vector<std::string> started;
  bench.on_start = [&](auto&, const db::WaitingTrial& trial) { started.push_back(trial.spec.name); };
  bench.run();
  CHECK(started == std::vector<std::string>{"number-1", "number-0", "number-2"});
}

TEST_CASE("a trial that is hopeless at half of its steps is stopped, with its cause, and not tried again",
          "[orchestrator][scheduler]") {
  Bench bench;
  bench.stop_early = true;
  bench.num_workers = 1;
  // The last one is below the LR that learns late.
  bench.change = [](auto& trials) { trials.back().base.lr = 1e-4; };
  CHECK(bench.run("lag=2e-4 wait_ms=20000") == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2") == 5);
  CHECK(bench.count("trial WHERE state = 5 AND steps = 10 AND message LIKE 'hopeless at step 10%'") == 1);
  CHECK(bench.count("attempt") == 6);
  CHECK(bench.count("attempt WHERE state = 5 AND failure IS NULL AND message LIKE 'hopeless%'") == 1);
  CHECK(bench.count("curves WHERE name = 'number-5' AND metric = 'train_loss'") < 20);
  CHECK(std::filesystem::is_empty(bench.options.folder / "checkpoints"));
}

TEST_CASE("no more workers are started than there are trials", "[orchestrator][scheduler]") {
  Bench bench;
  bench.num_workers = 8;
  bench.num_trials = 2;
  bench.run();
  CHECK(bench.count("(SELECT DISTINCT worker_pid FROM attempt)") <= 2);
}

TEST_CASE("a trial whose worker dies goes back to waiting once and then succeeds",
          "[orchestrator][scheduler]") {
  Bench bench;
  CHECK(bench.run("crash=3") == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2") == 6);
  CHECK(bench.count("attempt") == 7);
  CHECK(bench.count("attempt WHERE failure = 0 AND message LIKE 'signal 11%'") == 1);
  CHECK(bench.count("results WHERE attempts = 2") == 1);
}

TEST_CASE("a trial that always dies fails after its retries and the others finish",
          "[orchestrator][scheduler]") {
  Bench bench;
  CHECK(bench.run("crash_name=number-2") == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2") == 5);
  CHECK(bench.count("trial WHERE state = 4 AND name = 'number-2'") == 1);
  CHECK(bench.count("attempt WHERE trial_id = 3") == 3);
}

TEST_CASE("the user's error is not tried again", "[orchestrator][scheduler]") {
  Bench bench;
  bench.run("fail_name=number-2");
  CHECK(bench.count("attempt WHERE trial_id = 3") == 1);
  CHECK(bench.count("trial WHERE state = 4 AND message = 'user_error: the context is too long'") == 1);
}

TEST_CASE("a silent worker is killed and its trial tried again", "[orchestrator][scheduler]") {
  Bench bench;
  bench.options.stall_seconds = 0.3;
  CHECK(bench.run("hang=2") == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2") == 6);
  CHECK(bench.count("attempt WHERE failure = 3") == 1);
}

TEST_CASE("bytes that are no message end the worker, not the sweep", "[orchestrator][scheduler]") {
  Bench bench;
  CHECK(bench.run("garbage=2") == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2") == 6);
  CHECK(bench.count("attempt WHERE failure = 0 AND message LIKE 'sent what is no message%'") == 1);
}

TEST_CASE("a message about a trial the worker does not train is refused and counted",
          "[orchestrator][scheduler]") {
  Bench bench;
  CHECK(bench.run("stranger=1") == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2 AND loss > 1") == 6);
  CHECK(bench.count("event WHERE kind = 'refused'") == 6);
}

TEST_CASE("failures in a row from different trials open the breaker", "[orchestrator][scheduler]") {
  Bench bench;
  bench.num_trials = 20;
  CHECK(bench.run("fail_name=number") == Scheduler::End::broken);
  CHECK(bench.count("trial WHERE state = 4") >= 5);
  CHECK(bench.count("trial WHERE state = 4") <= 7);  // those under way may fail, too
  CHECK(bench.count("trial WHERE state = 1") == 0);
}

TEST_CASE("a program that always crashes opens the breaker before every trial has met it",
          "[orchestrator][scheduler]") {
  Bench bench;
  bench.num_trials = 20;
  bench.options.retry.backoff = 0;
  CHECK(bench.run("crash_name=number") == Scheduler::End::broken);
  CHECK(bench.count("trial WHERE state = 4") >= 5);
  CHECK(bench.count("attempt") <= 3 * 7);
}

TEST_CASE("a breaker of 0 never opens", "[orchestrator][scheduler]") {
  Bench bench;
  bench.options.retry.stop_after = 0;
  CHECK(bench.run("fail_name=number") == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 4") == 6);
}

TEST_CASE("draining saves what is being trained and leaves it waiting without a loss",
          "[orchestrator][scheduler]") {
  Bench bench;
  bench.on_start = [n = 0](Scheduler& scheduler, const db::WaitingTrial&) mutable {
    if (++n == 4) scheduler.drain();
  };
  CHECK(bench.run("sleep_ms=400") == Scheduler::End::drained);
  CHECK(bench.count("trial WHERE state = 1") == 0);
  CHECK(bench.count("trial WHERE state = 0") >= 3);
  CHECK(bench.count("attempt WHERE failure NOT IN (6)") == 0);
  bench.on_start = [](auto&, const auto&) {};
  CHECK(bench.run() == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2") == 6);
  CHECK(bench.count("attempt WHERE first_step > 0") >= 1);
  // Each point of each curve is there once, also where an attempt was cut.
  CHECK(bench.count("curves WHERE metric = 'train_loss'") == 6 * 20);
}

TEST_CASE("stopping kills the workers at once and loses no trial", "[orchestrator][scheduler]") {
  Bench bench;
  bench.on_start = [n = 0](Scheduler& scheduler, const db::WaitingTrial&) mutable {
    if (++n == 2) scheduler.stop();
  };
  CHECK(bench.run("sleep_ms=60000") == Scheduler::End::drained);
  CHECK(bench.count("trial WHERE state = 1") == 0);
  bench.on_start = [](auto&, const auto&) {};
  CHECK(bench.run() == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2") == 6);
}

TEST_CASE("a worker of another protocol version is named with both versions", "[orchestrator][scheduler]") {
  Bench bench;
  CHECK_THROWS_WITH(bench.run("version=7"), ContainsSubstring("protocol 7") && ContainsSubstring("speaks 2"));
  CHECK(bench.count("attempt") == 0);
}

TEST_CASE("checkpoints of trials that have ended are removed", "[orchestrator][scheduler]") {
  Bench bench;
  std::filesystem::create_directories(bench.options.folder / "checkpoints");
  std::ofstream(bench.options.folder / "checkpoints" / (std::string(32, 'a') + ".safetensors")) << "1";
  bench.on_start = [&](auto&, const db::WaitingTrial& trial) {  // of an earlier attempt
    for (const char* ending : {".safetensors", ".safetensors.1"})
      std::ofstream(bench.options.folder / "checkpoints" / (trial.key + ending)) << "1";
  };
  bench.run();
  CHECK(bench.count("trial WHERE state = 2") == 6);
  CHECK(std::filesystem::is_empty(bench.options.folder / "checkpoints"));
}

TEST_CASE("what a worker prints is in its trial's log", "[orchestrator][scheduler]") {
  Bench bench;
  bench.run();
  CHECK_THAT(test::read_text(bench.options.folder / "logs/trial-0002.log"),
             ContainsSubstring("attempt 1 of trial 2") && ContainsSubstring("training number-1 from step 0"));
}

TEST_CASE("a trial whose worker prints nothing leaves no file", "[orchestrator][scheduler]") {
  Bench bench;
  CHECK(bench.run("noop=1") == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2") == 6);
  CHECK(std::filesystem::is_empty(bench.options.folder / "logs"));
}

TEST_CASE("an end is told when it is on the disk, a trial that was lost before it starts again",
          "[orchestrator][scheduler]") {
  Bench bench;
  std::vector<std::string> told;
  bench.on_start = [&](auto&, const db::WaitingTrial& trial) {
    if (trial.num_attempts > 0) told.push_back("again " + trial.spec.name);
  };
  bench.on_end = [&](const db::WaitingTrial& trial, const sweeps::Outcome&, bool again) {
    told.push_back((again ? "lost " : "ended ") + trial.spec.name);
    // Another connection sees it.
    CHECK(bench.count("trial WHERE state = " + std::string(again ? "0" : "2") +
                      " AND id = " + std::to_string(trial.id)) == 1);
  };
  CHECK(bench.run("crash=3") == Scheduler::End::done);
  CHECK(told.size() == 6 + 2);
  const auto lost = std::find_if(told.begin(), told.end(), [](auto& text) { return text.starts_with("lost"); });
  REQUIRE(lost != told.end());
  CHECK(std::find(lost, told.end(), "again" + lost->substr(4)) != told.end());
}

TEST_CASE("a worker may be let go after a number of trials", "[orchestrator][scheduler]") {
  Bench bench;
  bench.num_trials = 5;
  bench.num_workers = 1;
  bench.options.trials_per_worker = 2;
  CHECK(bench.run() == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2") == 5);
  CHECK(bench.count("attempt") == 5);
  CHECK(bench.count("(SELECT DISTINCT worker_pid FROM attempt)") == 3);
}

TEST_CASE("the last of many trials cost what the first did, in time and in memory",
          "[orchestrator][scheduler][slow]") {
  Bench bench;
  bench.num_trials = 10'000;
  bench.change = [](auto& trials) {
    for (std::size_t i = 0; i < trials.size(); ++i) trials[i].base.lr = 1e-3 + 1e-8 * static_cast<double>(i);
  };
  std::vector<std::chrono::steady_clock::time_point> starts;
  std::vector<std::int64_t> resident_bytes;
  bench.on_start = [&](auto&, const auto&) {
    starts.push_back(std::chrono::steady_clock::now());
    std::ifstream statm("/proc/self/statm");
    std::int64_t size = 0, resident = 0;
    statm >> size >> resident;
    resident_bytes.push_back(resident * ::sysconf(_SC_PAGESIZE));
  };
  CHECK(bench.run("noop=1") == Scheduler::End::done);
  REQUIRE(starts.size() == 10'000);
  CHECK((resident_bytes[9'999] - resident_bytes[2'000]) / 8'000 < 1024);
  // Other programs disturb it: of ten parts of a thousand the fastest of the first and of the last five.
  const auto fastest = [&](std::size_t first) {
    auto best = std::chrono::steady_clock::duration::max();
    for (auto i = first; i < first + 5'000; i += 1'000) best = std::min(best, starts[i + 999] - starts[i]);
    return std::chrono::duration<double>(best).count();
  };
  CHECK(fastest(5'000) / fastest(0) < 2);
}

TEST_CASE("a program that is no worker is named with what it printed", "[orchestrator][worker_process]") {
  const TemporaryFolder folder;
  std::ofstream(folder / "liar") << "#!/bin/sh\necho I am a shell script\nexit 3\n";
  std::filesystem::permissions(folder / "liar", std::filesystem::perms::all);
  asio::io_context context{1};
  ProcessLauncher launcher(context, folder / "liar");
  Scheduler scheduler(context, launcher, {{"cpu"}}, {}, {});
  std::string message;
  asio::co_spawn(
      context,
      [&]() -> awaitable<void> {
        worker::OrchestratorMessage question = worker::Inspect{};
        co_await scheduler.ask(std::move(question));
      },
      [&](std::exception_ptr error) {
        try {
          std::rethrow_exception(error);
        } catch (const ExitError& exit) {
          message = exit.what();
        }
        context.stop();
      });
  context.run();
  CHECK_THAT(message, ContainsSubstring("liar") && ContainsSubstring("exit code 3") &&
                          ContainsSubstring("I am a shell script"));
}

TEST_CASE("whoever writes to a worker that reads nothing does not wait", "[orchestrator][worker_process]") {
  const TemporaryFolder folder;
  std::ofstream(folder / "deaf") << "#!/bin/sh\nexec sleep 600\n";
  std::filesystem::permissions(folder / "deaf", std::filesystem::perms::all);
  asio::io_context context{1};
  ProcessLauncher launcher(context, folder / "deaf");
  auto worker = launcher.start({"cpu"});
  worker::Assign assign{
      {{.trial = std::string(4 << 20, 'k'), .spec = {}, .checkpoint = ""}}};  // beyond any buffer
  bool is_sent = false;
  asio::co_spawn(context, worker->send(assign), [&](std::exception_ptr) { is_sent = true; });
  for (int i = 0; i < 100; ++i) asio::co_spawn(context, worker->send(worker::Cancel{"k"}), asio::detached);
  context.poll();  // comes back
  CHECK(!is_sent);
  CHECK(worker->alive());
  worker.reset();
  context.poll();
  CHECK(is_sent);  // it has failed
}

TEST_CASE("a program that cannot be run is named with the reason", "[orchestrator][worker_process]") {
  asio::io_context context{1};
  ProcessLauncher launcher(context, "/nowhere/worker");
  CHECK_THROWS_WITH(launcher.start({"cpu"}),
                    ContainsSubstring("/nowhere/worker") && ContainsSubstring("No such file"));
}

TEST_CASE("a worker object that goes leaves no process behind", "[orchestrator][worker_process]") {
  asio::io_context context{1};
  ProcessLauncher launcher(context, TUNEONCE_FAKE_WORKER);
  auto worker = launcher.start({"cpu"});
  const auto pid = static_cast<pid_t>(worker->pid());
  CHECK(::kill(pid, 0) == 0);
  worker.reset();
  CHECK(::kill(pid, 0) != 0);
}

TEST_CASE("losses that are tried again do not open the breaker", "[orchestrator][scheduler]") {
  Bench bench;
  bench.options.retry.stop_after = 1;
  CHECK(bench.run("crash=2") == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 2") == 6);
}

TEST_CASE("each kind of loss has its own number of tries", "[orchestrator][scheduler]") {
  Bench bench;
  bench.options.retry.crash = 0;
  bench.options.retry.backoff = 0;
  CHECK(bench.run("crash=2") == Scheduler::End::done);
  CHECK(bench.count("trial WHERE state = 4 AND message LIKE 'crash: signal 11%'") == 1);
  CHECK(bench.count("trial WHERE state = 2") == 5);
}

TEST_CASE("a lost trial waits before it is tried again, twice as long the second time", "[orchestrator][scheduler]") {
  Bench bench;
  bench.num_trials = 1;
  bench.options.retry.backoff = 0.2;
  bench.run("crash_name=number-0");
  const auto rows = db::run_query(bench.database, R"(
    SELECT (julianday(later.started) - julianday(earlier.ended)) * 86400 FROM attempt AS later
    JOIN attempt AS earlier ON earlier.number = later.number - 1 ORDER BY later.number)").rows;
  REQUIRE(rows.size() == 2);
  CHECK(std::get<double>(rows[0][0]) >= 0.19);
  CHECK(std::get<double>(rows[1][0]) >= 0.39);
  CHECK(bench.count("attempt WHERE failure = 0 AND last_lines LIKE '%training number-0%'") == 3);
}

TEST_CASE("a log that grows beyond its bound keeps its newest lines in two files", "[orchestrator][scheduler]") {
  Bench bench;
  bench.num_trials = 1;
  bench.options.retry.crash = 40;
  bench.options.retry.backoff = 0;
  bench.options.disk.log = 2000;
  bench.run("crash_name=number-0");
  const auto logs = bench.folder / "a.db.d/logs";
  const auto log = logs / "trial-0001.log";
  CHECK(std::filesystem::file_size(log) <= 1000);
  CHECK(std::filesystem::file_size(logs / "trial-0001.log.1") <= 1000);
  CHECK_THAT(test::read_text(logs / "trial-0001.log.1") + test::read_text(log), ContainsSubstring("attempt 41 of"));
}

TEST_CASE("no trial starts on a disk without room, and the reason is kept", "[orchestrator][scheduler]") {
  Bench bench;
  bench.options.database = bench.database;
  bench.options.disk.keep_free = std::int64_t{1} << 60;
  CHECK(bench.run() == Scheduler::End::disk_full);
  CHECK(bench.count("trial WHERE state = 0") == 6);
  CHECK(bench.count("attempt") == 0);
}
