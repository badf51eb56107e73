// What the orchestrator costs per trial: trials that train nothing, through the real scheduler, store and
// worker processes. scheduler.sh runs it beside Optuna and Ray Tune.
//
//   bench_scheduler FAKE_WORKER MODE [NUMBER]
//
//   warm    NUMBER no-op trials on two workers that stay       (every state durable, shared commits)
//   normal  the same, synchronous=NORMAL
//   process the same, a new worker process for each trial
//   sleep   NUMBER trials of 1 s, two wide
//   points  NUMBER million points through Store::append_curve, in chunks of 100
//   commits NUMBER commits, one every 10 ms with 80 rows, as of eight workers that send 1,000 a second each, while
//           READERS processes (behind NUMBER; 32 as it is) read without a pause
//
// The database lies in the folder it is run in. One line of key=value on stdout.

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "db/query.h"
#include "orchestrator/scheduler.h"
#include "orchestrator/spec_codec.h"
#include "orchestrator/worker_process.h"

namespace {

using namespace orchestrator;
using Clock = std::chrono::steady_clock;
namespace fs = std::filesystem;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}
double megabytes_resident() {
  std::ifstream statm("/proc/self/statm");
  double size = 0, resident = 0;
  statm >> size >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}
/// Of this process: what it costs, which other programs on the machine disturb less than what it takes.
double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}
double peak_megabytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

/// In a process of its own, so that the plan's memory is not taken for the scheduler's.
void make_database(const fs::path& file, int num_trials) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::vector<sweeps::TrialSpec> trials(static_cast<std::size_t>(num_trials));
    for (int i = 0; i < num_trials; ++i) {
      auto& spec = trials[static_cast<std::size_t>(i)];
      spec.name = fmt::format("number-{}", i);
      spec.base.lr = 1e-3 * (1 + 1e-6 * i);
      spec.data.fingerprint = "none";
    }
    sweeps::Study study;
    study.name = study.text = study.hash = study.data.fingerprint = "bench";
    auto store = db::Store::open(file, spec_codec());
    store.add_plan(store.put_study(study, "bench.toml"), trials);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0) std::exit(1);
}

/// When trials started; the memory at some of them.
struct Watch {
  std::vector<Clock::time_point> starts;
  double early_megabytes = 0, late_megabytes = 0;
  std::vector<double> cpu;  // seconds of CPU when the first, the 1,000th, ... trial started, and at the end
};

void run_trials(const fs::path& file, const char* program, db::Synchronous synchronous,
                const SchedulerOptions& options, int num_trials, Watch& watch) {
  const auto begin = Clock::now();
  auto store = db::Store::open(file, spec_codec(), synchronous);
  asio::io_context context{1};
  ProcessLauncher launcher(context, program);
  SchedulerEvents events;
  events.started = [&](const db::WaitingTrial&) {
    if (watch.starts.size() % 1000 == 0) watch.cpu.push_back(cpu_seconds());
    watch.starts.push_back(Clock::now());
    if (static_cast<int>(watch.starts.size()) == num_trials / 5) watch.early_megabytes = megabytes_resident();
  };
  Scheduler scheduler(context, launcher, {{"cpu"}, {"cpu"}}, options, events);
  std::exception_ptr error;
  Clock::time_point end;
  asio::co_spawn(
      context,
      [&]() -> awaitable<void> {
        co_await scheduler.run(store);
        end = Clock::now();
        watch.cpu.push_back(cpu_seconds());
        watch.late_megabytes = megabytes_resident();
        co_await scheduler.close();
      },
      [&](std::exception_ptr thrown) {
        error = thrown;
        context.stop();
      });
  context.run();
  if (error) std::rethrow_exception(error);

  const auto part = [&](std::size_t first) {
    return seconds_between(watch.starts[first], watch.starts[first + 999]);
  };
  const double seconds = seconds_between(watch.starts.front(), end);
  fmt::print("trials={} seconds={:.3f} trials_per_s={:.0f} startup_s={:.3f}", num_trials, seconds,
             num_trials / seconds, seconds_between(begin, watch.starts.front()));
  fmt::print(" cpu_us_per_trial={:.0f}", 1e6 * (watch.cpu.back() - watch.cpu.front()) / num_trials);
  if (num_trials >= 2000 && num_trials % 1000 == 0) {
    const auto last = watch.cpu.size() - 1;
    fmt::print(" last_over_first_thousand={:.2f} cpu_last_over_first={:.2f}",
               part(watch.starts.size() - 1000) / part(0),
               (watch.cpu[last] - watch.cpu[last - 1]) / (watch.cpu[1] - watch.cpu[0]));
  }
  fmt::print(" peak_mb={:.1f} bytes_per_trial={:.0f}\n", peak_megabytes(),
             (watch.late_megabytes - watch.early_megabytes) * (1 << 20) / (0.8 * num_trials));
}

