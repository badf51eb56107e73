#pragma once

#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>

namespace orchestrator {

struct ConsoleOptions {
  bool quiet = false;    // errors only
  bool verbose = false;  // every trial
  std::string log_file;  // also gets every message, with its time
};

/// Messages for people, on stderr; stdout belongs to data. A progress line is rewritten in place on a
/// terminal and printed at most every 30 s elsewhere.
class Console {
 public:
  /// Throws ExitError{kEnvironment} when the log file cannot be written.
  explicit Console(const ConsoleOptions& options);
  ~Console();

  void error(const std::string& text);
  void message(const std::string& text);
  void detail(const std::string& text);
  void progress(const std::string& text);
  /// Takes the progress line off the terminal, before something is printed to stdout.
  void clear_progress();

 private:
  void print(const std::string& text);
  void log(const std::string& text);

  ConsoleOptions options_;
  bool terminal_;
  bool progress_shown_ = false;
  std::chrono::steady_clock::time_point last_progress_;
  std::ofstream log_;
};

}  // namespace orchestrator
