#include "sweeps/settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sweeps/study_file.h"

namespace sweeps {
namespace {

/// Edits to turn one word into the other; swapping neighbours is one edit (optimal string alignment).
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

std::string listed(std::span<const std::string_view> words) {
  return fmt::format("{}", fmt::join(words, ", "));
}

std::string_view known_kind(std::string_view label) { return label == "the study" ? "keys" : "keys there"; }

}  // namespace

std::string_view type_name(const Setting& setting) {
  switch (setting.value.index()) {
    case 0: return "true or false";
    case 1: return "a whole number";
    case 2: return "a decimal number";
    case 3: return "a string";
    case 4: return "a list";
    case 5: return "a table";
    default: return std::get<OtherValue>(setting.value).type;
  }
}

std::string nearest(std::string_view word, std::span<const std::string_view> known) {
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const auto candidate : known) {
    const auto distance = edit_distance(word, candidate);
    if (distance < best_distance && distance < candidate.size()) {
      best_distance = distance;
      best = candidate;
    }
  }
  return std::string(best);
}

bool Bounds::contains(double value) const {
  return std::isfinite(value) && (low_open ? value > low : value >= low) &&
         (high_open ? value < high : value <= high);
}

std::string Bounds::text() const {
  std::string result = "a number";
  const bool has_low = std::isfinite(low);
  if (has_low) result += fmt::format(" {} {}", low_open ? "above" : "of at least", low);
  if (std::isfinite(high))
    result += fmt::format("{} {} {}", has_low ? " and" : "", high_open ? "below" : "at most", high);
  return result;
}

Section::Section(std::string file, std::string label, const Setting& table,
                 std::vector<std::string_view> known)
    : file_(std::move(file)), label_(std::move(label)), at_(table.at) {
  const auto* entries = std::get_if<SettingTable>(&table.value);
  if (!entries) fail_at(table.at, fmt::format("{} is {}; it must be a table", label_, type_name(table)));
  entries_ = *entries;
  for (const auto& entry : entries_) {
    if (std::find(known.begin(), known.end(), entry.key) != known.end()) continue;
    const std::string hint = nearest(entry.key, known);
    const std::string help = hint.empty() ? fmt::format("{} are {}", known_kind(label_), listed(known))
                                          : fmt::format("did you mean \"{}\"?", hint);
    const char* what = std::holds_alternative<SettingTable>(entry.setting.value) ? "section" : "key";
    fail_at(entry.at, fmt::format("unknown {} \"{}\" in {}; {}", what, entry.key, label_, help));
  }
}

const Setting* Section::find(std::string_view key) const {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.key == key; });
  return found == entries_.end() ? nullptr : &found->setting;
}

Position Section::where(std::string_view key) const {
  const auto* setting = find(key);
  return setting ? setting->at : at_;
}

void Section::fail_at(Position at, const std::string& message) const {
  throw StudyError(fmt::format("{}:{}:{}: {}", file_, std::max(1, at.line), std::max(1, at.column), message));
}
void Section::fail(std::string_view key, const std::string& message) const {
  fail_at(where(key), fmt::format("{} {}: {}", label_, key, message));
}
void Section::wrong_type(std::string_view key, const Setting& setting, std::string_view wanted) const {
  fail_at(setting.at, fmt::format("{} {} is {}; it must be {}", label_, key, type_name(setting), wanted));
}

double Section::checked(std::string_view key, const Setting& setting, const Bounds& bounds) const {
  double value = 0;
  if (const auto* whole = std::get_if<std::int64_t>(&setting.value))
    value = static_cast<double>(*whole);
  else if (const auto* decimal = std::get_if<double>(&setting.value))
    value = *decimal;
  else
    wrong_type(key, setting, "a number, without quotes");
  if (!bounds.contains(value))
    fail_at(setting.at, fmt::format("{} {} is {}; it must be {}", label_, key, value, bounds.text()));
  return value;
}

double Section::number(std::string_view key, double otherwise, const Bounds& bounds) const {
  const auto* setting = find(key);
  return setting ? checked(key, *setting, bounds) : otherwise;
}

std::int64_t Section::whole(std::string_view key, std::int64_t otherwise, const Bounds& bounds) const {
  const auto* setting = find(key);
  if (!setting) return otherwise;
  const auto* value = std::get_if<std::int64_t>(&setting->value);
  if (!value) wrong_type(key, *setting, "a whole number such as 1000");
  checked(key, *setting, bounds);
  return *value;
}

