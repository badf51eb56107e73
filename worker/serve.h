#pragma once

#include "worker/channel.h"
#include "worker/device.h"

namespace worker {

/// Protocol mode: says Hello, then carries out what the orchestrator sends, one thing after another, until a
/// Drain. Cancel and Drain act between two steps of what is running. Throws ChannelClosed, ProtocolError
/// and device faults, after which the process must end.
void serve(Channel& channel, const Device& device);

}  // namespace worker
