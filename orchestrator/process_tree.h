#pragma once

#include <sys/types.h>

#include <filesystem>
#include <set>
#include <string>

namespace orchestrator {

/// The processes that workers start, and theirs: whatever they do with process groups and sessions, none of
/// them outlives the run. Every worker carries a mark in its environment, which its descendants inherit.

inline constexpr const char* kMarkVariable = "TUNEONCE_RUN";

/// The mark of this process's run on a database: a hash of its path, the pid and when the process started.
std::string run_mark(const std::filesystem::path& database);

/// Ends every process with a mark of the database whose run is not there any more, and what is in the control
/// groups of such runs; waits at most `seconds` until they are gone. Returns how many with a mark there were.
int end_marked(const std::filesystem::path& database, double seconds = 5);

/// Ends the processes that came to us as orphans (worker::adopt_orphans): children of ours with this mark that
/// are not among `known`. Those that have ended are gone afterwards, too, with whatever mark.
void end_orphans(const std::string& mark, const std::set<pid_t>& known);

/// A small process that ends everything with the mark, or in the run's control group, when this process is gone,
/// however it went.
class Guard {
 public:
  /// Throws ExitError{kEnvironment} when no process can be started.
  explicit Guard(const std::filesystem::path& database);
  /// Its task is done.
  ~Guard();
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  pid_t pid_ = -1;
  int alive_ = -1;  // closes with this process
};

/// Resident memory in bytes of a process; with `family` also of all that descend from it or share its group.
std::int64_t resident_bytes(pid_t pid, bool family);

/// What the host has left for processes to take, bytes: the kernel's estimate, and the cgroup's limit where
/// that is nearer.
std::int64_t host_memory_left();

}  // namespace orchestrator
