#include "worker/processes.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <sstream>

namespace worker {

std::string read_proc(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();  // takes a failing read() for the end, where an istreambuf_iterator throws
  return std::move(text).str();
}

std::optional<Process> find_process(pid_t pid) {
  const auto text = read_proc("/proc/" + std::to_string(pid) + "/stat");
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
  for (auto entry = std::filesystem::directory_iterator("/proc", ignored); !ignored && entry != end(entry);
       entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    pid_t pid = 0;
    const auto [rest, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc{} || rest != name.data() + name.size()) continue;
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
