#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sweeps/metric_pattern.h"

namespace worker {

/// What a trainer says in one line: values by name at a step. They may be NaN or infinite.
struct MetricReport {
  std::optional<std::int64_t> step;
  std::vector<std::pair<std::string, double>> values;
};

/// {"step": 100, "val_loss": 3.21}: every number by its name. Nothing where the line is no JSON object with a
/// step or the metric. NaN, Infinity (Python's), "nan", "inf" and, of the metric, null are not finite.
std::optional<MetricReport> parse_json_report(std::string_view line, std::string_view metric);

/// What the pattern finds in a line; nothing where that is no number.
std::optional<MetricReport> parse_log_line(std::string_view line, const sweeps::MetricPattern& pattern,
                                           std::string_view metric);

/// Bytes as lines, at '\n' and '\r' (progress bars). Of a longer line only the first kMaxBytes are kept.
class LineSplitter {
 public:
  using Sink = std::function<void(std::string_view)>;
  void feed(std::string_view bytes, const Sink& line);
  /// The last line, where it has no end.
  void finish(const Sink& line);
  static constexpr std::size_t kMaxBytes = 1 << 16;

 private:
  std::string line_;
};

}  // namespace worker
