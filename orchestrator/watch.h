#pragma once

#include <filesystem>

namespace orchestrator {

/// `tuneonce watch`: the screen of watch_screen.h, drawn anew each second until the run ends; once, when no run is on or
/// with `once`. Where stdout is no terminal: a plain line when something has changed, failures with their logs.
/// Returns kSignal + number after a signal, with the cursor as it was.
int watch(const std::filesystem::path& database, bool once);

}  // namespace orchestrator
