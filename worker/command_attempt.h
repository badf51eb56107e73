#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "sweeps/metric_pattern.h"
#include "worker/command_config.h"
#include "worker/metric_report.h"
#include "worker/protocol.h"

namespace worker {

/// A descriptor that is closed with its owner.
class OwnedDescriptor {
 public:
  explicit OwnedDescriptor(int value = -1) : value_(value) {}
  OwnedDescriptor(const OwnedDescriptor&) = delete;
  OwnedDescriptor& operator=(const OwnedDescriptor&) = delete;
  ~OwnedDescriptor() { reset(); }
  void reset(int value = -1);
  int get() const { return value_; }

 private:
  int value_;
};

/// The user's program training one trial: a process group of its own, its output, its metrics. Speaks through
/// `emit`: Started, Progress while the program shows life, Curve. Whoever polls the descriptors calls the
/// functions below; nothing here blocks but the end.
class CommandAttempt {
 public:
  using Clock = std::chrono::steady_clock;
  using Emit = std::function<void(const WorkerMessage&)>;

  /// Starts it. Throws std::invalid_argument where the user's input is wrong, std::runtime_error otherwise.
  CommandAttempt(Assignment assignment, const std::string& device, Emit emit);
  /// Nothing that it started is left.
  ~CommandAttempt();

  const sweeps::TrialKey& trial() const { return assignment_.trial; }
  std::int64_t number() const { return assignment_.attempt; }
  int output() const { return output_.get(); }    // -1: it has closed it
  int metrics() const { return metrics_.get(); }  // never at an end

  /// Read what is there.
  void read_output();
  void read_metrics();
  /// About four times a second: the timeout, the grace, signs of life.
  void check_time();
  /// Reaps whatever has ended.
  void reap();
  bool has_ended() const { return status_.has_value(); }

  /// SIGTERM, and SIGKILL after the grace; the outcome will be Failed{cancelled, why}.
  void stop(const std::string& why);

  /// REQUIRES: has_ended(). Reads the rest and ends what the program left behind.
  sweeps::Outcome outcome();

 private:
  void prepare_folder(const std::string& device);
  void start(const std::string& device);
  void terminate();
  void signal_program(int signal);
  void read_line(std::string_view line);
  void take(const MetricReport& report);
  void take_metric(std::optional<std::int64_t> step, double value);
  sweeps::Outcome outcome_of_exit(int code) const;
  sweeps::Outcome outcome_of_signal(int signal) const;
  std::string said_last() const;
  std::string said_before(const std::string& end) const;
  double seconds() const;

  Assignment assignment_;
  Emit emit_;
  std::filesystem::path folder_;
  bool own_folder_ = false;  // a temporary one: no checkpoint was named
  CommandFiles files_;
  std::optional<sweeps::MetricPattern> pattern_;
  OwnedDescriptor output_, metrics_;
  pid_t pid_ = -1;
  std::optional<int> status_;
  Clock::time_point started_ = Clock::now(), last_progress_ = started_;
  std::optional<Clock::time_point> kill_at_;
  bool alive_ = true;  // a sign of life since the last Progress
  LineSplitter output_lines_, metric_lines_;
  std::string last_line_;
  bool out_of_gpu_memory_ = false;
  std::int64_t oom_kills_ = 0;
  std::optional<std::int64_t> metric_step_;  // of the last value of the objective, where it came with one
  std::int64_t step_ = 0, furthest_ = 0;  // reported last, and the highest so far within the run
  std::optional<double> metric_;  // the last one
  std::map<std::string, std::int64_t, std::less<>> curve_ends_;
  std::optional<sweeps::Outcome> stopped_;  // why it was told to stop
};

}  // namespace worker
