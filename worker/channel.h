#pragma once

#include <optional>
#include <vector>

#include "worker/protocol.h"

namespace worker {

/// The other side has closed the channel: nobody is left to work for. Not a std::exception, so that nothing
/// on the way takes it for a fault of the trial that runs.
struct ChannelClosed {};

/// Whether descriptor 3 is a socket: this program was started by the orchestrator.
bool has_channel();

/// Frames over a connected socket, seen from the worker. Does not own the descriptor.
class Channel {
 public:
  explicit Channel(int descriptor) : descriptor_(descriptor) {}

  /// Waits until the whole message is with the system. Throws ChannelClosed.
  void send(const WorkerMessage& message);

  /// The next message; without `wait`, nothing when none is complete yet. Throws ChannelClosed,
  /// ProtocolError.
  std::optional<OrchestratorMessage> receive(bool wait);

 private:
  std::optional<OrchestratorMessage> take_frame();
  /// Reads what is there; false when nothing is.
  bool read_some(bool wait);

  int descriptor_;
  std::vector<std::uint8_t> buffer_;
};

}  // namespace worker
