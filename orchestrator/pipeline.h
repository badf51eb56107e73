#pragma once

#include <filesystem>
#include <optional>

#include "orchestrator/console.h"
#include "orchestrator/exit_code.h"
#include "sweeps/study.h"

namespace orchestrator {

struct RunOptions {
  std::filesystem::path study_file;
  std::filesystem::path database;  // empty: default_database()
  std::filesystem::path report;    // empty: the database's name with .html
  std::string gpus;  // "0,2", in place of the study's devices; empty: these
  std::optional<int> num_workers;
  std::optional<double> stall_seconds;
  std::optional<double> checkpoint_seconds;
  bool accept_change = false;  // of the study, although finished trials no longer belong to it then
};

/// "<study name>.db" in the current folder.
std::filesystem::path default_database(const sweeps::Study& study);

/// `tuneonce run`: analyse what the database holds, train what is missing, repeat until nothing is; then
/// write decisions and report. Resuming is running again. Prints the verdicts to stdout. Returns the exit
/// code; throws ExitError, db::StoreError, sweeps::StudyError.
int run_study(const RunOptions& options, Console& console);

/// `tuneonce plan`: the resolved study, its trials, their cost and every transfer factor, on stdout. Asks a
/// worker for the data's soundness and, with `measure`, for the time of a step. Writes nothing.
int plan_study(const std::filesystem::path& study_file, bool measure, Console& console);

}  // namespace orchestrator