namespace {

struct Unit {
  std::string_view name;
  double factor;
};
constexpr Unit kSizes[] = {{"GiB", 1073741824.0}, {"MiB", 1048576.0}, {"KiB", 1024.0}, {"GB", 1e9},
                           {"MB", 1e6},           {"kB", 1e3},        {"TiB", 1099511627776.0}, {"B", 1.0}};
constexpr Unit kTimes[] = {{"ms", 1e-3}, {"s", 1.0}, {"min", 60.0}, {"m", 60.0}, {"h", 3600.0}, {"d", 86400.0}};

/// A number and a unit, with or without blanks between; nothing when it is not that.
std::optional<double> quantity(std::string_view text, std::span<const Unit> units) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || !std::isfinite(value) || value < 0) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  while (text.starts_with(' ')) text.remove_prefix(1);
  for (const auto& unit : units)
    if (text == unit.name) return value * unit.factor;
  return std::nullopt;
}

}  // namespace

std::int64_t Section::bytes(std::string_view key, std::int64_t otherwise) const {
  const auto* setting = find(key);
  if (!setting) return otherwise;
  const auto* value = std::get_if<std::string>(&setting->value);
  if (!value) wrong_type(key, *setting, "a size in quotes such as \"6GiB\"");
  const auto size = quantity(*value, kSizes);
  if (!size || *size < 1 || *size > 1e18)
    fail(key, fmt::format("\"{}\" is no size; write a number and its unit, such as \"6GiB\" or \"500MB\"", *value));
  return static_cast<std::int64_t>(*size);
}

double Section::seconds(std::string_view key, double otherwise) const {
  const auto* setting = find(key);
  if (!setting) return otherwise;
  const auto* value = std::get_if<std::string>(&setting->value);
  if (!value) wrong_type(key, *setting, "a duration in quotes such as \"30s\"");
  const auto time = quantity(*value, kTimes);
  if (!time)
    fail(key, fmt::format("\"{}\" is no duration; write a number and its unit, such as \"30s\" or \"2h\"", *value));
  return *time;
}

std::string bytes_text(std::int64_t bytes) {
  for (const auto& unit : kSizes) {
    const auto factor = static_cast<std::int64_t>(unit.factor);
    if (bytes % factor == 0) return fmt::format("{}{}", bytes / factor, unit.name);
  }
  return fmt::format("{}B", bytes);
}

bool Section::flag(std::string_view key, bool otherwise) const {
  const auto* setting = find(key);
  if (!setting) return otherwise;
  const auto* value = std::get_if<bool>(&setting->value);
  if (!value) wrong_type(key, *setting, "true or false");
  return *value;
}

std::string Section::text(std::string_view key, std::string otherwise) const {
  const auto* setting = find(key);
  if (!setting) return otherwise;
  const auto* value = std::get_if<std::string>(&setting->value);
  if (!value) wrong_type(key, *setting, "a string in quotes");
  return *value;
}

Section Section::table(std::string_view key, std::vector<std::string_view> known) const {
  const auto* setting = find(key);
  return table(key, setting ? *setting : Setting{at_, SettingTable{}}, std::move(known));
}

Section Section::table(std::string_view key, const Setting& setting,
                       std::vector<std::string_view> known) const {
  // [train] schedule -> "[train] schedule"; the study's own sections are "[train]".
  std::string label = label_ == "the study" ? fmt::format("[{}]", key) : fmt::format("{} {}", label_, key);
  return Section(file_, std::move(label), setting, std::move(known));
}

std::vector<double> Section::numbers(std::string_view key, const Bounds& bounds) const {
  const auto* setting = find(key);
  if (!setting) return {};
  const auto* list = std::get_if<SettingList>(&setting->value);
  if (!list) wrong_type(key, *setting, "a list of numbers such as [0.01, 0.1]");
  if (list->empty()) fail(key, "the list is empty; give at least one value");
  std::vector<double> values;
  for (const auto& item : *list) {
    const double value = checked(key, item, bounds);
    if (std::find(values.begin(), values.end(), value) != values.end())
      fail_at(item.at, fmt::format("{} {}: {} is there twice; leave one out", label_, key, value));
    values.push_back(value);
  }
  return values;
}

std::string Section::choice(std::string_view key, std::string_view otherwise,
                            std::vector<std::string_view> words, std::vector<std::string_view> later) const {
  const std::string word = text(key, std::string(otherwise));
  if (std::find(words.begin(), words.end(), word) != words.end()) return word;
  if (std::find(later.begin(), later.end(), word) != later.end())
    fail_at(where(key),
            fmt::format("{} {} = \"{}\" is not in this version; use {}", label_, key, word, listed(words)));
  const std::string hint = nearest(word, words);
  fail_at(where(key), fmt::format("{} {} = \"{}\" is unknown; {}", label_, key, word,
                                  hint.empty() ? "use one of " + listed(words)
                                               : fmt::format("did you mean \"{}\"?", hint)));
}

void Section::require(std::string_view key, std::string_view what_would_work) const {
  if (!has(key)) fail_at(at_, fmt::format("{} lacks \"{}\"; {}", label_, key, what_would_work));
}

void Section::refuse(std::string_view key, std::string_view why) const {
  if (has(key)) fail(key, fmt::format("has no effect: {}; leave it out", why));
}

}  // namespace sweeps
