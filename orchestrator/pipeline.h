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
  std::optional<double> memory_seconds;  // to wait for a GPU's memory
  std::optional<double> checkpoint_seconds;
  bool accept_change = false;  // of the study, although finished trials no longer belong to it then
  std::string max_failures;  // "3", "10%"; empty: the study's own breaker alone
};

struct PlanOptions {
  std::filesystem::path study_file;
  bool measure = true;  // the time of a step
  bool diff = false;    // only what has changed against the database
  std::filesystem::path database = {};  // empty: default_database()
};

/// "<study name>.db" in the current folder.
std::filesystem::path default_database(const sweeps::Study& study);

/// `tuneonce run`: analyse what the database holds, train what is missing, repeat until nothing is; then
/// write decisions and report. Resuming is running again. Prints the verdicts to stdout. Returns the exit
/// code; throws ExitError, db::StoreError, sweeps::StudyError.
int run_study(const RunOptions& options, Console& console);

/// What is wrong with a RunOptions::max_failures; empty when nothing is.
std::string max_failures_problem(const std::string& text);

/// `tuneonce plan`: the resolved study, its trials, their cost and every transfer factor, on stdout; or, with `diff`,
/// what has changed against the study in the database. Asks a worker for the data's soundness and, with `measure`, for
/// the time of a step. Writes nothing.
int plan_study(const PlanOptions& options, Console& console);

}  // namespace orchestrator
