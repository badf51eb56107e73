#include "orchestrator/report_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include <fmt/format.h>

#include "orchestrator/exit_code.h"

namespace orchestrator {

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
