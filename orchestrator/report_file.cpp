#include "orchestrator/report_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include <fmt/format.h>

#include "orchestrator/exit_code.h"

namespace orchestrator {

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
                  const sweeps::Analysis& analysis, const std::vector<db::CurveSeries>& curves) {
  Curves by_trial;
  for (const auto& curve : curves) by_trial[curve.trial].push_back({curve.metric, curve.steps, curve.values});
  const auto page = render_report(study, analysis, by_trial);
  const auto temporary = file.string() + ".new";
  std::ofstream stream(temporary, std::ios::binary);
  stream << page;
  stream.close();
  std::error_code error;
  if (stream) std::filesystem::rename(temporary, file, error);
  if (!stream || error) {
    const auto reason = error ? error.message() : std::strerror(errno);
    std::filesystem::remove(temporary, error);
    throw ExitError(kEnvironment, fmt::format("{}: the report cannot be written: {}", file.string(), reason));
  }
}

}  // namespace orchestrator
