#include "orchestrator/worker_process.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

#include "orchestrator/exit_code.h"
#include "orchestrator/owner_lock.h"
#include "orchestrator/process_tree.h"
#include "orchestrator/run_cgroup.h"
#include "worker/processes.h"

namespace orchestrator {

struct Family {
  explicit Family(std::string run_mark) : mark(std::move(run_mark)) {
    if (mark.empty()) return;
    worker::adopt_orphans();
    if (auto group = run_cgroup(mark); make_cgroup(group)) cgroup = std::move(group);
  }
  ~Family() { end_cgroup(cgroup); }
  Family(const Family&) = delete;
  Family& operator=(const Family&) = delete;

  /// A group for one more worker; empty without control groups.
  std::filesystem::path next_cgroup() {
    const auto group = cgroup / fmt::format("worker-{}", ++num_groups);
    return !cgroup.empty() && make_cgroup(group) ? group : std::filesystem::path();
  }

  std::string mark;
  std::filesystem::path cgroup;  // of the run; empty where it may not make one
  int num_groups = 0;
  std::set<pid_t> workers;
};

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Socket = asio::local::stream_protocol::socket;

// Where the kernel cannot tell when a process ends (pidfd, Linux 5.3), it is asked so often.
constexpr auto kPollEvery = std::chrono::milliseconds(2);
// What a worker printed last may still lie in the pipe when its end is known.
constexpr auto kUnkillable = std::chrono::seconds(10);
constexpr auto kOutputGrace = std::chrono::milliseconds(200);
constexpr std::size_t kFirstPart = 64 << 10;  // bytes of a message; the next part is as large as those before

/// A descriptor that is closed with its owner.
struct Descriptor {
  int value = -1;
  explicit Descriptor(int descriptor) : value(descriptor) {}
  Descriptor(Descriptor&& other) noexcept : value(std::exchange(other.value, -1)) {}
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
  int release() { return std::exchange(value, -1); }
};

struct Pair {
  Descriptor ours, theirs;
};
[[noreturn]] void throw_errno(const std::string& what) {
  throw ExitError(kEnvironment, fmt::format("{}: {}", what, std::strerror(errno)));
}
Pair make_channel() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw_errno("cannot make a socket pair");
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}
Pair make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw_errno("cannot make a pipe");
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

/// Runs in the child between fork and exec: system calls only.
[[noreturn]] void become_worker(const char* program, char* const* arguments, char* const* environment,
                                int channel, int output, int failed, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // the parent ended before the line above
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  const int input = ::open("/dev/null", O_RDONLY);
  // Out of the way of 0 to 3 first; dup2 clears close-on-exec.
  const int channel_copy = ::fcntl(channel, F_DUPFD, 16);
  const int output_copy = ::fcntl(output, F_DUPFD, 16);
  const int failed_copy = ::fcntl(failed, F_DUPFD_CLOEXEC, 16);
  if (input >= 0 && ::dup2(input, 0) >= 0 && ::dup2(output_copy, 1) >= 0 && ::dup2(output_copy, 2) >= 0 &&
      ::dup2(channel_copy, worker::kChannelDescriptor) >= 0) {
    ::close(channel_copy);
    ::close(output_copy);
    if (input > worker::kChannelDescriptor) ::close(input);
    ::execve(program, arguments, environment);
  }
  const int error = errno;
  [[maybe_unused]] const auto written = ::write(failed_copy, &error, sizeof error);
  ::_exit(127);
}

