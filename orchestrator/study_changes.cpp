#include "orchestrator/study_changes.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <sstream>

#include "sweeps/plan.h"

namespace orchestrator {
namespace {

/// "section.key" -> value; the i-th [[target]] is section "target.i".
std::map<std::string, std::string> keys(std::string_view toml) {
  std::map<std::string, std::string> values;
  std::map<std::string, int> tables;
  std::string section;
  std::istringstream stream{std::string(toml)};
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with("[[")) {
      const auto name = line.substr(2, line.find("]]") - 2);
      section = name + "." + std::to_string(++tables[name]) + ".";
    } else if (line.starts_with("[")) {
      section = line.substr(1, line.find(']') - 1) + ".";
    } else if (const auto equals = line.find('='); equals != std::string::npos && !line.starts_with("#")) {
      const auto end_of_key = line.find_last_not_of(' ', equals - 1);
      const auto start_of_value = line.find_first_not_of(' ', equals + 1);
      values[section + line.substr(0, end_of_key + 1)] =
          start_of_value == std::string::npos ? "" : line.substr(start_of_value);
    }
  }
  return values;
}

}  // namespace

std::vector<std::string> study_changes(std::string_view before, std::string_view after) {
  auto old_values = keys(before);
  auto new_values = keys(after);
  std::set<std::string> names;
  for (const auto& values : {old_values, new_values})
    for (const auto& [name, value] : values) names.insert(name);
  std::vector<std::string> changes;
  for (const auto& name : names) {
    const bool had = old_values.contains(name), has = new_values.contains(name);
    if (had && has && old_values[name] == new_values[name]) continue;
    changes.push_back(name + ": " + (had ? old_values[name] : "-") + " -> " + (has ? new_values[name] : "-"));
  }
  return changes;
}

std::vector<std::string> changes_of_meaning(const sweeps::Study& before, const sweeps::Study& after) {
  // A trial at the same point: if its key is the same, so are all.
  const auto key = [&](sweeps::Study study) {
    study.search.method = sweeps::SearchMethod::list;
    study.search.points = {{1e-3, 0.1}};
    study.search.replicates = 1;
    const bool scanned = !before.space.init_std.empty() && !after.space.init_std.empty();
    return sweeps::trial_key(sweeps::plan_sweep(study, scanned ? 0.02 : study.base.init_std).front());
  };
  if (key(before) == key(after)) return {};
  constexpr std::array kSections = {"seed", "data.", "model.", "train.", "transfer."};
  std::vector<std::string> changes;
  for (auto& change : study_changes(before.text, after.text))
    if (std::any_of(kSections.begin(), kSections.end(), [&](const char* name) { return change.starts_with(name); }))
      changes.push_back(std::move(change));
  if (before.data.fingerprint != after.data.fingerprint)
    changes.push_back("the data itself: " + before.data.fingerprint + " -> " + after.data.fingerprint);
  return changes;
}

}  // namespace orchestrator