void append_points(const fs::path& file, int millions) {
  make_database(file, 2);
  auto store = db::Store::open(file, spec_codec());
  const auto trial = store.waiting().front();
  const auto attempt = store.start(trial.key, {});
  constexpr int kChunk = 100;
  std::vector<std::int64_t> steps(kChunk);
  std::vector<double> values(kChunk);
  const auto begin = Clock::now();
  for (std::int64_t step = 0; step < millions * 1'000'000LL;) {
    for (std::size_t i = 0; i < kChunk; ++i, ++step) {
      steps[i] = step;
      values[i] = 2.5 + 1 / (1 + static_cast<double>(step));
    }
    store.append_curve(trial.key, attempt, "train_loss", steps, values);
  }
  store.flush();
  const double seconds = seconds_between(begin, Clock::now());
  fmt::print("points={} seconds={:.3f} points_per_s={:.0f} peak_mb={:.1f} bytes_per_point={:.1f}\n",
             millions * 1'000'000LL, seconds, millions * 1e6 / seconds, peak_megabytes(),
             static_cast<double>(fs::file_size(file)) / (millions * 1e6));
}

pid_t read_without_pause(const fs::path& file) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  while (true) db::run_query(file, "SELECT count(*) FROM results");
}

void commit_among_readers(const fs::path& file, int num_commits, int num_readers) {
  make_database(file, 2);
  auto store = db::Store::open(file, spec_codec());
  store.set_group_commit(std::chrono::milliseconds(10));  // as in a run
  const auto trial = store.waiting().front();
  const auto attempt = store.start(trial.key, {});
  std::vector<pid_t> readers;
  for (int i = 0; i < num_readers; ++i) readers.push_back(read_without_pause(file));
  std::vector<double> milliseconds;
  for (int i = 0; i < num_commits; ++i) {
    for (std::int64_t row = 0; row < 80; ++row)
      store.append_curve(trial.key, attempt, "train_loss", {80 * i + row}, {2.5});
    const auto begin = Clock::now();
    store.flush();
    milliseconds.push_back(1e3 * seconds_between(begin, Clock::now()));
    std::this_thread::sleep_until(begin + std::chrono::milliseconds(10));
  }
  for (const pid_t reader : readers) {
    ::kill(reader, SIGKILL);
    ::waitpid(reader, nullptr, 0);
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  const auto share = [&](double part) {
    return milliseconds[static_cast<std::size_t>(part * static_cast<double>(milliseconds.size() - 1))];
  };
  fmt::print("commits={} median_ms={:.2f} p99_ms={:.2f} longest_ms={:.2f}\n", num_commits, share(0.5),
             share(0.99), share(1));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr,
               "usage: bench_scheduler FAKE_WORKER warm|normal|process|sleep|points|commits [NUMBER]\n");
    return 2;
  }
  const std::string mode = argv[2];
  const fs::path file = fs::absolute("bench.db");
  for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(file.string() + suffix);
  const int given = argc > 3 ? std::atoi(argv[3]) : 0;
  if (mode == "points") {
    append_points(file, given > 0 ? given : 5);
    return 0;
  }
  if (mode == "commits") {
    commit_among_readers(file, given > 0 ? given : 1'000, argc > 4 ? std::atoi(argv[4]) : 32);
    return 0;
  }
  SchedulerOptions options;
  options.folder = file.string() + ".d";
  options.checkpoint_seconds = 0;
  if (mode == "process") options.trials_per_worker = 1;
  const int number = given > 0 ? given : mode == "sleep" ? 200 : mode == "process" ? 1'000 : 10'000;
  ::setenv("TUNEONCE_FAKE", mode == "sleep" ? "sleep_ms=1000" : "noop=1", 1);
  make_database(file, number);
  Watch watch;
  run_trials(file, argv[1], mode == "normal" ? db::Synchronous::normal : db::Synchronous::full, options, number,
             watch);
  return 0;
}