/// Our environment, with one thread a worker (two on the same cores spin at each other's barriers).
std::vector<std::string> worker_environment(const DeviceSlot& slot, const std::string& mark) {
  std::vector<std::string> variables = {"OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1",
                                        "CUDA_DEVICE_ORDER=PCI_BUS_ID"};
  if (!slot.uuid.empty()) variables.push_back("CUDA_VISIBLE_DEVICES=" + slot.uuid);
  if (!mark.empty()) variables.push_back(fmt::format("{}={}", kMarkVariable, mark));
  const auto chosen = variables;
  for (char** variable = environ; *variable; ++variable) {
    const std::string_view text = *variable;
    const auto same_name = [&](const std::string& other) {
      return text.starts_with(std::string_view(other).substr(0, other.find('=') + 1));
    };
    if (std::none_of(chosen.begin(), chosen.end(), same_name)) variables.emplace_back(text);
  }
  return variables;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

/// Forks into a control group; not into it where there is none, or where the kernel (before 5.7) or a
/// container's rules do not allow it.
pid_t fork_into(const fs::path& group) {
  if (const Descriptor folder(group.empty() ? -1 : ::open(group.c_str(), O_DIRECTORY | O_CLOEXEC));
      folder.value >= 0) {
    clone_args how{};
    how.flags = CLONE_INTO_CGROUP;
    how.exit_signal = SIGCHLD;
    how.cgroup = static_cast<std::uint64_t>(folder.value);
    if (const auto pid = ::syscall(SYS_clone3, &how, sizeof how); pid >= 0) return static_cast<pid_t>(pid);
  }
  return ::fork();
}

pid_t spawn(const fs::path& program, const DeviceSlot& slot, const std::string& mark, const fs::path& group,
            int channel, int output) {
  Pair failed = make_pipe();
  // Of the GPUs there is one that it sees.
  std::vector<std::string> arguments = {program.string(), "--device", slot.uuid.empty() ? slot.device : "cuda:0"};
  std::vector<std::string> environment = worker_environment(slot, mark);
  const auto argument_pointers = pointers(arguments);
  const auto environment_pointers = pointers(environment);
  const pid_t parent = ::getpid();
  const pid_t pid = fork_into(group);
  if (pid < 0) throw_errno("cannot start a process");
  if (pid == 0)
    become_worker(program.c_str(), argument_pointers.data(), environment_pointers.data(), channel, output,
                  failed.theirs.value, parent);
  ::close(failed.theirs.release());
  int error = 0;
  ssize_t size = 0;
  while ((size = ::read(failed.ours.value, &error, sizeof error)) < 0 && errno == EINTR) {
  }
  if (size == sizeof error) {
    ::waitpid(pid, nullptr, 0);
    throw ExitError(kEnvironment,
                    fmt::format("{}: cannot be run: {}", program.string(), std::strerror(error)));
  }
  return pid;
}

/// Cancels what is pending on a socket when the time is up; safe when either goes first.
class Deadline {
 public:
  Deadline(Socket& socket, std::chrono::duration<double> patience) : timer_(socket.get_executor()) {
    timer_.expires_after(std::chrono::duration_cast<Clock::duration>(patience));
    timer_.async_wait([&socket, passed = passed_, over = over_](const boost::system::error_code& error) {
      if (error || *over) return;
      *passed = true;
      socket.cancel();
    });
  }
  ~Deadline() { *over_ = true; }
  bool passed() const { return *passed_; }

 private:
  asio::steady_timer timer_;
  std::shared_ptr<bool> passed_ = std::make_shared<bool>(false);
  std::shared_ptr<bool> over_ = std::make_shared<bool>(false);
};

class WorkerProcess : public Worker {
 public:
  WorkerProcess(asio::io_context& context, const fs::path& program, const DeviceSlot& slot,
                std::shared_ptr<Family> family)
      : family_(std::move(family)),
        channel_(std::make_shared<Channel>(context)),
        output_(std::make_shared<Output>(context)),
        oom_kills_(worker::num_oom_kills()),
        group_(family_->next_cgroup()) {
    Pair channel = make_channel();
    Pair output = make_pipe();
    pid_ = spawn(program, slot, family_->mark, group_, channel.theirs.value, output.theirs.value);
    family_->workers.insert(pid_);
    channel_->socket.assign(asio::local::stream_protocol(), channel.ours.release());
    output_->pipe.assign(output.ours.release());
    output_->owner = this;
    asio::co_spawn(context, pump(output_), asio::detached);
    if (const auto exit = ::syscall(SYS_pidfd_open, pid_, 0); exit >= 0) {
      output_->exit.assign(static_cast<int>(exit));
      asio::co_spawn(context, await_exit(output_), asio::detached);
    }
  }

  ~WorkerProcess() override {
    output_->owner = nullptr;
    boost::system::error_code ignored;
    output_->pipe.close(ignored);
    output_->exit.close(ignored);
    channel_->socket.close(ignored);
    kill();
    if (stuck_) return;
    if (!status_) ::waitpid(pid_, nullptr, 0);
    end_family();
  }

  awaitable<void> send(worker::OrchestratorMessage message) override {
    return write(channel_, std::move(message));
  }

  awaitable<std::optional<worker::WorkerMessage>> receive(std::chrono::duration<double> patience) override {
    Deadline deadline(channel_->socket, patience);
    std::array<std::uint8_t, 4> length{};
    std::vector<std::uint8_t> payload;
    bool open = co_await fill(asio::buffer(length), deadline);
    // A length is believed as far as there are bytes: whoever sends none takes no memory.
    const std::size_t size = open ? worker::payload_length(length) : 0;
    while (open && payload.size() < size) {
      const std::size_t had = payload.size();
      payload.resize(std::min(size, std::max(2 * had, kFirstPart)));
      open = co_await fill(asio::buffer(payload) + had, deadline);
    }
    if (deadline.passed()) throw Stalled(fmt::format("no sign of life for {:.0f} s", patience.count()));
    if (!open) co_return std::nullopt;
    co_return worker::decode_worker_message(payload);
  }

  awaitable<WorkerEnd> end(std::chrono::duration<double> patience) override {
    const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(patience);
    bool killed = false;
    while (!reap()) {
      if (!killed && Clock::now() >= deadline) {
        kill();
        killed = true;
      }
      if (killed && Clock::now() >= deadline + kUnkillable) {
        stuck_ = true;
        co_return WorkerEnd{sweeps::FailureClass::worker_lost,
                            fmt::format("pid {} does not end, not even by SIGKILL", pid_), true};
      }
      const auto next = output_->exit.is_open() && !killed ? deadline : Clock::now() + kPollEvery;
      co_await output_->wait_until(next);
    }
    const auto grace = Clock::now() + kOutputGrace;
    while (!output_->at_end && Clock::now() < grace) co_await output_->wait_until(grace);
    co_return killed ? WorkerEnd{sweeps::FailureClass::worker_lost, "did not end by itself and was killed"}
                     : describe();
  }

  void kill() override {
    if (!reap()) ::kill(-pid_, SIGKILL);
  }

  void terminate() override {
    if (!reap()) ::kill(-pid_, SIGTERM);
  }

  bool alive() override { return !reap(); }

  std::int64_t pid() const override { return pid_; }

 private:
  /// Our end of the conversation. Outlives the worker object while something is being written.
  struct Channel {
    explicit Channel(asio::io_context& context) : socket(context) {}
    Socket socket;
    std::deque<std::vector<std::uint8_t>> frames;
  };

  /// False when the channel or the time has ended before all of `rest` was there. The time may end between
  /// two reads, when there is nothing that it could cancel, so it is asked for before each.
  awaitable<bool> fill(asio::mutable_buffer rest, const Deadline& deadline) {
    boost::system::error_code error;
    while (rest.size() > 0 && !error && !deadline.passed())
      rest += co_await channel_->socket.async_read_some(rest, asio::redirect_error(use_awaitable, error));
    co_return rest.size() == 0;
  }

  static awaitable<void> write(std::shared_ptr<Channel> channel, worker::OrchestratorMessage message) {
    auto& frames = channel->frames;
    frames.push_back(worker::encode(message));
    if (frames.size() > 1) co_return;  // whoever is writing goes on with it
    while (!frames.empty()) {
      boost::system::error_code error;
      co_await asio::async_write(channel->socket, asio::buffer(frames.front()),
                                 asio::redirect_error(use_awaitable, error));
      frames.pop_front();
      if (error) {
        frames.clear();
        throw boost::system::system_error(error);
      }
    }
  }

  /// The read end of the worker's output, and its exit. Outlives the worker object until its coroutines have
  /// noticed.
  struct Output {
    explicit Output(asio::io_context& context) : pipe(context), exit(context), news(context) {}
    /// Until then, or something of the below has ended.
    awaitable<void> wait_until(Clock::time_point time) {
      news.expires_at(time);
      boost::system::error_code cancelled;
      co_await news.async_wait(asio::redirect_error(use_awaitable, cancelled));
    }
    asio::posix::stream_descriptor pipe;
    asio::posix::stream_descriptor exit;  // readable when the process has ended
    asio::steady_timer news;
    WorkerProcess* owner = nullptr;
    bool at_end = false;
  };

  static awaitable<void> pump(std::shared_ptr<Output> output) {
    std::array<char, 4096> buffer;
    boost::system::error_code error;
    while (true) {
      const auto size = co_await output->pipe.async_read_some(asio::buffer(buffer),
                                                              asio::redirect_error(use_awaitable, error));
      if (error) break;
      if (output->owner && output->owner->on_output) output->owner->on_output({buffer.data(), size});
    }
    output->at_end = true;
    output->news.cancel();
  }

  static awaitable<void> await_exit(std::shared_ptr<Output> output) {
    boost::system::error_code closed;
    co_await output->exit.async_wait(asio::posix::stream_descriptor::wait_read,
                                     asio::redirect_error(use_awaitable, closed));
    output->news.cancel();
  }

  bool reap() {
    if (status_) return true;
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return false;
    status_ = status;
    end_family();
    return true;
  }

  /// What it started and left behind: its process group, its control group, and those that came to us as
  /// orphans.
  void end_family() {
    ::kill(-pid_, SIGKILL);
    end_cgroup(group_, 1);
    family_->workers.erase(pid_);
    if (!family_->mark.empty()) end_orphans(family_->mark, family_->workers);
  }

  WorkerEnd describe() const {
    using sweeps::FailureClass;
    if (WIFSIGNALED(*status_)) {
      const int signal = WTERMSIG(*status_);
      const std::string message = fmt::format("signal {} ({})", signal, ::strsignal(signal));
      if (signal != SIGKILL) return {FailureClass::crash, message};
      if (worker::num_oom_kills() > oom_kills_)
        return {FailureClass::oom_host, message + ", the machine ran out of memory"};
      return {FailureClass::worker_lost, message};
    }
    const int code = WEXITSTATUS(*status_);
    if (code == worker::kDeviceFaultExit)
      return {FailureClass::gpu_lost, fmt::format("exit code {}: the device failed", code)};
    return {code == 0 ? FailureClass::worker_lost : FailureClass::crash, fmt::format("exit code {}", code)};
  }

  std::shared_ptr<Family> family_;
  std::shared_ptr<Channel> channel_;
  std::shared_ptr<Output> output_;
  std::int64_t oom_kills_;
  fs::path group_;
  pid_t pid_ = -1;
  std::optional<int> status_;
  bool stuck_ = false;
};

}  // namespace

