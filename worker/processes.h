#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

/// What the kernel tells of this machine's processes. For both programs; depends on nothing.
namespace worker {

struct Process {
  pid_t pid = 0, parent = 0, group = 0;
  std::int64_t started = 0;   // clock ticks after the machine's start; tells a process from an earlier one of its pid
  std::int64_t resident = 0;  // bytes of memory
};

/// A file of /proc. Of a process that ends meanwhile, what was read before: that may be nothing, and is no error.
std::string read_proc(const std::filesystem::path& file);

/// Nothing when there is none.
std::optional<Process> find_process(pid_t pid);
std::vector<Process> all_processes();

/// Descendants whose parents went come to this process from now on, not to init.
void adopt_orphans();

/// Times the kernel has killed for lack of memory since it was started.
std::int64_t num_oom_kills();

}  // namespace worker
