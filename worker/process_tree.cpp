#include "worker/process_tree.h"

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace worker {
namespace {

constexpr auto kPatience = std::chrono::seconds(5);

/// The parent of every process, from /proc/PID/stat: "PID (NAME) STATE PARENT ...".
std::map<pid_t, pid_t> parents() {
  std::map<pid_t, pid_t> result;
  DIR* folder = ::opendir("/proc");
  if (!folder) return result;
  while (const dirent* entry = ::readdir(folder)) {
    const pid_t pid = std::atoi(entry->d_name);
    if (pid <= 0) continue;
    std::ifstream file(std::string("/proc/") + entry->d_name + "/stat");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const auto name_end = text.rfind(')');  // a name may hold blanks and brackets
    if (name_end != std::string::npos && name_end + 4 < text.size())
      result[pid] = std::atoi(text.c_str() + name_end + 4);
  }
  ::closedir(folder);
  return result;
}

std::vector<pid_t> descendants() {
  const auto parent_of = parents();
  std::vector<pid_t> result;
  for (const auto& [pid, parent] : parent_of) {
    auto above = parent_of.find(pid);
    while (above != parent_of.end() && above->second != ::getpid()) above = parent_of.find(above->second);
    if (above != parent_of.end()) result.push_back(pid);
  }
  return result;
}

}  // namespace

void adopt_orphans() { ::prctl(PR_SET_CHILD_SUBREAPER, 1); }

void kill_descendants() {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (true) {  // until there is none: one that forks while it is looked for is found next time
    pid_t reaped = 0;
    while ((reaped = ::waitpid(-1, nullptr, WNOHANG)) > 0) {
    }
    if (reaped < 0 && errno == ECHILD) return;
    for (const pid_t pid : descendants()) ::kill(pid, SIGKILL);
    if (std::chrono::steady_clock::now() > deadline) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void tie_to_parent(pid_t parent, int signal) {
  ::prctl(PR_SET_PDEATHSIG, signal);
  if (::getppid() != parent) ::_exit(0);  // it went in between
}

}  // namespace worker
