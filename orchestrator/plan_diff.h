#pragma once

#include <string>
#include <vector>

#include "db/reader.h"
#include "sweeps/study.h"

namespace orchestrator {

/// What becomes of a database's trials when its study is run as `study` is now: settings that changed, and trials that
/// are added, kept and dropped, a line each; empty when nothing changed. Which trials later stages ask for depends on the
/// results of the one that comes next, so these are listed apart. REQUIRES: study.data.fingerprint is filled in.
std::vector<std::string> plan_diff(const db::StudyRow& before, const sweeps::Study& study,
                                   const std::vector<sweeps::TrialResult>& results);

}  // namespace orchestrator
