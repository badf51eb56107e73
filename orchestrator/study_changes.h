#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace orchestrator {

/// Keys that differ between two resolved studies, as "train.steps: 1000 -> 2000"; a key that only one of them
/// has shows "-". In the order of the keys' names. REQUIRES: texts as study_text writes them, one key a line.
std::vector<std::string> study_changes(std::string_view before, std::string_view after);

}  // namespace orchestrator
