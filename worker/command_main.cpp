// tuneonce-command: runs the user's own program for each trial. Started by `tuneonce run`.

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

#include "worker/channel.h"
#include "worker/command_runner.h"
#include "worker/process_tree.h"
#include "worker/processes.h"

namespace {

constexpr int kDone = 0, kBadInput = 2;

constexpr const char* kUsage =
    "tuneonce-command: runs the program of a study of family \"command\" for tuneonce.\n"
    "\n"
    "  tuneonce-command [--device D]   serve the orchestrator on descriptor 3\n"
    "  tuneonce-command --version\n"
    "\n"
    "  --device D    cpu (default) or cuda:N; the program sees this one only\n"
    "\n"
    "Exit: 0 done, 2 bad input.\n";

int serve(const std::string& device) {
  worker::adopt_orphans();
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  worker::Channel channel(worker::kChannelDescriptor);
  try {
    worker::serve_commands(channel, device);
  } catch (const worker::ChannelClosed&) {
  } catch (const worker::ProtocolError& error) {
    std::fprintf(stderr, "tuneonce-command: %s\n", error.what());
    return kBadInput;
  }
  return kDone;
}

/// Outlives the runner and inherits what it leaves behind when it is killed. When this process is killed, the
/// runner is told by SIGTERM and ends everything; it is in a session of its own, so that nobody kills both at
/// once.
int guard(pid_t runner) {
  worker::adopt_orphans();
  ::close(worker::kChannelDescriptor);
  int status = 0;
  while (::waitpid(runner, &status, 0) < 0 && errno == EINTR) {
  }
  worker::kill_descendants();
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  std::signal(WTERMSIG(status), SIG_DFL);
  ::raise(WTERMSIG(status));
  return 128 + WTERMSIG(status);
}

int run(int argc, char** argv, pid_t parent) {
  std::string device = "cpu";
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--device" && i + 1 < argc) {
      device = argv[++i];
    } else if (word == "--version") {
      std::printf("tuneonce-command %s, protocol %d\n", TUNEONCE_VERSION, worker::kProtocolVersion);
      return kDone;
    } else if (word == "--help" || word == "-h") {
      std::fputs(kUsage, stdout);
      return kDone;
    } else {
      std::fprintf(stderr, "tuneonce-command: unknown argument \"%s\", or it needs a value; see --help\n",
                   argv[i]);
      return kBadInput;
    }
  }
  if (!worker::has_channel()) {
    std::fputs(
        "tuneonce-command: descriptor 3 is not a socket: `tuneonce run` starts this program; see --help\n",
        stderr);
    return kBadInput;
  }
  worker::tie_to_parent(parent, SIGKILL);
  const pid_t self = ::getpid();
  const pid_t runner = ::fork();
  if (runner < 0) {
    std::perror("tuneonce-command: fork");
    return kBadInput;
  }
  if (runner > 0) return guard(runner);
  ::setsid();
  worker::tie_to_parent(self, SIGTERM);
  return serve(device);
}

}  // namespace

int main(int argc, char** argv) {
  const pid_t parent = ::getppid();
  try {
    return run(argc, argv, parent);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tuneonce-command: %s\n", error.what());
    return 1;
  }
}
