#pragma once

#include <stdexcept>
#include <string>

namespace orchestrator {

/// What the program answers to the shell. README.md has the table.
enum ExitCode : int {
  kDone = 0,
  kTrialsFailed = 1,
  kUsage = 2,
  kGateFailed = 3,
  kNoVerdict = 4,
  kOwned = 5,
  kEnvironment = 6,
  kSignal = 128,  // plus the signal's number
};

/// Ends the command with this message on stderr and this exit code.
struct ExitError : std::runtime_error {
  ExitError(ExitCode exit_code, const std::string& message) : std::runtime_error(message), code(exit_code) {}
  ExitCode code;
};

}  // namespace orchestrator
