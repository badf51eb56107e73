#pragma once

#include <optional>
#include <string>

#include "db/query.h"
#include "sweeps/analysis.h"

namespace orchestrator {

/// What a study came to, in words and tables. Pure; nothing here is stored.

/// The proxy's fit, or why there is none. Many lines, no trailing newline.
std::string fit_text(const sweeps::Study& study, const sweeps::Analysis& analysis);
/// One row per fitted model.
db::Table fit_table(const sweeps::Study& study, const sweeps::Analysis& analysis);

/// One row per target and tensor group: every factor, the value it gives, and its source.
db::Table transfer_table(const std::vector<sweeps::TargetConfig>& targets);
/// The same for people: a block per target with what holds for the whole of it above its groups.
std::string transfer_text(const std::vector<sweeps::TargetConfig>& targets);

/// One row per target with a drift check.
db::Table drift_table(const sweeps::Analysis& analysis);
/// The same for people, the trend over the targets and the count of verdicts below; with the exit code of the command
/// that prints it, where there is one yet.
std::string drift_text(const sweeps::Study& study, const sweeps::Analysis& analysis,
                       std::optional<int> exit_code);
/// One row per rule whose targets show a trend.
db::Table trend_table(const sweeps::Study& study, const sweeps::Analysis& analysis);

/// A line per target, copies under other rules included: its loss at the transferred point against the same
/// shape under SP at the proxy's values.
std::string targets_text(const sweeps::Study& study, const sweeps::Analysis& analysis);

/// What `run` prints at its end.
std::string summary_text(const sweeps::Study& study, const sweeps::Analysis& analysis);

}  // namespace orchestrator
