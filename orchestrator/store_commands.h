#pragma once

#include <filesystem>
#include <string>

#include "orchestrator/output.h"

namespace orchestrator {

/// Commands about the store itself and what it stands on; each prints to stdout and returns its exit code.

/// Looks at the worker program, devices, SQLite, the folder's disk and locks, and the database in it, if there is one:
/// one row a check, `ok`, `warning` or `problem`. kEnvironment when there is a problem.
int run_doctor(const std::filesystem::path& folder, const std::filesystem::path& database, Format format);

/// Saves what can be read of a damaged database in a new one. Throws ExitError{kOwned} while a run is on.
int recover(const std::filesystem::path& database, const std::filesystem::path& copy, Format format);

/// Writes an Optuna storage; see db/optuna.h.
int export_to_optuna(const std::filesystem::path& database, const std::filesystem::path& copy);

}  // namespace orchestrator
