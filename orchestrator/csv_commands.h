#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "orchestrator/console.h"
#include "orchestrator/output.h"

namespace orchestrator {

/// `fit` and `drift` of sweeps that were trained elsewhere (sweep_csv.h): no study, no database. Each prints
/// to stdout and returns its exit code. With a folder for `charts` also its pictures, whose names go to
/// stderr.

struct CsvOptions {
  std::string tolerance = "0.1%";  // of the lowest loss, or "0.003 nats"
  std::string loss_unit = "nats";  // or mse: what texts and pictures call it
  std::uint64_t seed = 1;          // of the draws, as a study's
  std::string charts;              // folder for the pictures; empty: none
};

struct CsvFitOptions : CsvOptions {  // the tolerance is that of the near-optimal box
  std::string csv;
  std::int64_t steps = 0;  // of a run; 0: tau is shown in steps
};
/// The optimum of one sweep; pictures NAME_heat_map.svg, NAME_lr.svg. Throws ExitError{kNoVerdict} where the
/// runs determine none.
int fit_csv(const CsvFitOptions& options, Format format, Console& console);

struct CsvDriftOptions : CsvOptions {     // the tolerance is a share of the target's loss
  std::string proxy, target;              // in the same coordinates: LR and WD before the rule's factors
  std::optional<double> lr, wd;           // the transferred point; default: the proxy's fitted optimum
  double lr_shift = 0.5, wd_shift = 1.0;  // octaves
};
/// Whether the target's optimum lies where the proxy's values were taken to; picture TARGET_drift.svg. Throws
/// ExitError{kNoVerdict} where the proxy has no optimum.
int drift_csv(const CsvDriftOptions& options, Format format, Console& console);

}  // namespace orchestrator
