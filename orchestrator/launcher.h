#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "orchestrator/devices.h"
#include "orchestrator/net.h"
#include "worker/protocol.h"

namespace orchestrator {

/// How a worker ended, as far as its machine can tell.
struct WorkerEnd {
  sweeps::FailureClass failure = sweeps::FailureClass::worker_lost;
  std::string message;  // "signal 11 (Segmentation fault)"
  bool stuck = false;   // it would not end, however it was told; its device is not to be used again
};

/// No message within the time given.
struct Stalled : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// One worker that was started: a conversation, its output and its end. Destroying it leaves no process
/// behind.
class Worker {
 public:
  virtual ~Worker() = default;

  /// Throws boost::system::system_error when the worker is gone.
  virtual awaitable<void> send(worker::OrchestratorMessage message) = 0;
  /// The next message; nothing when the worker has closed the channel. Throws worker::ProtocolError, Stalled.
  virtual awaitable<std::optional<worker::WorkerMessage>> receive(std::chrono::duration<double> patience) = 0;
  /// Waits for its end, at most `patience`, then kills it.
  virtual awaitable<WorkerEnd> end(std::chrono::duration<double> patience) = 0;
  virtual void kill() = 0;
  /// Asks it to end; end() does not wait longer for that.
  virtual void terminate() = 0;
  virtual bool alive() = 0;
  virtual std::int64_t pid() const = 0;

  /// Gets what the worker prints, as it comes.
  std::function<void(std::string_view)> on_output;
};

/// Starts workers: processes of this machine, later jobs of others.
class Launcher {
 public:
  virtual ~Launcher() = default;
  /// Throws ExitError{kEnvironment} when no worker can be started at all.
  virtual std::unique_ptr<Worker> start(const DeviceSlot& slot) = 0;
  virtual std::string host() const = 0;
  /// What is started, for messages.
  virtual std::string program() const = 0;
};

}  // namespace orchestrator
