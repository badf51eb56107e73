#include "sweeps/metric_pattern.h"

#include <charconv>
#include <stdexcept>

namespace sweeps {
namespace {

constexpr const char* kHelp = "; write for example 'step (?<step>\\d+).* val_loss (?<value>\\S+)'";

/// std::regex has no named groups: the pattern without the names, and where they stand.
struct Groups {
  std::string plain;
  std::size_t num_groups = 0, value = 0, step = 0;
};

Groups without_names(std::string_view pattern) {
  Groups groups;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    groups.plain += pattern[i];
    if (pattern[i] == '\\' && i + 1 < pattern.size()) {
      groups.plain += pattern[++i];
      continue;
    }
    if (pattern[i] == '[') in_class = true;
    if (pattern[i] == ']') in_class = false;
    if (pattern[i] != '(' || in_class) continue;
    const auto rest = pattern.substr(i + 1);
    if (!rest.starts_with('?')) {
      ++groups.num_groups;
      continue;
    }
    const std::size_t start = rest.starts_with("?P<") ? 3 : rest.starts_with("?<") ? 2 : 0;
    if (start == 0) continue;  // (?:...), (?=...)
    const auto end = rest.find('>');
    const auto name = end == std::string_view::npos ? rest : rest.substr(start, end - start);
    ++groups.num_groups;
    if (name == "value" && groups.value == 0)
      groups.value = groups.num_groups;
    else if (name == "step" && groups.step == 0)
      groups.step = groups.num_groups;
    else
      throw std::invalid_argument("group \"" + std::string(name) + "\": one may be named value, one step" +
                                  kHelp);
    i += end + 1;
  }
  return groups;
}

}  // namespace

MetricPattern::MetricPattern(std::string_view pattern) {
  const Groups groups = without_names(pattern);
  if (groups.num_groups == 0)
    throw std::invalid_argument(std::string("it has no group for the value") + kHelp);
  value_group_ = groups.value;
  step_group_ = groups.step;
  if (value_group_ == 0 && step_group_ == 0) {
    value_group_ = 1;
    step_group_ = groups.num_groups > 1 ? 2 : 0;
  }
  if (value_group_ == 0)
    throw std::invalid_argument(std::string("it has a step but no group named value") + kHelp);
  try {
    regex_ = std::regex(groups.plain, std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error& error) {
    throw std::invalid_argument(std::string("it is no regular expression (") + error.what() + ")" + kHelp);
  }
}

std::optional<MetricMatch> MetricPattern::find(std::string_view line) const {
  std::cmatch match;
  if (!std::regex_search(line.data(), line.data() + line.size(), match, regex_)) return std::nullopt;
  if (!match[value_group_].matched) return std::nullopt;
  MetricMatch found{match[value_group_].str(), {}};
  if (step_group_ == 0 || !match[step_group_].matched) return found;
  const std::string step = match[step_group_].str();
  std::int64_t number = 0;
  const char* const end = step.data() + step.size();
  if (std::from_chars(step.data(), end, number).ptr == end && number >= 0) found.step = number;
  return found;
}

}  // namespace sweeps
