#include "worker/process_tree.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <map>
#include <thread>
#include <vector>

#include "worker/processes.h"

namespace worker {
namespace {

constexpr auto kPatience = std::chrono::seconds(5);

std::vector<pid_t> descendants() {
  std::map<pid_t, pid_t> parent_of;
  for (const auto& process : all_processes()) parent_of[process.pid] = process.parent;
  std::vector<pid_t> result;
  for (const auto& [pid, parent] : parent_of) {
    auto above = parent_of.find(pid);
    while (above != parent_of.end() && above->second != ::getpid()) above = parent_of.find(above->second);
    if (above != parent_of.end()) result.push_back(pid);
  }
  return result;
}

}  // namespace

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
