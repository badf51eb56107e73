#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sweeps/study.h"

namespace orchestrator {

/// Keys that differ between two resolved studies, as "train.steps: 1000 -> 2000"; a key that only one of them
/// has shows "-". In the order of the keys' names. REQUIRES: texts as study_text writes them, one key a line.
std::vector<std::string> study_changes(std::string_view before, std::string_view after);

/// Those of them, and the data, by which the proxy's sweep would be made of other trials: what has been trained would
/// no longer be part of it. More points, targets or resources are no such change. Empty: none.
std::vector<std::string> changes_of_meaning(const sweeps::Study& before, const sweeps::Study& after);

}  // namespace orchestrator
