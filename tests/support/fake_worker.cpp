// A worker without LibTorch: speaks the protocol on descriptor 3 and answers every trial from an analytic
// loss surface at once, so that a whole study runs in a second. TUNEONCE_FAKE, words separated by blanks,
// makes it misbehave:
// clang-format off
//   dir=FOLDER       where it counts things across processes (needed by the words below that count)
//   noop=1           trains nothing: every trial begins and ends at once
//   sleep_ms=N       time per trial, in ten checkpointed pieces
//   crash=N          the N-th trial started (across all workers) ends the process by SIGSEGV
//   crash_name=TEXT  every attempt of a trial whose name contains TEXT does
//   crash_first=N    the first N attempts of every trial end the process by SIGSEGV; with crash_name: of those
//   hang=N           the N-th trial started never ends
//   hang_name=TEXT   no attempt of such a trial ends
//   garbage=N        the N-th trial started answers with bytes that are no message
//   slow=N           the N-th trial started takes a minute, unless it is told to stop
//   stranger=1       speaks of a trial nobody gave it, before each result
//   fail_name=TEXT   (like every ..._name a list with commas; _ is a blank) a trial whose name contains TEXT is
//                    refused as the user's error
//   version=N        says hello with protocol N
//   bad_data=1       refuses the data
//   lag=LR           trials below this LR learn late: 0.6 nats behind at half of the run, nothing at its end
//   wait_ms=N        such a trial waits at half of the run until it is spoken to, at most so long
//   grows=EXPONENT   a probed model's head updates grow by this power of its width
//   samples=1        targets draw two pictures of one pixel
//   shift=OCTAVES    the targets' optimum lies this far from the proxy's in LR
//   lie=A,B          before each result: twice (the result comes twice), other (the result of a trial that another
//                    worker trains; needs dir), attempt (of the next attempt), late (of the attempt before),
//                    backwards (a step below the last), beyond (a step above the trial's)
//   lazy=1           writes a checkpoint only when it is told to stop
//   odd_name=TEXT    such a trial's loss is odd=VALUE from half of its steps on: nan, inf, -inf, a number
//   oom_name=TEXT    the first attempt of such a trial ends for lack of GPU memory; oom_times=N: the first N;
//                    oom_step=N: not before step N; oom_saving=1: while it writes that step's checkpoint
//   crowd=N          a trial goes on when N have been started, or after 20 s
//   fault_gpu=UUID   the first fault_times=N trials on that GPU end their worker by the exit code of a device fault
//   devices=1        each trial leaves its process and CUDA_VISIBLE_DEVICES, a line in dir/devices
//   junk=N           of the first 2 N trials started every second one: bytes that are no message, each time others
//                    (seed=N)
//   drip=N           the first N trials started: a byte a second, or every drip_ms=N
//   deaf=N           the worker of the N-th trial started reads nothing more once that trial has ended
//   rows=N           N times a trial, each after a millisecond, one more curve point
//   print_mib=N      prints so many MiB a trial
//   eat_mib=N        takes so much memory; with eat_name: of such trials
//   children=N       starts N processes, the last in a session of its own, and writes their ids to dir/children
//   strays=N         the same, each in a session of its own with an empty environment and without its parent
//   deaf_to_term=1   SIGTERM does nothing to it; it leaves a line in dir/terms
//   stays=1          never exits
// clang-format on
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <poll.h>
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <map>
#include <random>
#include <sstream>

#include "worker/protocol.h"

