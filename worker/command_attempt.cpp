#include "worker/command_attempt.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>

#include "worker/process_tree.h"
#include "worker/processes.h"

namespace worker {
namespace {

namespace fs = std::filesystem;
using sweeps::Failed;
using sweeps::FailureClass;

constexpr auto kGrace = std::chrono::seconds(10);         // between SIGTERM and SIGKILL
constexpr auto kProgressEvery = std::chrono::seconds(1);  // at most
constexpr std::size_t kMaxCurves = 64;
constexpr std::size_t kMaxMessage = 300;
constexpr const char* kObjective = "eval_loss";  // what the orchestrator calls a trial's held-out loss

[[noreturn]] void throw_errno(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

void write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(descriptor, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;  // nobody reads the log any more
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}
void note(const std::string& text) { write_all(1, "tuneonce: " + text + "\n"); }

/// Hands over what can be read without waiting, up to what a pipe holds at most; false at the end.
template <class Sink>
bool drain_descriptor(int descriptor, const Sink& sink) {
  std::array<char, 1 << 16> bytes;
  for (int i = 0; i < 16; ++i) {
    const ssize_t count = ::read(descriptor, bytes.data(), bytes.size());
    if (count > 0) {
      sink(std::string_view(bytes.data(), static_cast<std::size_t>(count)));
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    return count < 0 && errno == EAGAIN;
  }
  return true;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

/// What could not be done between fork and exec.
struct StartFailure {
  enum What { folder, program } what;
  int error;
};

/// Runs in the child: system calls only.
[[noreturn]] void become_program(char* const* words, char* const* environment, const char* folder, int output,
                                 int failed, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int number : {SIGPIPE, SIGINT}) ::signal(number, SIG_DFL);
  StartFailure failure{StartFailure::folder, 0};
  if (::chdir(folder) == 0) {
    failure.what = StartFailure::program;
    if (::dup2(output, 1) >= 0 && ::dup2(output, 2) >= 0) ::execvpe(words[0], words, environment);
  }
  failure.error = errno;
  [[maybe_unused]] const auto written = ::write(failed, &failure, sizeof failure);
  ::_exit(127);
}

std::string quoted_command(const std::vector<std::string>& words) {
  std::string line;
  for (const auto& word : words) {
    const bool plain =
        !word.empty() && word.find_first_of(" \t\n\"'\\$`*?[]{}()<>|&;#~!") == std::string::npos;
    line.append(line.empty() ? "" : " ").append(plain ? word : "'" + word + "'");
  }
  return line;
}

bool says_out_of_gpu_memory(std::string_view line) {
  for (const std::string_view phrase :
       {"CUDA out of memory", "torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError"})
    if (line.find(phrase) != std::string_view::npos) return true;
  return false;
}

std::string duration(double seconds) {
  char text[64];
  std::snprintf(text, sizeof text, "%.4g s", seconds);
  return text;
}

}  // namespace

void OwnedDescriptor::reset(int value) {
  if (value_ >= 0) ::close(value_);
  value_ = value;
}

CommandAttempt::CommandAttempt(Assignment assignment, const std::string& device, Emit emit)
    : assignment_(std::move(assignment)),
      emit_(std::move(emit)),
      folder_(
          fs::absolute(assignment_.checkpoint.empty()
                           ? fs::temp_directory_path() / ("tuneonce-" + std::to_string(::getpid()) + ".dir")
                           : fs::path(assignment_.checkpoint + ".dir"))),
      own_folder_(assignment_.checkpoint.empty()),
      files_(folder_),
      oom_kills_(num_oom_kills()) {
  const auto& command = assignment_.spec.command;
  if (command.words.empty())
    throw std::invalid_argument("the trial has no command; its family must be \"command\"");
  if (!command.metric_regex.empty()) pattern_.emplace(command.metric_regex);
  prepare_folder(device);
  emit_(Started{assignment_.trial, assignment_.attempt, 0});
  start(device);
}

CommandAttempt::~CommandAttempt() {
  kill_descendants();
  std::error_code ignored;
  if (own_folder_) fs::remove_all(folder_, ignored);
}

void CommandAttempt::prepare_folder(const std::string& device) {
  std::error_code error;
  fs::create_directories(files_.checkpoint, error);
  if (error) throw std::runtime_error(files_.checkpoint.string() + ": " + error.message());
  const std::string config = command_config(assignment_, files_, device).dump();
  std::ofstream(files_.config) << config << '\n';
  std::ifstream written(files_.config);
  if (std::string line; !std::getline(written, line) || line != config)
    throw std::runtime_error(files_.config.string() + ": cannot be written; is the disk full?");
  note("config " + config);
  fs::remove(files_.metrics, error);
  if (::mkfifo(files_.metrics.c_str(), 0600) != 0) throw_errno(files_.metrics.string());
  // Also open for writing: there is always a reader and never an end, whoever comes and goes at the other
  // side.
  metrics_.reset(::open(files_.metrics.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (metrics_.get() < 0) throw_errno(files_.metrics.string());
}

void CommandAttempt::start(const std::string& device) {
  std::vector<std::string> words = command_words(assignment_, files_);
  std::vector<std::string> environment = command_environment(assignment_, files_, device);
  note("runs " + quoted_command(words));
  int output[2], failed[2];
  if (::pipe2(output, O_CLOEXEC) != 0) throw_errno("cannot make a pipe");
  output_.reset(output[0]);
  const OwnedDescriptor output_end(output[1]);
  if (::pipe2(failed, O_CLOEXEC) != 0) throw_errno("cannot make a pipe");
  const OwnedDescriptor failed_ours(failed[0]);
  OwnedDescriptor failed_theirs(failed[1]);
  ::fcntl(output_.get(), F_SETFL, O_NONBLOCK);
  const auto word_pointers = pointers(words);
  const auto environment_pointers = pointers(environment);
  const auto& folder = assignment_.spec.command.folder;
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) throw_errno("cannot start a process");
  if (pid_ == 0)
    become_program(word_pointers.data(), environment_pointers.data(), folder.c_str(), output_end.get(),
                   failed_theirs.get(), parent);
  failed_theirs.reset();
  StartFailure failure{};
  ssize_t size = 0;
  while ((size = ::read(failed_ours.get(), &failure, sizeof failure)) < 0 && errno == EINTR) {
  }
  if (size == sizeof failure)
    throw std::invalid_argument((failure.what == StartFailure::folder ? folder : words.front()) +
                                ": cannot be " + (failure.what == StartFailure::folder ? "entered" : "run") +
                                ": " + std::strerror(failure.error));
}

// --- what it says ---

void CommandAttempt::read_output() {
  if (output_.get() < 0) return;
  const bool open = drain_descriptor(output_.get(), [this](std::string_view bytes) {
    alive_ = true;
    write_all(1, bytes);
    output_lines_.feed(bytes, [this](std::string_view line) { read_line(line); });
  });
  if (!open) output_.reset();
}

void CommandAttempt::read_metrics() {
  drain_descriptor(metrics_.get(), [this](std::string_view bytes) {
    alive_ = true;
    metric_lines_.feed(bytes, [this](std::string_view line) {
      if (const auto report = parse_json_report(line, assignment_.spec.command.metric))
        take(*report);
      else
        note("no report on the metrics pipe: " + std::string(line.substr(0, kMaxMessage)));
    });
  });
}

void CommandAttempt::read_line(std::string_view line) {
  last_line_ = line.substr(0, kMaxMessage);
  out_of_gpu_memory_ |= says_out_of_gpu_memory(line);
  const auto& metric = assignment_.spec.command.metric;
  const auto report = pattern_ ? parse_log_line(line, *pattern_, metric) : parse_json_report(line, metric);
  if (report) take(*report);
}

void CommandAttempt::take(const MetricReport& report) {
  if (report.step) {
    step_ = *report.step;
    furthest_ = std::max(furthest_, std::min(step_, assignment_.spec.run.steps));
  }
  for (const auto& [name, value] : report.values) {
    if (name == assignment_.spec.command.metric) {
      take_metric(report.step, value);
      continue;
    }
    // The objective has that name in the database.
    const std::string curve = name == kObjective ? "own_" + name : name;
    if (!report.step || !std::isfinite(value)) continue;
    if (curve_ends_.size() >= kMaxCurves && !curve_ends_.contains(curve)) continue;
    const auto [end, is_new] = curve_ends_.try_emplace(curve, *report.step);
    if (!is_new && *report.step <= end->second) continue;  // a curve's steps rise
    end->second = *report.step;
    emit_(Curve{assignment_.trial, assignment_.attempt, curve, {*report.step}, {value}});
  }
}

void CommandAttempt::take_metric(std::optional<std::int64_t> step, double value) {
  if (stopped_) return;
  if (!std::isfinite(value)) {
    stopped_ = sweeps::Diverged{step_, seconds()};
    note(assignment_.spec.command.metric + " is not finite at step " + std::to_string(step_) + ": diverged");
    terminate();
    return;
  }
  metric_ = value;
  metric_step_ = step;
  if (!step) return;
  const auto [end, is_new] = curve_ends_.try_emplace(kObjective, *step);
  if (!is_new && *step <= end->second) return;
  end->second = *step;
  emit_(Curve{assignment_.trial, assignment_.attempt, kObjective, {*step}, {value}});
}

// --- time and signals ---

double CommandAttempt::seconds() const {
  return std::chrono::duration<double>(Clock::now() - started_).count();
}

void CommandAttempt::check_time() {
  const double timeout = assignment_.spec.command.timeout_seconds;
  if (!stopped_ && timeout > 0 && seconds() > timeout) {
    stopped_ = Failed{FailureClass::stalled, "took longer than its timeout of " + duration(timeout)};
    terminate();
  }
  if (kill_at_ && Clock::now() >= *kill_at_) {
    signal_program(SIGKILL);
    kill_at_.reset();
  }
  if (!alive_ || Clock::now() - last_progress_ < kProgressEvery) return;
  alive_ = false;
  last_progress_ = Clock::now();
  emit_(Progress{assignment_.trial, assignment_.attempt, furthest_, seconds()});
}

void CommandAttempt::stop(const std::string& why) {
  if (stopped_) return;
  stopped_ = Failed{FailureClass::cancelled, why};
  terminate();
}

void CommandAttempt::terminate() {
  if (status_) return;
  signal_program(SIGTERM);
  kill_at_ = Clock::now() + kGrace;
}

/// All of its process group, or it alone where it has left that.
void CommandAttempt::signal_program(int signal) {
  if (::kill(-pid_, signal) != 0) ::kill(pid_, signal);
}

void CommandAttempt::reap() {
  int status = 0;
  for (pid_t pid = 0; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;)
    if (pid == pid_) status_ = status;
}

// --- the end ---

sweeps::Outcome CommandAttempt::outcome() {
  read_output();
  read_metrics();
  kill_descendants();  // what it left behind; its output ends with them
  read_output();
  read_metrics();
  output_lines_.finish([this](std::string_view line) { read_line(line); });
  if (stopped_) return *stopped_;
  const int status = *status_;
  return WIFEXITED(status) ? outcome_of_exit(WEXITSTATUS(status)) : outcome_of_signal(WTERMSIG(status));
}

std::string CommandAttempt::said_last() const {
  return last_line_.empty() ? "; it printed nothing" : "; it printed last: " + last_line_;
}

/// What it printed last usually says why; a narrow screen shows the beginning only.
std::string CommandAttempt::said_before(const std::string& end) const {
  return last_line_.empty() ? end + "; it printed nothing" : last_line_ + " (" + end + ")";
}

sweeps::Outcome CommandAttempt::outcome_of_exit(int code) const {
  const auto& command = assignment_.spec.command;
  if (code == 0 && metric_) {
    const auto all = assignment_.spec.run.steps;
    const auto steps = std::min(metric_step_.value_or(all), all);
    const auto end = curve_ends_.find(kObjective);
    if (end == curve_ends_.end() || end->second < steps)  // one without a step is of the end
      emit_(Curve{assignment_.trial, assignment_.attempt, kObjective, {steps}, {*metric_}});
    return sweeps::Finished{*metric_, {}, steps, seconds()};
  }
  if (code == 0) {
    const std::string how = command.metric_regex.empty()
                                ? "print a line such as {\"step\": 100, \"" + command.metric +
                                      "\": 3.21}, or write it to $TUNEONCE_METRICS"
                                : "metric_regex '" + command.metric_regex + "' found none in what it printed";
    return Failed{FailureClass::user_error,
                  "ended well but reported no \"" + command.metric + "\"; " + how + said_last()};
  }
  const std::string message = said_before("exit code " + std::to_string(code));
  if (out_of_gpu_memory_) return Failed{FailureClass::oom_gpu, message};
  if (code > 128 && code < 128 + 65) return outcome_of_signal(code - 128);  // as a shell says it
  // A usage error (2: argparse and most others), not executable, not found (a shell's), sysexits.h.
  const bool user = code == 2 || code == 126 || code == 127 || (code >= 64 && code <= 78);
  return Failed{user ? FailureClass::user_error : FailureClass::crash, message};
}

sweeps::Outcome CommandAttempt::outcome_of_signal(int signal) const {
  const std::string message = said_before("signal " + std::to_string(signal) + ", " + ::strsignal(signal));
  if (out_of_gpu_memory_) return Failed{FailureClass::oom_gpu, message};
  if (signal != SIGKILL) return Failed{FailureClass::crash, message};
  if (num_oom_kills() > oom_kills_)
    return Failed{FailureClass::oom_host, message + ", the machine ran out of memory"};
  return Failed{FailureClass::worker_lost, message};
}

}  // namespace worker
