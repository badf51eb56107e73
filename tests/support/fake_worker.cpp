// A worker without LibTorch: speaks the protocol on descriptor 3 and answers every trial from an analytic
// loss surface at once, so that a whole study runs in a second. TUNEONCE_FAKE, words separated by blanks,
// makes it misbehave:
//   dir=FOLDER       where it counts things across processes (needed by the words below that count)
//   sleep_ms=N       time per trial, in ten checkpointed pieces
//   crash=N          the N-th trial started (across all workers) ends the process by SIGSEGV
//   crash_name=TEXT  every attempt of a trial whose name contains TEXT does
//   hang=N           the N-th trial started never ends; garbage=N: it answers with bytes that are no message
//   stranger=1       speaks of a trial nobody gave it, before each result
//   fail_name=TEXT   a trial whose name contains TEXT is refused as the user's error
//   version=N        says hello with protocol N
//   bad_data=1       refuses the data
//   lag=LR           trials below this LR learn late: 0.6 nats behind at half of the run, nothing at its end
//   wait_ms=N        such a trial waits at half of the run until it is spoken to, at most so long
//   grows=EXPONENT  a probed model's head updates grow by this power of its width
//   samples=1        targets draw two pictures of one pixel
//   shift=OCTAVES    the targets' optimum lies this far from the proxy's in LR
#include <sys/file.h>
#include <unistd.h>

#include <poll.h>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <map>
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
  return it == behaviour.end() ? otherwise : std::stod(it->second);
}
bool names(const std::string& word, const std::string& trial) {
  const auto it = behaviour.find(word);
  return it != behaviour.end() && trial.find(it->second) != std::string::npos;
}

/// 1, 2, ... across all fake workers that share a folder; also a line in FOLDER/started.
int count_trial(const std::string& name) {
  const auto it = behaviour.find("dir");
  if (it == behaviour.end()) return 0;
  const auto file = it->second + "/started";
  std::FILE* started = std::fopen(file.c_str(), "a+");
  if (!started) std::abort();
  ::flock(fileno(started), LOCK_EX);
  std::fprintf(started, "%s\n", name.c_str());
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
  return ::poll(&channel, 1, milliseconds) > 0;
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
  const auto width = static_cast<double>(request.spec.run.shape.width) /
                     static_cast<double>(request.spec.proxy.shape.width);
  const auto steps = static_cast<std::size_t>(request.steps);
  Probed probed;
  probed.series.push_back({"loss", "loss", std::vector<double>(steps + 1, 3.0)});
  if (!request.layers) return probed;
  for (const char* layer : {"attention", "ffn", "stream"})
    probed.series.push_back({layer, "activation", std::vector<double>(steps + 1, 0.5)});
  probed.series.push_back({"head", "effective", std::vector<double>(steps, std::pow(width, number("grows")))});
  return probed;
}

/// Steps done, as the checkpoint file says.
std::int64_t resumed_step(const Assignment& a) {
  std::ifstream file(a.checkpoint);
  std::int64_t step = 0;
  file >> step;
  return step;
}

/// False when told to drain.
bool train(const Assignment& a) {
  const auto& name = a.spec.name;
  const int nth = count_trial(name);
  const auto steps = a.spec.run.steps;
  std::int64_t step = resumed_step(a);
  say(Started{a.trial, a.attempt, step});
  std::printf("training %s from step %ld\n", name.c_str(), static_cast<long>(step));
  std::fflush(stdout);
  if ((nth > 0 && nth == static_cast<int>(number("crash"))) || names("crash_name", name)) std::raise(SIGSEGV);
  if (nth > 0 && nth == static_cast<int>(number("hang"))) ::pause();
  if (nth > 0 && nth == static_cast<int>(number("garbage"))) write_all({7, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7});
  if (behaviour.contains("stranger")) say(Ended{a.trial, a.attempt + 7, sweeps::Finished{}});
  if (names("fail_name", name)) {
    say(Ended{a.trial, a.attempt,
              sweeps::Failed{sweeps::FailureClass::user_error, "the context is too long"}});
    return true;
  }
  const double loss = loss_of(a.spec);
  while (step < steps) {
    const auto next = std::min(steps, step + std::max<std::int64_t>(1, steps / 10));
    Curve curve{a.trial, a.attempt, "train_loss", {}, {}};
    for (auto i = step; i < next; ++i) {
      curve.steps.push_back(i);
      curve.values.push_back(loss + 2.0 / static_cast<double>(1 + i));
    }
    say(curve);
    const Curve evaluations = held_out(a, loss, step, next);
    if (!evaluations.steps.empty()) say(evaluations);
    step = next;
    say(Progress{a.trial, a.attempt, step, 0.001});
    const bool waits = learns_late(a) && 2 * step == steps && behaviour.contains("wait_ms");
    const bool told = is_spoken_to(static_cast<int>(waits ? number("wait_ms") : number("sleep_ms") / 10));
    if ((a.checkpoint_seconds > 0 && step < steps) || told) {
      std::ofstream(a.checkpoint + ".new") << step;
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
  if (a.spec.base.lr > 0.05)
    say(Ended{a.trial, a.attempt, sweeps::Diverged{steps / 2, 0.001}});
  else
    say(Ended{a.trial, a.attempt, sweeps::Finished{loss, 2.5, steps, 0.001}});
  return true;
}

}  // namespace

int main() {
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
