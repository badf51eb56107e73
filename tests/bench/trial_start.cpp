// What it costs to start a trial on a warm worker, over its training: a conversation with a worker over its
// channel, trials of 1 and of 11 steps taking turns.
//
//   bench_trial_start WORKER [TRIALS [SPEC.json]]
//
// A step is a tenth of the difference of the medians; the start is the median of a 1-step trial less one step
// (model, optimizer, initial weights, messages, and one evaluation of a single sequence). In wall time from
// Assign to Ended, and in the worker's own CPU time, which other programs on the machine disturb less.

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "worker/protocol.h"

namespace {

using namespace worker;

constexpr int kMoreSteps = 10;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A worker process and our end of its channel.
class WorkerProcess {
 public:
  explicit WorkerProcess(const char* program) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
      throw std::runtime_error("socketpair");
    child_ = ::fork();
    if (child_ == 0) {
      // dup2 onto itself would keep close-on-exec.
      if (ends[1] == kChannelDescriptor)
        ::fcntl(ends[1], F_SETFD, 0);
      else
        ::dup2(ends[1], kChannelDescriptor);
      ::execl(program, program, "--device", "cpu", nullptr);
      ::_exit(127);
    }
    ::close(ends[1]);
    descriptor_ = ends[0];
  }
  ~WorkerProcess() {
    ::close(descriptor_);
    ::waitpid(child_, nullptr, 0);
  }

  void say(const OrchestratorMessage& message) {
    const auto frame = encode(message);
    if (::send(descriptor_, frame.data(), frame.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(frame.size())) {
      throw std::runtime_error("the worker has gone");
    }
  }
  /// On a CPU so far, from the kernel's scheduler.
  double cpu_seconds() const {
    std::ifstream schedule("/proc/" + std::to_string(child_) + "/schedstat");
    double nanoseconds = 0;
    schedule >> nanoseconds;
    return 1e-9 * nanoseconds;
  }

  template <class T>
  T hear_a() {
    while (true) {
      const auto message = hear();
      if (const auto* wanted = std::get_if<T>(&message)) return *wanted;
    }
  }

 private:
  WorkerMessage hear() {
    const auto length = read(4);
    return decode_worker_message(read(payload_length(std::span(length).first<4>())));
  }
  std::vector<std::uint8_t> read(std::size_t count) {
    std::vector<std::uint8_t> bytes(count);
    for (std::size_t done = 0; done < count;) {
      const ssize_t got = ::recv(descriptor_, bytes.data() + done, count - done, 0);
      if (got <= 0) throw std::runtime_error("the worker has gone");
      done += static_cast<std::size_t>(got);
    }
    return bytes;
  }

  int descriptor_ = -1;
  pid_t child_ = -1;
};

/// The proxy of examples/gcide in shape, on the teacher: d = 128, L = 4, T = 128, B = 8.
sweeps::TrialSpec default_spec() {
  sweeps::TrialSpec spec;
  spec.run.shape.vocab = 128;
  spec.run.batch = 8;
  spec.eval.tokens = 128;
  return spec;
}

struct Cost {
  double wall = 0;  // seconds
  double cpu = 0;
};
Cost time_trial(WorkerProcess& process, sweeps::TrialSpec spec, int steps) {
  spec.run.steps = spec.proxy.steps = steps;
  Assignment assignment;
  assignment.trial = sweeps::trial_key(spec);
  assignment.spec = spec;
  const double wall = now(), cpu = process.cpu_seconds();
  process.say(Assign{{assignment}});
  process.hear_a<Ended>();
  return {now() - wall, process.cpu_seconds() - cpu};
}

struct Samples {
  std::vector<double> shorter;
  std::vector<double> longer;
};
double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.at(values.size() / 2);
}
void print(const char* clock, const Samples& samples) {
  const double step = (median(samples.longer) - median(samples.shorter)) / kMoreSteps;
  std::printf("%-4s  step %.1f ms, start of a trial %.1f ms\n", clock, 1e3 * step,
              1e3 * (median(samples.shorter) - step));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_trial_start WORKER [TRIALS [SPEC.json]]\n");
    return 2;
  }
  const int trials = argc > 2 ? std::atoi(argv[2]) : 30;
  sweeps::TrialSpec spec = default_spec();
  if (argc > 3) {
    std::ifstream input(argv[3]);
    spec = spec_from_json(nlohmann::json::parse(std::string(std::istreambuf_iterator<char>(input), {})));
  }
  spec.run.steps = spec.proxy.steps = 1;
  spec.proxy = spec.run;

  const double begin = now();
  WorkerProcess process(argv[1]);
  process.hear_a<Hello>();
  std::printf("worker up after %.0f ms\n", 1e3 * (now() - begin));
  const auto cold = time_trial(process, spec, 1);
  std::printf("first trial: %.1f ms\n", 1e3 * cold.wall);

  Samples wall, cpu;
  for (int i = 0; i < trials; ++i) {
    spec.base.lr = 1e-3 * (2 + i);
    for (const bool longer : {false, true}) {
      const auto cost = time_trial(process, spec, longer ? 1 + kMoreSteps : 1);
      (longer ? wall.longer : wall.shorter).push_back(cost.wall);
      (longer ? cpu.longer : cpu.shorter).push_back(cost.cpu);
    }
  }
  print("wall", wall);
  print("CPU", cpu);
}
