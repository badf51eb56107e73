#include "orchestrator/process_tree.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <optional>
#include <sstream>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "orchestrator/exit_code.h"
#include "orchestrator/run_cgroup.h"
#include "sweeps/trial.h"
#include "worker/processes.h"

namespace orchestrator {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

std::string mark_of(const fs::path& database) {
  // Absolute first: weakly_canonical() leaves a relative name that is not there yet as it is, the same in any folder.
  return fmt::format("{:016x}:", sweeps::derived_seed(0, fs::weakly_canonical(fs::absolute(database)).string()));
}

/// The mark that a process was started with; empty where it has none or has ended.
std::string mark_in(pid_t pid) {
  const std::string environment = '\0' + worker::read_proc(fmt::format("/proc/{}/environ", pid));
  const std::string name = '\0' + fmt::format("{}=", kMarkVariable);
  const auto found = environment.find(name);
  if (found == environment.npos) return "";
  return environment.c_str() + found + name.size();
}

/// Ends every process whose mark is chosen, again and again, since what is being ended may start more.
int end_all(const std::function<bool(const std::string& mark)>& chosen, double seconds) {
  const auto deadline = Clock::now() + std::chrono::duration<double>(seconds);
  std::set<pid_t> seen;
  while (true) {
    bool any = false;
    for (const auto& process : worker::all_processes()) {
      const auto mark = process.pid == ::getpid() ? "" : mark_in(process.pid);
      if (mark.empty() || !chosen(mark)) continue;
      any = true;
      seen.insert(process.pid);
      ::kill(process.pid, SIGKILL);
    }
    if (!any || Clock::now() > deadline) return static_cast<int>(seen.size());
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

/// A mark of the database, whose run is not there any more.
bool is_left_behind(const std::string& mark, const std::string& database_mark) {
  if (!mark.starts_with(database_mark)) return false;
  std::istringstream owner(mark.substr(database_mark.size()));
  pid_t pid = 0;
  char dot = 0;
  std::int64_t started = 0;
  owner >> pid >> dot >> started;
  const auto run = worker::find_process(pid);
  return !run || run->started != started;
}

/// Our own children, those that were adopted with them.
std::vector<pid_t> children() {
  std::istringstream list(worker::read_proc(fmt::format("/proc/self/task/{}/children", ::getpid())));
  return {std::istream_iterator<pid_t>(list), {}};
}

/// "key: 123 kB" of /proc/meminfo, bytes.
std::int64_t meminfo(std::string_view key) {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (std::int64_t value = 0; file >> name >> value; std::getline(file, unit))
    if (name == key) return value * 1024;
  return std::numeric_limits<std::int64_t>::max();
}

std::optional<std::int64_t> number_in(const fs::path& file) {
  std::ifstream stream(file);
  std::int64_t value = 0;
  return stream >> value ? std::optional(value) : std::nullopt;
}

}  // namespace

std::string run_mark(const fs::path& database) {
  const auto self = worker::find_process(::getpid());
  return fmt::format("{}{}.{}", mark_of(database), ::getpid(), self ? self->started : 0);  // pids come again
}

int end_marked(const fs::path& database, double seconds) {
  const auto prefix = mark_of(database);
  const int ended = end_all([&](const std::string& mark) { return is_left_behind(mark, prefix); }, seconds);
  for (const auto& mark : marks_of_run_cgroups())
    if (is_left_behind(mark, prefix)) end_cgroup(run_cgroup(mark), seconds);
  return ended;
}

void end_orphans(const std::string& mark, const std::set<pid_t>& known) {
  for (int round = 0; round < 100; ++round) {
    bool any = false;
    for (const pid_t pid : children()) {
      if (known.contains(pid)) continue;
      if (mark_in(pid) != mark) {
        ::waitpid(pid, nullptr, WNOHANG);  // one that has ended has no mark any more
        continue;
      }
      any = true;
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);  // its own children come to us and are met in the next round
    }
    if (!any) return;
  }
}

Guard::Guard(const fs::path& database) {
  const std::string mark = run_mark(database);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw ExitError(kEnvironment, fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  pid_ = ::fork();
  if (pid_ < 0)
    throw ExitError(kEnvironment, fmt::format("cannot start a process: {}", std::strerror(errno)));
  if (pid_ > 0) {
    ::close(ends[0]);
    alive_ = ends[1];
    return;
  }
  // Out of the terminal's reach, with nothing of the run's open.
  ::setsid();
  ::prctl(PR_SET_NAME, "tuneonce-guard");
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::signal(number, SIG_IGN);
  const int pipe = ::dup2(ends[0], 0);
  ::close_range(1, ~0u, 0);
  char byte = 0;
  ssize_t size = 0;
  while ((size = ::read(pipe, &byte, 1)) < 0 && errno == EINTR) {
  }
  if (size == 0) {
    end_cgroup(run_cgroup(mark), 60);
    end_all([&](const std::string& found) { return found == mark; }, 60);
  }
  ::_exit(0);
}

Guard::~Guard() {
  if (pid_ <= 0) return;
  [[maybe_unused]] const auto written = ::write(alive_, "q", 1);
  ::close(alive_);
  ::waitpid(pid_, nullptr, 0);
}

std::int64_t resident_bytes(pid_t pid, bool with_family) {
  if (!with_family) {
    const auto process = worker::find_process(pid);
    return process ? process->resident : 0;
  }
  const auto all = worker::all_processes();
  std::set<pid_t> family;
  std::int64_t bytes = 0;
  for (bool grew = true; grew;) {
    grew = false;
    for (const auto& process : all) {
      const bool ours = process.pid == pid || process.group == pid || family.contains(process.parent);
      if (!ours || !family.insert(process.pid).second) continue;
      bytes += process.resident;
      grew = true;
    }
  }
  return bytes;
}

std::int64_t host_memory_left() {
  const auto available = meminfo("MemAvailable:");
  const auto limit = number_in("/sys/fs/cgroup/memory.max"), used = number_in("/sys/fs/cgroup/memory.current");
  return limit && used ? std::min(available, std::max<std::int64_t>(0, *limit - *used)) : available;
}

}  // namespace orchestrator
