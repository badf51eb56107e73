#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "orchestrator/console.h"
#include "orchestrator/output.h"
#include "sweeps/coord_check.h"

namespace orchestrator {

/// `tuneonce check`: proofs that a parameterization is implemented right, by training a little. Each prints a
/// table to stdout and returns 0, or 3 when something fails. Throws ExitError, sweeps::StudyError,
/// std::invalid_argument.
struct CheckOptions {
  std::filesystem::path study_file;   // empty: a built-in study on the teacher
  std::string rule, head;             // instead of the study's
  std::vector<std::string> axes;      // empty: all
  std::vector<int> scales{1, 2, 4};
  int seeds = 3;
  std::optional<std::int64_t> steps;  // coord: 10; loss: 100
  std::optional<double> lr, init_std; // of the proxy; default the middle of the study's space
  std::filesystem::path svg;          // empty: no picture
  std::optional<int> num_workers;
  bool all = false;  // also rows that are only shown
  Format format = Format::table;
};

/// Sizes of activations and updates against scale (sweeps/coord_check.h).
int check_coord(const CheckOptions& options, Console& console);
/// Size of each branch before the first update.
int check_init(const CheckOptions& options, Console& console);
/// First losses of the study's targets against the dense proxy's (sweeps/loss_overlay.h).
int check_loss(const CheckOptions& options, Console& console);

}  // namespace orchestrator
