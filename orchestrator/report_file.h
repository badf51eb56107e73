#pragma once

#include <filesystem>

#include "db/reader.h"
#include "orchestrator/report.h"
#include "orchestrator/svg.h"

namespace orchestrator {

/// To be asked before anything is trained: throws ExitError{kUsage} where the folder is missing or the report
/// would replace the database.
void check_report_file(const std::filesystem::path& file, const std::filesystem::path& database);

/// Writes the report beside its final name and renames it. Throws ExitError{kEnvironment}.
void write_report(const std::filesystem::path& file, const sweeps::Study& study,
                  const sweeps::Analysis& analysis, const std::vector<db::CurveSeries>& curves,
                  const Samples& samples);

/// A picture as a file of its own, in a folder that is made. Throws ExitError{kEnvironment}.
void write_picture(const std::filesystem::path& file, const Svg& picture);

/// Pictures as files of their own, in `folder`, which is made: lr_by_rule.svg, once a target has been swept.
/// Returns what it wrote. Throws ExitError{kEnvironment}.
std::vector<std::filesystem::path> write_charts(const std::filesystem::path& folder,
                                                const sweeps::Analysis& analysis);

}  // namespace orchestrator
