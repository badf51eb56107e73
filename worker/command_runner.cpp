#include "worker/command_runner.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "worker/command_attempt.h"
#include "worker/process_tree.h"

namespace worker {
namespace {

namespace fs = std::filesystem;
using sweeps::FailureClass;

constexpr int kTickMilliseconds = 250;

/// SIGCHLD and SIGTERM (which tells that the parent has ended) as something to poll.
OwnedDescriptor& open_signals(OwnedDescriptor& signals) {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGCHLD);
  ::sigaddset(&set, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  signals.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (signals.get() < 0) throw std::system_error(errno, std::generic_category(), "signalfd");
  return signals;
}

/// One conversation.
class Session {
 public:
  Session(Channel& channel, std::string device) : channel_(channel), device_(std::move(device)) {
    open_signals(signals_);
  }

  void run() {
    channel_.send(Hello{.build = TUNEONCE_VERSION, .device = device_, .device_name = device_});
    while (true) {
      if (!attempt_) start_next();
      if (!attempt_ && waiting_.empty() && drain_) return;
      if (attempt_ || waiting_.empty()) wait();
      if (attempt_ && attempt_->has_ended()) end(attempt_->outcome());
    }
  }

 private:
  void start_next() {
    if (waiting_.empty()) return;
    const Assignment next = std::move(waiting_.front());
    waiting_.pop_front();
    if (drain_) return say_ended(next, sweeps::Failed{FailureClass::cancelled, "drained before it began"});
    try {
      attempt_ = std::make_unique<CommandAttempt>(
          next, device_, [this](const WorkerMessage& message) { channel_.send(message); });
    } catch (const std::invalid_argument& error) {
      say_ended(next, sweeps::Failed{FailureClass::user_error, error.what()});
    } catch (const std::runtime_error& error) {
      say_ended(next, sweeps::Failed{FailureClass::crash, error.what()});
    }
  }

  void end(const sweeps::Outcome& outcome) {
    const Ended ended{attempt_->trial(), attempt_->number(), outcome};
    attempt_.reset();
    channel_.send(ended);
  }
  void say_ended(const Assignment& assignment, const sweeps::Outcome& outcome) {
    channel_.send(Ended{assignment.trial, assignment.attempt, outcome});
  }

  /// Until something happens, or for a tick while a program runs.
  void wait() {
    std::array<pollfd, 4> all = {{{kChannelDescriptor, POLLIN, 0},
                                  {signals_.get(), POLLIN, 0},
                                  {attempt_ ? attempt_->output() : -1, POLLIN, 0},
                                  {attempt_ ? attempt_->metrics() : -1, POLLIN, 0}}};
    if (::poll(all.data(), all.size(), attempt_ ? kTickMilliseconds : -1) < 0 && errno != EINTR)
      throw std::system_error(errno, std::generic_category(), "poll");
    if (all[1].revents != 0) read_signals();
    while (auto message = channel_.receive(false)) take(*message);
    if (!attempt_) return;
    attempt_->read_output();
    attempt_->read_metrics();
    attempt_->check_time();
    attempt_->reap();
  }

  void read_signals() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof info) == sizeof info)
      if (info.ssi_signo == SIGTERM) throw ChannelClosed{};
  }

  void take(const OrchestratorMessage& message) {
    std::visit([this](const auto& one) { carry_out(one); }, message);
  }
  void carry_out(const Assign& assign) {
    waiting_.insert(waiting_.end(), assign.trials.begin(), assign.trials.end());
  }
  void carry_out(const Cancel& cancel) {
    if (attempt_ && attempt_->trial() == cancel.trial) attempt_->stop("cancelled");
  }
  void carry_out(const Drain&) {
    drain_ = true;
    if (attempt_) attempt_->stop("drained");
  }
  void carry_out(const Inspect& request) {
    try {
      channel_.send(inspect_command_data(request.data));
    } catch (const std::exception& error) {
      channel_.send(Refused{FailureClass::user_error, error.what()});
    }
  }
  void carry_out(const Measure&) {
    channel_.send(Refused{FailureClass::user_error, "a command has no step that could be timed on its own"});
  }
  void carry_out(const Probe&) {
    channel_.send(Refused{FailureClass::user_error, "nobody can look into a command's model"});
  }

  Channel& channel_;
  std::string device_;
  OwnedDescriptor signals_;
  std::deque<Assignment> waiting_;
  std::unique_ptr<CommandAttempt> attempt_;
  bool drain_ = false;
};

}  // namespace

void serve_commands(Channel& channel, const std::string& device) { Session(channel, device).run(); }

Inspected inspect_command_data(const sweeps::DataSpec& data) {
  if (data.path.empty()) return {"none", 0, 0, "whatever the command reads"};
  const fs::path root = data.path;
  std::error_code error;
  std::vector<std::string> files;
  if (fs::is_regular_file(root)) files.push_back(": " + std::to_string(fs::file_size(root)));
  if (fs::is_directory(root))
    for (auto it = fs::recursive_directory_iterator(root, error);
         !error && it != fs::recursive_directory_iterator(); it.increment(error))
      if (it->is_regular_file())
        files.push_back(it->path().lexically_relative(root).string() + ": " +
                        std::to_string(it->file_size()));
  if (error) throw std::invalid_argument(data.path + ": " + error.message());
  if (files.empty())
    throw std::invalid_argument(data.path + ": there is no file; name a file or a folder in [data] path");
  std::sort(files.begin(), files.end());
  std::string text;
  for (const auto& file : files) text += file + "\n";
  char fingerprint[17];
  std::snprintf(fingerprint, sizeof fingerprint, "%016llx",
                static_cast<unsigned long long>(sweeps::derived_seed(0, text)));
  return {fingerprint, 0, 0,
          data.path + ", " + std::to_string(files.size()) + (files.size() == 1 ? " file" : " files") +
              ", known by names and sizes"};
}

}  // namespace worker
