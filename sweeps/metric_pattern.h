#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <regex>
#include <string>
#include <string_view>

namespace sweeps {

/// What one line of a log says about the metric.
struct MetricMatch {
  std::string value;  // as it is written: "3.21", "nan"
  std::optional<std::int64_t> step;
};

/// A regular expression (ECMAScript) that finds a metric's value, and perhaps its step, in a line of a log.
/// The groups (?<value>...) and (?<step>...) are they, also written (?P<...>; without names the first group
/// is the value and the second, where there is one, the step.
class MetricPattern {
 public:
  /// Throws std::invalid_argument, with what would work.
  explicit MetricPattern(std::string_view pattern);

  /// REQUIRES: at most kMaxLine characters (the expression's memory grows with them).
  std::optional<MetricMatch> find(std::string_view line) const;
  static constexpr std::size_t kMaxLine = 4096;

 private:
  std::regex regex_;
  std::size_t value_group_ = 0, step_group_ = 0;
};

}  // namespace sweeps
