#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace orchestrator {

struct LogsOptions {
  std::string trial;                    // number or name
  std::optional<std::int64_t> attempt;  // of this one alone
  std::optional<std::int64_t> lines;    // the last ones
  bool follow = false;                  // until the trial has ended
};

/// What a trial's workers printed, on stdout: what was rotated away (FILE.1) before FILE. Throws
/// ExitError{kUsage} for a trial or attempt that there is not, kEnvironment for a log that cannot be read.
int show_logs(const std::filesystem::path& database, const LogsOptions& options);

/// The last `lines` lines of `text`.
std::string_view last_lines(std::string_view text, std::int64_t lines);
/// From the line that begins attempt `attempt` to the one that begins the next.
std::string_view attempt_part(std::string_view text, std::int64_t attempt);

}  // namespace orchestrator