fs::path find_worker_program(models::ModelFamily family) {
  const bool command = family == models::ModelFamily::command;
  const char* const variable = command ? "TUNEONCE_COMMAND_WORKER" : "TUNEONCE_WORKER";
  const std::string program = command ? "tuneonce-command" : "tuneonce-worker";
  if (const char* named = std::getenv(variable)) {
    if (::access(named, X_OK) == 0) return named;
    throw ExitError(kEnvironment, fmt::format("{}={}: {}", variable, named, std::strerror(errno)));
  }
  const auto folder = fs::read_symlink("/proc/self/exe").parent_path();
  const std::array places = {folder / program, folder.parent_path() / "libexec/tuneonce" / program};
  for (const auto& place : places)
    if (::access(place.c_str(), X_OK) == 0) return place;
  throw ExitError(kEnvironment,
                  fmt::format("{}: not found, neither {} nor {}; build it, or name it in {}", program,
                              places[0].string(), places[1].string(), variable));
}

void check_program(const sweeps::CommandSpec& command, const fs::path& study_file) {
  const auto& program = command.words.front();
  if (program.find('{') != std::string::npos) return;
  const bool named = program.find('/') != std::string::npos;
  const char* path = std::getenv("PATH");
  std::istringstream folders(named ? command.folder : path ? path : "/bin:/usr/bin");
  for (std::string folder; std::getline(folders, folder, named ? '\0' : ':');)
    if (const auto file = fs::path(folder) / program;
        ::access(file.c_str(), X_OK) == 0 && !fs::is_directory(file))
      return;
  throw ExitError(kUsage,
                  fmt::format("{}: [model] command: there is no program {} {}", study_file.string(), program,
                              named ? "that can be run, seen from " + command.folder : "on the PATH"));
}

ProcessLauncher::ProcessLauncher(asio::io_context& context, fs::path program, std::string mark)
    : context_(context),
      program_(std::move(program)),
      family_(std::make_shared<Family>(std::move(mark))) {}

std::unique_ptr<Worker> ProcessLauncher::start(const DeviceSlot& slot) {
  return std::make_unique<WorkerProcess>(context_, program_, slot, family_);
}

std::string ProcessLauncher::host() const { return host_name(); }

}  // namespace orchestrator
