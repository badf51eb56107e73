#include "orchestrator/run_cgroup.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>
#include <thread>

namespace orchestrator {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
const std::string kPrefix = "tuneonce-";

/// Where the only hierarchy of version 2 is mounted: "ID PARENT MAJOR:MINOR ROOT MOUNT OPTIONS... - cgroup2 ...".
fs::path mount_point() {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    if (line.find(" - cgroup2 ") == line.npos) continue;
    std::istringstream fields(line);
    std::string skipped, mount;
    fields >> skipped >> skipped >> skipped >> skipped >> mount;
    return mount;
  }
  return {};
}

/// "0::/PATH"; those of version 1 have other numbers.
std::string own_group() {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);)
    if (line.starts_with("0::/")) return line.substr(4);
  return {};
}

/// The groups within it, the innermost first, and itself.
std::vector<fs::path> with_all_within(const fs::path& group) {
  std::vector<fs::path> groups = {group};
  std::error_code gone;
  for (auto entry = fs::recursive_directory_iterator(group, gone); !gone && entry != end(entry); entry.increment(gone))
    if (entry->is_directory(gone)) groups.push_back(entry->path());
  std::ranges::reverse(groups);
  return groups;
}

/// Kernels before 5.14 have no cgroup.kill: what forks faster than this is met in the next round.
void kill_each(const fs::path& group) {
  for (const auto& one : with_all_within(group)) {
    std::ifstream processes(one / "cgroup.procs");
    for (pid_t pid = 0; processes >> pid;) ::kill(pid, SIGKILL);
  }
}

}  // namespace

fs::path run_cgroup(const std::string& mark) {
  const auto mount = mount_point();
  if (mount.empty()) return {};
  return mount / own_group() / (kPrefix + mark);
}

std::vector<std::string> marks_of_run_cgroups() {
  std::vector<std::string> marks;
  const auto any = run_cgroup("");
  std::error_code unreadable;
  for (auto entry = fs::directory_iterator(any.parent_path(), unreadable); !unreadable && entry != end(entry);
       entry.increment(unreadable))
    if (const auto name = entry->path().filename().string(); name.starts_with(kPrefix))
      marks.push_back(name.substr(kPrefix.size()));
  return marks;
}

bool make_cgroup(const fs::path& group) {
  std::error_code refused;
  return fs::create_directory(group, refused);
}

void end_cgroup(const fs::path& group, double seconds) {
  std::error_code ignored;
  if (group.empty() || !fs::exists(group, ignored)) return;
  const auto deadline = Clock::now() + std::chrono::duration<double>(seconds);
  while (true) {
    if (!(std::ofstream(group / "cgroup.kill") << 1 << std::flush)) kill_each(group);
    // One that holds living processes cannot be removed.
    for (const auto& one : with_all_within(group)) ::rmdir(one.c_str());
    if (!fs::exists(group, ignored) || Clock::now() > deadline) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace orchestrator
