#include "worker/processes.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

namespace worker {

std::optional<Process> find_process(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto name_end = text.rfind(')');  // "PID (NAME) STATE PARENT GROUP ...", and a name may hold anything
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  Process process{.pid = pid};
  std::string skipped;
  fields >> skipped >> process.parent >> process.group;
  for (int field = 6; field < 22; ++field) fields >> skipped;
  fields >> process.started >> skipped >> process.resident;
  process.resident *= ::sysconf(_SC_PAGESIZE);
  return fields ? std::optional(process) : std::nullopt;
}

std::vector<Process> all_processes() {
  std::vector<Process> processes;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename().string();
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc{} || end != name.data() + name.size()) continue;
    if (const auto process = find_process(pid)) processes.push_back(*process);
  }
  return processes;
}

void adopt_orphans() { ::prctl(PR_SET_CHILD_SUBREAPER, 1); }

std::int64_t num_oom_kills() {
  std::ifstream file("/proc/vmstat");
  std::string name;
  for (std::int64_t value = 0; file >> name >> value;)
    if (name == "oom_kill") return value;
  return 0;
}

}  // namespace worker
