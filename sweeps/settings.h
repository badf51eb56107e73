#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sweeps {

/// A configuration file as plain values that know where they stand, and readers that turn each mistake into
/// "file:line:column: what was found; what would work" (StudyError).

struct Position {
  int line = 0;
  int column = 0;
};

struct Setting;
struct Entry;
using SettingList = std::vector<Setting>;
using SettingTable = std::vector<Entry>;
/// A value of a type that no key takes (dates and times).
struct OtherValue {
  std::string type;
};

struct Setting {
  Position at;
  std::variant<bool, std::int64_t, double, std::string, SettingList, SettingTable, OtherValue> value;
};
struct Entry {
  std::string key;
  Position at;  // of the key
  Setting setting;
};

/// "a string", "a whole number", ...
std::string_view type_name(const Setting& setting);

/// The known word nearest to `word` by edit distance, or empty when none is near enough to be a slip.
std::string nearest(std::string_view word, std::span<const std::string_view> known);

/// Which numbers a key takes.
struct Bounds {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;
  bool high_open = false;

  bool contains(double value) const;
  std::string text() const;  // "a number above 0 and at most 0.5"
};
inline constexpr Bounds kPositive{.low = 0, .low_open = true};
inline Bounds at_least(double low) { return {.low = low}; }

/// A size as Section::bytes reads it, in the largest unit that loses nothing.
std::string bytes_text(std::int64_t bytes);

/// One table of the file. Getters return the default where the key is absent.
class Section {
 public:
  /// Throws at once for a key that is not in `known`, naming the nearest known one. `label` is how messages
  /// call the table: "[train]".
  Section(std::string file, std::string label, const Setting& table, std::vector<std::string_view> known);

  bool has(std::string_view key) const { return find(key) != nullptr; }
  const Setting* find(std::string_view key) const;
  const std::string& label() const { return label_; }
  const std::string& file() const { return file_; }

  double number(std::string_view key, double otherwise, const Bounds& bounds) const;
  std::int64_t whole(std::string_view key, std::int64_t otherwise, const Bounds& bounds) const;
  /// "6GiB", "500 MB": bytes. Above 0.
  std::int64_t bytes(std::string_view key, std::int64_t otherwise) const;
  /// "250ms", "1s", "30 min", "2h": seconds. 0 or more.
  double seconds(std::string_view key, double otherwise) const;
  bool flag(std::string_view key, bool otherwise) const;
  std::string text(std::string_view key, std::string otherwise) const;
  /// A sub-table; an empty one at this section's place when the key is absent.
  Section table(std::string_view key, std::vector<std::string_view> known) const;
  /// Same from a setting that the caller has found to be a table.
  Section table(std::string_view key, const Setting& setting, std::vector<std::string_view> known) const;
  std::vector<double> numbers(std::string_view key, const Bounds& bounds) const;

  /// A word out of a closed set. `later` are words that other versions know: refused as "not in this
  /// version".
  std::string choice(std::string_view key, std::string_view otherwise, std::vector<std::string_view> words,
                     std::vector<std::string_view> later = {}) const;

  void require(std::string_view key, std::string_view what_would_work) const;
  /// Throws when the key is given although it changes nothing.
  void refuse(std::string_view key, std::string_view why) const;

  /// Throw with the place of the key (of the section when the key is absent).
  [[noreturn]] void fail(std::string_view key, const std::string& message) const;
  [[noreturn]] void fail_at(Position at, const std::string& message) const;
  Position where(std::string_view key) const;

 private:
  double checked(std::string_view key, const Setting& setting, const Bounds& bounds) const;
  [[noreturn]] void wrong_type(std::string_view key, const Setting& setting, std::string_view wanted) const;

  std::string file_;
  std::string label_;
  Position at_;
  SettingTable entries_;
};

}  // namespace sweeps
