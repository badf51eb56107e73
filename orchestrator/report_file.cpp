#include "orchestrator/report_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include <fmt/format.h>

#include "orchestrator/exit_code.h"
#include "orchestrator/report_charts.h"
#include "orchestrator/report_style.h"

namespace orchestrator {
namespace {

/// Whole or not at all: written beside its name and renamed.
void write_file(const std::filesystem::path& file, const std::string& text, std::string_view what) {
  const auto temporary = file.string() + ".new";
  std::ofstream stream(temporary, std::ios::binary);
  stream << text;
  stream.close();
  std::error_code error;
  if (stream) std::filesystem::rename(temporary, file, error);
  if (!stream || error) {
    const auto reason = error ? error.message() : std::strerror(errno);
    std::filesystem::remove(temporary, error);
    throw ExitError(kEnvironment, fmt::format("{}: {} cannot be written: {}", file.string(), what, reason));
  }
}

}  // namespace

void check_report_file(const std::filesystem::path& file, const std::filesystem::path& database) {
  namespace fs = std::filesystem;
  const auto folder = fs::absolute(file).parent_path();
  if (!fs::is_directory(folder))
    throw ExitError(kUsage, fmt::format("{}: there is no such folder for the report", folder.string()));
  if (fs::is_directory(file))
    throw ExitError(kUsage, fmt::format("{}: is a folder; name a file for the report", file.string()));
  if (fs::weakly_canonical(file) == fs::weakly_canonical(database))
    throw ExitError(kUsage,
                    fmt::format("{}: is the database itself; choose another --report", file.string()));
}

void write_report(const std::filesystem::path& file, const sweeps::Study& study,
                  const sweeps::Analysis& analysis, const std::vector<db::CurveSeries>& curves,
                  const Samples& samples) {
  Curves by_trial;
  for (const auto& curve : curves) by_trial[curve.trial].push_back({curve.metric, curve.steps, curve.values});
  write_file(file, render_report(study, analysis, by_trial, samples), "the report");
}

void write_picture(const std::filesystem::path& file, const Svg& picture) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::absolute(file).parent_path(), error);
  if (error)
    throw ExitError(kEnvironment, fmt::format("{}: {}", file.parent_path().string(), error.message()));
  write_file(file, picture.file(kReportStyle), "the picture");
}

std::vector<std::filesystem::path> write_charts(const std::filesystem::path& folder,
                                                const sweeps::Analysis& analysis) {
  std::vector<std::filesystem::path> written;
  if (const auto picture = transfer_picture(analysis)) {
    written.push_back(folder / "lr_by_rule.svg");
    write_picture(written.back(), *picture);
  }
  return written;
}

}  // namespace orchestrator
