// tuneonce-worker: trains trials. Started by `tuneonce run`, or by hand for one trial.

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "worker/channel.h"
#include "worker/data.h"
#include "worker/device.h"
#include "worker/process_tree.h"
#include "worker/protocol.h"
#include "worker/serve.h"
#include "worker/train.h"

namespace {

using nlohmann::json;

constexpr int kDone = 0, kTrialFailed = 1, kBadInput = 2, kNoDevice = 6;

constexpr const char* kUsage =
    "tuneonce-worker: trains trials for tuneonce.\n"
    "\n"
    "  tuneonce-worker [--device D]                      serve the orchestrator on descriptor 3\n"
    "  tuneonce-worker --trial FILE [--checkpoint FILE]  train one trial, print its events as JSON lines\n"
    "  tuneonce-worker --inspect FILE                    check data: {data, context, vocab, eval_tokens}\n"
    "  tuneonce-worker --probe FILE                      watch a trial's first steps: {spec, steps, layers}\n"
    "  tuneonce-worker --version\n"
    "\n"
    "  --device D    cpu (default) or cuda:N\n"
    "  FILE          JSON; - reads standard input\n"
    "  --checkpoint-seconds S   between checkpoints, default 30\n"
    "\n"
    "Exit: 0 done, 1 the trial diverged or failed, 2 bad input, 6 no such device.\n";

struct Arguments {
  std::string device = "cpu";
  std::string trial;
  std::string inspect;
  std::string probe;
  std::string checkpoint;
  double checkpoint_seconds = 30;
  bool version = false;
  bool help = false;
};

double number(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= 0))
    throw worker::UserError("not a number of seconds: " + text);
  return value;
}

/// Throws UserError.
Arguments parse(const std::vector<std::string_view>& words) {
  Arguments arguments;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const auto value = [&]() -> std::string {
      if (i + 1 == words.size()) throw worker::UserError(std::string(words[i]) + " needs a value");
      return std::string(words[++i]);
    };
    const std::string_view word = words[i];
    if (word == "--device") {
      arguments.device = value();
    } else if (word == "--trial") {
      arguments.trial = value();
    } else if (word == "--inspect") {
      arguments.inspect = value();
    } else if (word == "--probe") {
      arguments.probe = value();
    } else if (word == "--checkpoint") {
      arguments.checkpoint = value();
    } else if (word == "--checkpoint-seconds") {
      arguments.checkpoint_seconds = number(value());
    } else if (word == "--version") {
      arguments.version = true;
    } else if (word == "--help" || word == "-h") {
      arguments.help = true;
    } else {
      throw worker::UserError("unknown argument \"" + std::string(word) + "\"; see --help");
    }
  }
  return arguments;
}

json read_json(const std::string& file) {
  std::ifstream input;
  if (file != "-") input.open(file);
  std::istream& from = file == "-" ? std::cin : input;
  if (!from) throw worker::UserError("cannot read " + file);
  try {
    return json::parse(std::string(std::istreambuf_iterator<char>(from), {}));
  } catch (const json::exception& cause) {
    throw worker::UserError(file + ": " + cause.what());
  }
}

void print_line(const json& line) {
  std::cout << line.dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
}

int run_trial(const Arguments& arguments, const worker::Device& device) {
  worker::Assignment assignment;
  assignment.spec = worker::spec_from_json(read_json(arguments.trial));
  assignment.trial = sweeps::trial_key(assignment.spec);
  assignment.checkpoint = arguments.checkpoint;
  assignment.checkpoint_seconds = arguments.checkpoint_seconds;
  int exit_code = kDone;
  const auto emit = [&](const worker::WorkerMessage& message) {
    print_line(to_json(message));
    const auto* ended = std::get_if<worker::Ended>(&message);
    if (ended && !std::holds_alternative<sweeps::Finished>(ended->outcome)) exit_code = kTrialFailed;
  };
  const worker::StopRequests nothing;
  worker::train_stack({assignment}, device, emit, [&]() -> const worker::StopRequests& { return nothing; });
  return exit_code;
}

int run_inspect(const std::string& file) {
  json request = read_json(file);
  request["type"] = "inspect";
  const auto message = worker::decode_orchestrator_message(json::to_cbor(request));
  print_line(to_json(worker::WorkerMessage(worker::inspect(std::get<worker::Inspect>(message)))));
  return kDone;
}

int run_probe(const std::string& file, const worker::Device& device) {
  json request = read_json(file);
  request["type"] = "probe";
  const auto message = worker::decode_orchestrator_message(json::to_cbor(request));
  print_line(to_json(worker::WorkerMessage(worker::probe(std::get<worker::Probe>(message), device))));
  return kDone;
}

int run_protocol(const worker::Device& device) {
  std::signal(SIGINT, SIG_IGN);  // a Ctrl-C reaches the whole process group; the orchestrator decides
  std::signal(SIGPIPE, SIG_IGN);
  worker::Channel channel(worker::kChannelDescriptor);
  try {
    worker::serve(channel, device);
  } catch (const worker::ChannelClosed&) {
  }
  return kDone;
}

int run(const std::vector<std::string_view>& words, pid_t parent) {
  const Arguments arguments = parse(words);
  if (arguments.help) return std::fputs(kUsage, stdout) < 0;
  if (arguments.version) {
    std::printf("tuneonce-worker %s, protocol %d, LibTorch %s\n", TUNEONCE_VERSION, worker::kProtocolVersion,
                TUNEONCE_TORCH_VERSION);
    return kDone;
  }
  if (!arguments.inspect.empty()) return run_inspect(arguments.inspect);
  const bool by_hand = !arguments.trial.empty() || !arguments.probe.empty();
  if (!by_hand && !worker::has_channel()) {
    throw worker::UserError("descriptor 3 is not a socket: `tuneonce run` starts this program; see --help");
  }
  if (!by_hand) worker::tie_to_parent(parent, SIGKILL);
  worker::use_one_thread();
  const worker::Device device = worker::open_device(arguments.device);
  if (!arguments.probe.empty()) return run_probe(arguments.probe, device);
  return by_hand ? run_trial(arguments, device) : run_protocol(device);
}

}  // namespace

int main(int argc, char** argv) {
  const pid_t parent = ::getppid();
  try {
    return run({argv + 1, argv + argc}, parent);
  } catch (const worker::DeviceError& error) {
    std::fprintf(stderr, "tuneonce-worker: %s\n", error.what());
    return kNoDevice;
  } catch (const std::exception& error) {
    if (worker::is_device_fault(error)) {
      std::fprintf(stderr, "tuneonce-worker: %s\n", worker::failure_of(error).message.c_str());
      return worker::failure_of(error).failure == sweeps::FailureClass::gpu_lost ? worker::kDeviceFaultExit
                                                                                  : kTrialFailed;
    }
    // UserError, ProtocolError: what was handed in is wrong
    std::fprintf(stderr, "tuneonce-worker: %s\n", error.what());
    return kBadInput;
  }
}
