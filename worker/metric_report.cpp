#include "worker/metric_report.h"

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <limits>

#include <nlohmann/json.hpp>

namespace worker {
namespace {

using nlohmann::json;

/// "3.21", "nan", "-inf", also "3.21," with what else a log has right behind a number; not "info".
std::optional<double> number_in(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str() || std::isalnum(static_cast<unsigned char>(*end))) return std::nullopt;
  return value;
}

/// Python writes NaN, Infinity and -Infinity, which are no JSON; here they become strings.
std::string with_quoted_words(std::string_view line) {
  std::string result;
  bool in_string = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (in_string && c == '\\' && i + 1 < line.size()) {
      result += c;
      result += line[++i];
      continue;
    }
    if (c == '"') in_string = !in_string;
    bool quoted = false;
    for (const std::string_view word : {"NaN", "Infinity", "-Infinity"}) {
      if (in_string || !line.substr(i).starts_with(word)) continue;
      result.append("\"").append(word).append("\"");
      i += word.size() - 1;
      quoted = true;
      break;
    }
    if (!quoted) result += c;
  }
  return result;
}

std::optional<double> number(const json& value, bool is_metric) {
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) return number_in(value.get_ref<const std::string&>());
  if (value.is_null() && is_metric) return std::numeric_limits<double>::quiet_NaN();
  return std::nullopt;
}

}  // namespace

std::optional<MetricReport> parse_json_report(std::string_view line, std::string_view metric) {
  const auto start = line.find_first_not_of(" \t");
  if (start == std::string_view::npos || line[start] != '{') return std::nullopt;
  json object = json::parse(line, nullptr, false);
  if (object.is_discarded()) object = json::parse(with_quoted_words(line), nullptr, false);
  if (!object.is_object()) return std::nullopt;
  const auto step = object.find("step");
  if (step == object.end() && !object.contains(metric)) return std::nullopt;
  MetricReport report;
  if (step != object.end() && step->is_number()) {
    const double at = step->get<double>();
    if (at >= 0 && at < 1e15) report.step = std::llround(at);
  }
  for (const auto& [name, value] : object.items()) {
    if (name == "step") continue;
    if (const auto x = number(value, name == metric)) report.values.emplace_back(name, *x);
  }
  return report;
}

std::optional<MetricReport> parse_log_line(std::string_view line, const sweeps::MetricPattern& pattern,
                                           std::string_view metric) {
  const auto found = pattern.find(line.substr(0, sweeps::MetricPattern::kMaxLine));
  if (!found) return std::nullopt;
  const auto value = number_in(found->value);
  if (!value) return std::nullopt;
  return MetricReport{found->step, {{std::string(metric), *value}}};
}

void LineSplitter::feed(std::string_view bytes, const Sink& line) {
  for (const char c : bytes) {
    if (c == '\n' || c == '\r')
      finish(line);
    else if (line_.size() < kMaxBytes)
      line_ += c;
  }
}

void LineSplitter::finish(const Sink& line) {
  if (line_.empty()) return;
  const std::string whole = std::move(line_);
  line_.clear();
  line(whole);
}

}  // namespace worker
