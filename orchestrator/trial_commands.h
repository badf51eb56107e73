#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "db/store.h"
#include "orchestrator/console.h"
#include "orchestrator/control.h"

namespace orchestrator {

/// `tuneonce retry`: failed trials wait again. Through the run that owns the database where one is on.
int retry_trials(const std::filesystem::path& database, const ControlRequest& request, Console& console);
/// `tuneonce cancel`: one trial of the run that is on is stopped for good, or all of it as by Ctrl-C.
int cancel_trials(const std::filesystem::path& database, const ControlRequest& request, Console& console);

/// The trials that a request names, each once. Throws ExitError{kUsage} for a name that fits none or several.
std::vector<db::TrialRow> named_trials(const db::Reader& reader, const std::vector<std::string>& names);
/// Carries `retry` out in a store of the caller; returns what was done. Throws ExitError{kUsage}.
std::string retry(db::Store& store, const ControlRequest& request);
/// trial 7 "proxy lr 0.01"
std::string quoted(const db::TrialRow& trial);

}  // namespace orchestrator
