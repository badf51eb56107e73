#pragma once

#include <string>

#include "worker/channel.h"

namespace worker {

/// Protocol mode of tuneonce-command: says Hello, then runs the user's program for each trial that the
/// orchestrator sends, one after another, until a Drain. Throws ChannelClosed (also when this process's
/// parent has ended) and ProtocolError; no process that it started is left then.
void serve_commands(Channel& channel, const std::string& device);

/// Answer to Inspect: the named data, by the names and sizes of its files. Throws std::invalid_argument.
Inspected inspect_command_data(const sweeps::DataSpec& data);

}  // namespace worker
