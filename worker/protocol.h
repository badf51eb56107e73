#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "sweeps/sample_sheet.h"
#include "sweeps/trial.h"

/// What orchestrator and worker say to each other: frames of a 4-byte little-endian length and CBOR, at most
/// 64 MiB, over one socket (an inherited socketpair, descriptor 3). Plain values; no I/O here.
namespace worker {

inline constexpr int kProtocolVersion = 2;
inline constexpr int kChannelDescriptor = 3;
inline constexpr std::size_t kMaxFrameBytes = 64u << 20;
/// Exit code of a worker whose device, not whose trial, failed.
inline constexpr int kDeviceFaultExit = 71;

// --- from the worker ---

struct Hello {
  int protocol = kProtocolVersion;
  std::string build;   // version of the binary
  std::string device;  // "cpu", "cuda:0"
  std::string device_name;
  std::int64_t memory_bytes = 0;
  int threads = 1;
  int slots = 1;  // trials it can train side by side (CPU: 1)
};
/// Answer to Inspect: the data is usable.
struct Inspected {
  std::string fingerprint;
  std::int64_t train_tokens = 0;  // images of an image source; 0 where there is no end of them
  std::int64_t holdout_tokens = 0;
  std::string description;
};
/// Answer to Measure.
struct Measured {
  double seconds_per_step = 0;
  double seconds_per_eval = 0;
};
/// One quantity of a Probed trial, one value a step.
struct ProbedSeries {
  std::string layer;     // "attention_qkv", "stream", ...; "loss" for the train loss
  std::string quantity;  // models/recorder.h; "gradient": rms over the tensor group; "loss"
  std::vector<double> values;
};
/// Answer to Probe. A trial that is not finite ends early: its series are shorter than `steps` + 1.
struct Probed {
  std::vector<ProbedSeries> series;
};
/// Inspect, Measure or Probe could not be answered; user_error means the user's input is wrong.
struct Refused {
  sweeps::FailureClass failure = sweeps::FailureClass::user_error;
  std::string message;
};

struct Started {
  sweeps::TrialKey trial;
  std::int64_t attempt = 0;
  std::int64_t first_step = 0;  // above 0: resumed from a checkpoint
};
struct Progress {
  sweeps::TrialKey trial;
  std::int64_t attempt = 0;
  std::int64_t step = 0;
  double seconds = 0;
};
/// `values[i]` of `metric` at `steps[i]`.
struct Curve {
  sweeps::TrialKey trial;
  std::int64_t attempt = 0;
  std::string metric;  // "train_loss", "eval_loss", "grad_norm", "expert_load_max", ...
  std::vector<std::int64_t> steps;
  std::vector<double> values;
};
struct Checkpointed {
  sweeps::TrialKey trial;
  std::int64_t attempt = 0;
  std::int64_t step = 0;
  std::string file;
  std::string checksum;
};
/// One horizon of TrialSpec::branches is done; a resumed attempt says again what an earlier one found.
struct Branch {
  sweeps::TrialKey trial;
  std::int64_t attempt = 0;
  double fraction = 1;
  std::int64_t steps = 0;
  double loss = 0;
};
/// What a diffusion model drew when its training ended; before Ended.
struct Sampled {
  sweeps::TrialKey trial;
  std::int64_t attempt = 0;
  sweeps::SampleSheet sheet;
};
/// The end of an attempt: Finished, Diverged or Failed.
struct Ended {
  sweeps::TrialKey trial;
  std::int64_t attempt = 0;
  sweeps::Outcome outcome;
};
using WorkerMessage =
    std::variant<Hello, Inspected, Measured, Probed, Refused, Started, Progress, Curve, Checkpointed, Branch,
                 Sampled, Ended>;

// --- from the orchestrator ---

/// What a checkpoint's name ends in when a later one has taken its place.
constexpr const char* kPreviousCheckpoint = ".1";

/// One trial to train; several in one Assign train as a stack (equal stack_key, at most Hello::slots).
struct Assignment {
  sweeps::TrialKey trial;
  std::int64_t attempt = 1;
  sweeps::TrialSpec spec;
  std::string checkpoint;         // file to write checkpoints to; resumed from it, or else from the one before
  double checkpoint_seconds = 0;  // between checkpoints; 0 = none
};
struct Assign {
  std::vector<Assignment> trials;
};
struct Cancel {
  sweeps::TrialKey trial;
};
/// Checkpoint what is running, end it as Failed{cancelled}, and exit.
struct Drain {};
struct Inspect {
  sweeps::DataSpec data;
  std::int64_t context = 0;
  std::int64_t vocab = 0;
  std::int64_t eval_tokens = 0;
  std::int64_t image_size = 0;  // of an image source
  std::int64_t channels = 0;
};
struct Measure {
  sweeps::TrialSpec spec;
  int steps = 3;
};
/// Trains `steps` steps and says what it saw before the first and after each: the train loss and, with
/// `layers`, the size of activations, updates and gradients. Those are looked at on the batch that is trained
/// on, which then is the same in every step; without `layers` the data is that of the trial.
struct Probe {
  sweeps::TrialSpec spec;
  std::int64_t steps = 10;
  bool layers = true;
};
using OrchestratorMessage = std::variant<Assign, Cancel, Drain, Inspect, Measure, Probe>;

/// A frame or message that does not follow the protocol.
struct ProtocolError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A whole frame, length included.
std::vector<std::uint8_t> encode(const WorkerMessage& message);
std::vector<std::uint8_t> encode(const OrchestratorMessage& message);

/// Payload of one frame (without its length). Throws ProtocolError.
WorkerMessage decode_worker_message(std::span<const std::uint8_t> payload);
OrchestratorMessage decode_orchestrator_message(std::span<const std::uint8_t> payload);

/// Payload length from the four length bytes. Throws ProtocolError when above kMaxFrameBytes.
std::size_t payload_length(std::span<const std::uint8_t, 4> length);

/// The spec as JSON, for the database and for `tuneonce-worker --trial trial.json`; and back.
nlohmann::json to_json(const sweeps::TrialSpec& spec);
sweeps::TrialSpec spec_from_json(const nlohmann::json& json);
/// One message as a JSON line would show it (used by `--trial`).
nlohmann::json to_json(const WorkerMessage& message);

}  // namespace worker