namespace {

using namespace worker;

std::map<std::string, std::string> read_behaviour() {
  std::map<std::string, std::string> words;
  std::istringstream stream(std::getenv("TUNEONCE_FAKE") ? std::getenv("TUNEONCE_FAKE") : "");
  for (std::string word; stream >> word;) {
    const auto equals = word.find('=');
    words[word.substr(0, equals)] = equals == std::string::npos ? "1" : word.substr(equals + 1);
  }
  return words;
}
const std::map<std::string, std::string> behaviour = read_behaviour();

double number(const std::string& word, double otherwise = 0) {
  const auto it = behaviour.find(word);
  return it == behaviour.end() ? otherwise
                               : std::strtod(it->second.c_str(), nullptr);  // nan, inf and tiny, too
}
bool names(const std::string& word, const std::string& trial) {
  const auto it = behaviour.find(word);
  if (it == behaviour.end()) return false;
  std::istringstream texts(it->second);
  for (std::string text; std::getline(texts, text, ',');) {
    std::replace(text.begin(), text.end(), '_', ' ');
    if (trial.find(text) != std::string::npos) return true;
  }
  return false;
}

bool has_flag(const std::string& word, const std::string& flag) {
  const auto it = behaviour.find(word);
  return it != behaviour.end() && (',' + it->second + ',').find(',' + flag + ',') != std::string::npos;
}

/// Leaves a line, none where it is empty, in a file of the folder that fake workers share. Returns how many are
/// there; 0 without a folder.
int leave_line(const std::string& name, const std::string& line) {
  const auto it = behaviour.find("dir");
  if (it == behaviour.end()) return 0;
  const auto file = it->second + '/' + name;
  std::FILE* started = std::fopen(file.c_str(), "a+");
  if (!started) std::abort();
  ::flock(fileno(started), LOCK_EX);
  if (!line.empty()) std::fprintf(started, "%s\n", line.c_str());
  std::fflush(started);
  std::rewind(started);
  int lines = 0;
  for (int c; (c = std::fgetc(started)) != EOF;) lines += c == '\n';
  std::fclose(started);
  return lines;
}

bool read_all(void* bytes, std::size_t size) {
  auto* at = static_cast<char*>(bytes);
  while (size > 0) {
    const auto got = ::read(kChannelDescriptor, at, size);
    if (got <= 0) return false;
    at += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}
void write_all(const std::vector<std::uint8_t>& bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const auto put = ::write(kChannelDescriptor, bytes.data() + at, bytes.size() - at);
    if (put <= 0) std::exit(1);
    at += static_cast<std::size_t>(put);
  }
}
void say(const WorkerMessage& message) { write_all(encode(message)); }

std::optional<OrchestratorMessage> hear() {
  std::array<std::uint8_t, 4> length;
  if (!read_all(length.data(), length.size())) return std::nullopt;
  std::vector<std::uint8_t> payload(payload_length(length));
  if (!read_all(payload.data(), payload.size())) return std::nullopt;
  return decode_orchestrator_message(payload);
}
/// A message within this time?
bool is_spoken_to(int milliseconds) {
  pollfd channel{kChannelDescriptor, POLLIN, 0};
  int ready = 0;
  while ((ready = ::poll(&channel, 1, milliseconds)) < 0 && errno == EINTR) {
  }
  return ready > 0;
}

/// Held-out loss: a skewed bowl in log2 LR and log2 WD, a valley in init std, a little noise that only the
/// trial's key decides.
/// At a horizon below 1 the optimum lies 0.2 octaves of LR higher per halving.
double loss_of(const sweeps::TrialSpec& spec, double fraction = 1) {
  const bool target = spec.role != sweeps::TrialRole::proxy && spec.role != sweeps::TrialRole::scan;
  const double u = std::log2(spec.base.lr) + 8.3 - (target ? number("shift") : 0) + 0.2 * std::log2(fraction);
  const double v = std::log2(spec.base.wd) + 3.3;
  const double s = std::log2(spec.base.init_std / 0.06);
  const double k = 0.3;
  const double noise =
      static_cast<double>(std::stoull(sweeps::trial_key(spec).substr(0, 6), nullptr, 16)) / 0x1000000 - 0.5;
  double loss =
      3.0 + 0.02 * (std::exp(k * u) - 1 - k * u) / (k * k) + 0.004 * u * v + 0.012 * v * v / 2 + 0.03 * s * s;
  if (target) loss -= 0.2;
  if (spec.role == sweeps::TrialRole::check) loss += 0.05;
  return loss + 0.0004 * noise;
}

bool learns_late(const Assignment& a) { return a.spec.base.lr < number("lag"); }

/// Held-out losses after (first, last] updates.
Curve held_out(const Assignment& a, double loss, std::int64_t first, std::int64_t last) {
  Curve curve{a.trial, a.attempt, "eval_loss", {}, {}};
  const auto steps = a.spec.run.steps, every = sweeps::eval_interval(a.spec);
  const double pace = learns_late(a) ? 2.2 : 1;
  for (auto i = first + 1; i <= last; ++i) {
    if (i != steps && (every == 0 || i % every != 0)) continue;
    curve.steps.push_back(i);
    curve.values.push_back(loss + pace * (1 - static_cast<double>(i) / static_cast<double>(steps)));
  }
  return curve;
}

/// Sizes that move with nothing.
Probed probe(const Probe& request) {
  const auto width =
      static_cast<double>(request.spec.run.shape.width) / static_cast<double>(request.spec.proxy.shape.width);
  const auto steps = static_cast<std::size_t>(request.steps);
  Probed probed;
  probed.series.push_back({"loss", "loss", std::vector<double>(steps + 1, 3.0)});
  if (!request.layers) return probed;
  for (const char* layer : {"attention", "ffn", "stream"})
    probed.series.push_back({layer, "activation", std::vector<double>(steps + 1, 0.5)});
  probed.series.push_back(
      {"head", "effective", std::vector<double>(steps, std::pow(width, number("grows")))});
  return probed;
}

// --- the misbehaviour that takes more than a line ---

/// The trial that was started last by anybody but this worker, as "key attempt"; leaves its own there.
std::optional<Assignment> other_trial(const Assignment& own) {
  const auto it = behaviour.find("dir");
  if (it == behaviour.end()) return std::nullopt;
  Assignment other;
  const auto file = it->second + "/trained";
  std::ifstream before(file);
  for (Assignment read; before >> read.trial >> read.attempt;)
    if (read.trial != own.trial) other = read;
  std::ofstream(file, std::ios::app) << own.trial + ' ' + std::to_string(own.attempt) + '\n' << std::flush;
  if (other.trial.empty()) return std::nullopt;
  return other;
}

void lie(const Assignment& a, double loss, std::int64_t steps) {
  const sweeps::Outcome wrong = sweeps::Finished{loss - 1, 2.5, steps, 0.001};
  if (has_flag("lie", "attempt")) say(Ended{a.trial, a.attempt + 1, wrong});
  if (has_flag("lie", "late") && a.attempt > 1) say(Ended{a.trial, a.attempt - 1, wrong});
  if (has_flag("lie", "other"))
    if (const auto other = other_trial(a)) say(Ended{other->trial, other->attempt, wrong});
  if (has_flag("lie", "backwards")) say(Progress{a.trial, a.attempt, 0, 0.001});
  if (has_flag("lie", "beyond")) say(Progress{a.trial, a.attempt, steps + 1, 0.001});
}

/// Bytes that are no message, of a kind that `nth` decides: noise, half a frame and then nothing, a length
/// beyond every limit, deep nesting, the longest frame allowed of which only a byte comes.
void send_junk(int nth) {
  std::mt19937_64 random(static_cast<std::uint64_t>(number("seed")) + static_cast<std::uint64_t>(nth));
  std::vector<std::uint8_t> bytes;
  switch (nth % 5) {
    case 0:
      bytes.resize(4 + random() % 4096);
      for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
      break;
    case 1:
      bytes = encode(WorkerMessage(Progress{"k", 1, 1, 0.5}));
      bytes.resize(5 + random() % (bytes.size() - 5));
      break;
    case 2: bytes = {255, 255, 255, 255, 0}; break;
    case 3:
      write_all({0, 0, 0, kMaxFrameBytes >> 24, 1});
      ::usleep(100'000);
      break;
    default:
      bytes.assign(4 + (1 << 20), 0x81);
      for (int i = 0; i < 4; ++i)
        bytes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>((1 << 20) >> 8 * i);
  }
  write_all(bytes);
  std::exit(0);
}

void pause_for_ever() {
  while (true) ::pause();  // a signal that is handled ends one
}

void drip() {
  while (true) {
    write_all({1});
    ::usleep(static_cast<useconds_t>(1000 * number("drip_ms", 1000)));
  }
}

/// They hold none of our descriptors: only a signal ends them.
void start_children() {
  const auto count = static_cast<int>(number("children"));
  for (int i = 0; i < count; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      if (i + 1 == count) ::setsid();
      for (int descriptor = 0; descriptor < 16; ++descriptor) ::close(descriptor);
      while (true) ::pause();
    }
    std::ofstream(behaviour.at("dir") + "/children", std::ios::app) << std::to_string(pid) + '\n'
                                                                    << std::flush;
  }
}

void start_strays() {
  for (int i = 0; i < static_cast<int>(number("strays")); ++i) {
    if (::fork() > 0) continue;
    ::setsid();
    if (::fork() > 0) ::_exit(0);
    std::ofstream(behaviour.at("dir") + "/children", std::ios::app) << std::to_string(::getpid()) + '\n' << std::flush;
    for (int descriptor = 0; descriptor < 16; ++descriptor) ::close(descriptor);
    char name[] = "sleep", seconds[] = "600";
    char* const arguments[] = {name, seconds, nullptr};
    char* const environment[] = {nullptr};
    ::execve("/bin/sleep", arguments, environment);
    ::_exit(1);
  }
}

std::string visible_gpu() {
  const char* uuid = std::getenv("CUDA_VISIBLE_DEVICES");
  return uuid ? uuid : "";
}

/// Kept until the process ends.
void eat(double mebibytes) {
  static std::vector<std::vector<char>> eaten;
  for (int i = 0; i < static_cast<int>(mebibytes); ++i) eaten.emplace_back(1 << 20, 'x');
}

void print(double mebibytes) {
  const std::string line(1023, '.');
  for (int i = 0; i < static_cast<int>(mebibytes) * 1024; ++i) std::puts(line.c_str());
  std::fflush(stdout);
}

/// Steps done, as the checkpoint file says.
std::int64_t resumed_step(const Assignment& a) {
  std::ifstream file(a.checkpoint);
  std::int64_t step = 0;
  file >> step;
  return step;
}

/// True: it was not told to drain.
bool run_out_of_gpu_memory(const Assignment& a) {
  say(Ended{a.trial, a.attempt,
            sweeps::Failed{sweeps::FailureClass::oom_gpu, "CUDA out of memory: tried to allocate 2 GiB"}});
  return true;
}

/// False when told to drain.
bool train(const Assignment& a) {
  const auto& name = a.spec.name;
  const auto steps = a.spec.run.steps;
  if (behaviour.contains("noop")) {
    say(Started{a.trial, a.attempt, 0});
    say(Ended{a.trial, a.attempt, sweeps::Finished{3, std::nullopt, steps, 0}});
    return true;
  }
  const int nth = leave_line("started", name);
  std::int64_t step = resumed_step(a);
  say(Started{a.trial, a.attempt, step});
  std::printf("training %s from step %ld\n", name.c_str(), static_cast<long>(step));
  std::fflush(stdout);
  const bool crash_is_due =
      !behaviour.contains("crash_first") || a.attempt <= static_cast<int>(number("crash_first"));
  const bool crash_is_meant =
      behaviour.contains("crash_name") ? names("crash_name", name) : behaviour.contains("crash_first");
  if ((nth > 0 && nth == static_cast<int>(number("crash"))) || (crash_is_meant && crash_is_due))
    std::raise(SIGSEGV);
  if (nth % 2 == 1 && nth <= 2 * static_cast<int>(number("junk"))) send_junk(nth / 2);
  if (nth > 0 && nth <= static_cast<int>(number("drip"))) drip();
  if (behaviour.contains("devices")) leave_line("devices", std::to_string(::getpid()) + ' ' + visible_gpu());
  if (behaviour.contains("fault_gpu") && behaviour.at("fault_gpu") == visible_gpu() &&
      leave_line("faults", name) <= static_cast<int>(number("fault_times")))
    std::exit(kDeviceFaultExit);
  for (int i = 0; i < 2000 && leave_line("started", "") < static_cast<int>(number("crowd")); ++i)
    ::usleep(10'000);
  if (behaviour.contains("print_mib")) print(number("print_mib"));
  if (behaviour.contains("eat_mib") && (!behaviour.contains("eat_name") || names("eat_name", name)))
    eat(number("eat_mib"));
  if ((nth > 0 && nth == static_cast<int>(number("hang"))) || names("hang_name", name)) pause_for_ever();
  if (nth > 0 && nth == static_cast<int>(number("garbage"))) write_all({7, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7});
  if (behaviour.contains("stranger")) say(Ended{a.trial, a.attempt + 7, sweeps::Finished{}});
  if (names("fail_name", name)) {
    say(Ended{a.trial, a.attempt,
              sweeps::Failed{sweeps::FailureClass::user_error, "the context is too long"}});
    return true;
  }
  const bool is_odd = names("odd_name", name);
  const double odd = is_odd ? number("odd") : 0;
  const double loss = loss_of(a.spec);
  const bool is_slow = nth > 0 && nth == static_cast<int>(number("slow"));
  const auto say_points = [&](std::int64_t first, std::int64_t last) {
    Curve curve{a.trial, a.attempt, "train_loss", {}, {}};
    for (auto i = first; i < last; ++i) {
      curve.steps.push_back(i);
      curve.values.push_back(is_odd && 2 * i >= steps ? odd : loss + 2.0 / static_cast<double>(1 + i));
    }
    if (!curve.steps.empty()) say(curve);
    Curve evaluations = held_out(a, loss, first, last);
    for (std::size_t i = 0; i < evaluations.steps.size(); ++i)
      if (is_odd && 2 * evaluations.steps[i] >= steps) evaluations.values[i] = odd;
    if (!evaluations.steps.empty()) say(evaluations);
  };
  say_points(0, step);  // a resumed trial says its whole curve again
  const bool needs_too_much = names("oom_name", name) && a.attempt <= static_cast<int>(number("oom_times", 1));
  while (step < steps) {
    const auto is_due = [&] {
      return needs_too_much && step >= static_cast<std::int64_t>(number("oom_step"));
    };
    if (is_due() && !behaviour.contains("oom_saving")) return run_out_of_gpu_memory(a);
    const auto next = std::min(steps, step + std::max<std::int64_t>(1, steps / 10));
    say_points(step, next);
    step = next;
    say(Progress{a.trial, a.attempt, step, 0.001});
    const bool waits = learns_late(a) && 2 * step == steps && behaviour.contains("wait_ms");
    for (int row = 0; row < static_cast<int>(number("rows") / 10); ++row) {
      say(Curve{a.trial, a.attempt, "more", {step * 1000 + row}, {loss}});
      ::usleep(1000);
    }
    const double pause_ms = waits ? number("wait_ms") : is_slow ? 6000 : number("sleep_ms") / 10;
    const bool told = is_spoken_to(static_cast<int>(pause_ms));
    if ((a.checkpoint_seconds > 0 && step < steps && !behaviour.contains("lazy")) || told) {
      std::ofstream(a.checkpoint + ".new") << step;
      if (is_due() && behaviour.contains("oom_saving")) return run_out_of_gpu_memory(a);
      std::rename((a.checkpoint + ".new").c_str(), a.checkpoint.c_str());
      say(Checkpointed{a.trial, a.attempt, step, a.checkpoint, "none"});
    }
    if (told) {
      const auto message = hear();
      if (!message) std::exit(0);
      if (std::holds_alternative<Drain>(*message)) {
        say(Ended{a.trial, a.attempt, sweeps::Failed{sweeps::FailureClass::cancelled, "drained"}});
        return false;
      }
      if (const auto* cancel = std::get_if<Cancel>(&*message); cancel && cancel->trial == a.trial) {
        say(Ended{a.trial, a.attempt, sweeps::Failed{sweeps::FailureClass::cancelled, "cancelled"}});
        return true;
      }
    }
  }
  for (const auto& branch : sweeps::branch_points(a.spec))
    say(Branch{a.trial, a.attempt, branch.fraction, branch.steps, loss_of(a.spec, branch.fraction) + 0.1});
  if (!a.spec.branches.empty()) say(Branch{a.trial, a.attempt, 1, steps, loss});
  if (behaviour.contains("samples") && a.spec.role == sweeps::TrialRole::target)
    say(Sampled{a.trial, a.attempt, {1, 1, 1, {10, 200}, {100}}});
  lie(a, loss, steps);
  if (a.spec.base.lr > 0.05)
    say(Ended{a.trial, a.attempt, sweeps::Diverged{steps / 2, 0.001}});
  else
    say(Ended{a.trial, a.attempt, sweeps::Finished{is_odd ? odd : loss, 2.5, steps, 0.001}});
  if (has_flag("lie", "twice")) say(Ended{a.trial, a.attempt, sweeps::Finished{loss - 1, 2.5, steps, 0.001}});
  if (nth > 0 && nth == static_cast<int>(number("deaf"))) pause_for_ever();
  return true;
}

}  // namespace

int main() {
  if (behaviour.contains("deaf_to_term")) {
    static const std::string file = behaviour.contains("dir") ? behaviour.at("dir") + "/terms" : "/dev/null";
    struct sigaction note {};
    note.sa_handler = [](int) {
      const int terms = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
      (void)!::write(terms, "term\n", 5);
      ::close(terms);
    };
    note.sa_flags = SA_RESTART;
    ::sigaction(SIGTERM, &note, nullptr);
  }
  if (behaviour.contains("stays")) std::atexit(pause_for_ever);
  if (behaviour.contains("children")) start_children();
  if (behaviour.contains("strays")) start_strays();
  say(Hello{.protocol = static_cast<int>(number("version", kProtocolVersion)),
            .build = "fake",
            .device = "cpu",
            .device_name = "none"});
  while (const auto message = hear()) {
    if (std::holds_alternative<Drain>(*message)) return 0;
    if (std::holds_alternative<Inspect>(*message)) {
      if (behaviour.contains("bad_data"))
        say(Refused{sweeps::FailureClass::user_error, "data: the text is all one byte"});
      else
        say(Inspected{"fake-fingerprint", 1'000'000, 20'000, "analytic surface"});
    }
    if (std::holds_alternative<Measure>(*message)) say(Measured{0.001, 0.002});
    if (const auto* request = std::get_if<Probe>(&*message)) say(probe(*request));
    if (const auto* assign = std::get_if<Assign>(&*message))
      for (const auto& assignment : assign->trials)
        if (!train(assignment)) return 0;
  }
  return 0;
}
