#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "sweeps/trial.h"

namespace orchestrator {

/// A sweep that was trained elsewhere, one row a run.
struct CsvSweep {
  std::string name;                         // of the file, without its ending
  std::vector<sweeps::TrialResult> trials;  // LR, WD, seed, state and loss, in the order of the file
  int num_seeds = 1;                        // 1 without a seed column
};

/// A CSV file (RFC 4180, comma, UTF-8; a byte order mark, CRLF and blank lines are taken) whose header names
/// lr, wd and loss, and optionally seed and status (or state, as the table of results has it), in any order
/// and case; other columns are ignored.
/// * A loss that is empty, NaN, NA, null, none or infinite is a run that diverged.
/// * Status: the words of TrialState in any case, done, finished and ok for complete, crashed for failed, or
///   empty: what the loss says. Runs that are neither complete nor diverged have no loss here.
/// * Seeds are words: equal ones share an initialisation and data order, whatever they look like.
/// Throws ExitError{kUsage} with "file:line: what was found; what would work".
CsvSweep read_sweep_csv(const std::filesystem::path& file);
/// The same from text; `file` names it.
CsvSweep parse_sweep_csv(std::string_view text, const std::filesystem::path& file);

}  // namespace orchestrator
