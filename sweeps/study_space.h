#pragma once

#include "sweeps/settings.h"
#include "sweeps/study.h"

namespace sweeps {

/// [search]: how the sweep's points are chosen. Adaptive where [space] gives plain ranges of LR and WD; a
/// count, explicit values or a single number mean a grid.
void read_search(const Section& root, Study& study);

/// [space]: the values of LR, WD and initial std. REQUIRES: [search] and [train] are read.
void read_space(const Section& root, Study& study);

/// Refuses a sweep of more points than [search] max_trials.
void check_sweep_size(const Section& root, const Study& study);

}  // namespace sweeps
