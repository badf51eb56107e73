#include "sweeps/study_space.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include <fmt/format.h>

#include "sweeps/adaptive.h"
#include "sweeps/plan.h"

namespace sweeps {
namespace {

constexpr int kDefaultLrCount = 7;  // with 5 WDs the grid that the fit was measured on
constexpr int kDefaultWdCount = 5;

std::vector<std::pair<double, double>> list_points(const Section& section) {
  section.require("points", "method \"list\" trains these: points = [[1e-3, 0.1], [2e-3, 0.1]], LR and WD");
  const auto* list = std::get_if<SettingList>(&section.find("points")->value);
  if (!list || list->empty()) section.fail("points", "write a list of pairs: [[1e-3, 0.1], [2e-3, 0.1]]");
  std::vector<std::pair<double, double>> points;
  for (const auto& item : *list) {
    const auto* pair = std::get_if<SettingList>(&item.value);
    if (!pair || pair->size() != 2)
      section.fail_at(item.at, fmt::format("{} points: each must be a pair [LR, WD]", section.label()));
    const Setting entry{item.at,
                        SettingTable{{"lr", (*pair)[0].at, (*pair)[0]}, {"wd", (*pair)[1].at, (*pair)[1]}}};
    const Section point(section.file(), "[search] points", entry, {"lr", "wd"});
    const std::pair values{point.number("lr", 0, kPositive), point.number("wd", 0, kPositive)};
    if (std::find(points.begin(), points.end(), values) != points.end())
      section.fail_at(item.at, fmt::format("{} points: [{}, {}] is there twice; leave one out",
                                           section.label(), values.first, values.second));
    points.push_back(values);
  }
  return points;
}

Range range_table(const Section& section, const std::string& key, SearchMethod method, int default_count) {
  const bool grid = method == SearchMethod::grid;
  Range result;
  if (section.has("values")) {
    for (const auto other : {"min", "max", "scale", "count"})
      section.refuse(other, fmt::format("{} has explicit values", key));
    result.values = section.numbers("values", kPositive);
    if (method == SearchMethod::adaptive)
      section.fail("values",
                   "method \"adaptive\" finds its own points between min and max; take method \"grid\"");
    if (!grid && result.values.size() > 1)
      section.fail("values", "method \"random\" draws from a range; give min and max, or one value");
    std::sort(result.values.begin(), result.values.end());
    result.min = result.values.front();
    result.max = result.values.back();
    return result;
  }
  for (const auto end : {"min", "max"}) section.require(end, "give both min and max, or values = [...]");
  if (method == SearchMethod::adaptive) section.refuse("scale", "the adaptive search works in octaves");
  result.log_scale = section.choice("scale", "log", {"log", "linear"}) == "log";
  for (const auto end : {"min", "max"})
    if (section.number(end, 0, {}) <= 0)
      section.fail(end, fmt::format("{} must be above 0: give values, not exponents (0.001 or 1e-3, not -3)",
                                    section.number(end, 0, {})));
  result.min = section.number("min", 0, kPositive);
  result.max = section.number("max", 0, kPositive);
  if (result.min >= result.max)
    section.fail("min", fmt::format("{} is not below max, {}; swap them, or write {} = {} for one value",
                                    result.min, result.max, key, result.min));
  if (!grid) {
    section.refuse("count", method == SearchMethod::random
                                ? "method \"random\" takes [search] max_trials points"
                                : "method \"adaptive\" finds its own points; min and max bound them");
    return result;
  }
  result.count = static_cast<int>(section.whole("count", default_count, {.low = 2, .high = 1000}));
  const auto values = grid_values(result);
  if (std::adjacent_find(values.begin(), values.end(), std::greater_equal<>()) != values.end())
    section.fail("count",
                 fmt::format("{} values between {} and {} are the same at four digits; widen the range "
                             "or take fewer",
                             result.count, result.min, result.max));
  return result;
}

Range range(const Section& space, std::string_view key, SearchMethod method, int default_count) {
  space.require(
      key, fmt::format("write {} = {{ min = ..., max = ... }}, {{ values = [...] }} or one number", key));
  const Setting& setting = *space.find(key);
  if (!std::holds_alternative<SettingTable>(setting.value)) {
    const double value = space.number(key, 0, kPositive);
    if (method == SearchMethod::adaptive)
      space.fail(
          key,
          "method \"adaptive\" needs a range: { min = ..., max = ... }; for one value take method \"grid\"");
    return {.min = value, .max = value, .values = {value}};
  }
  return range_table(space.table(key, {"min", "max", "scale", "values", "count"}), std::string(key), method,
                     default_count);
}

void read_init_std(const Section& root, const Section& section, Study& study) {
  auto& space = study.space;
  if (!section.has("init_std")) {
    for (const auto key : {"scan_lr", "scan_wd"}) section.refuse(key, "there is no [space] init_std to scan");
    return;
  }
  const Setting& setting = *section.find("init_std");
  space.init_std = std::holds_alternative<SettingTable>(setting.value)
                       ? section.table("init_std", {"values"}).numbers("values", kPositive)
                       : section.numbers("init_std", kPositive);
  if (space.init_std.empty()) section.fail("init_std", "write init_std = { values = [0.02, 0.04, 0.08] }");
  std::sort(space.init_std.begin(), space.init_std.end());
  if (const auto* train = root.find("train"))
    if (const auto* table = std::get_if<SettingTable>(&train->value))
      for (const auto& entry : *table)
        if (entry.key == "init_std")
          section.fail_at(entry.at,
                          "[train] init_std: has no effect: [space] init_std is scanned; leave it out");
  study.base.init_std = space.init_std.front();
  const auto middle = [](const Range& range) { return rounded(std::sqrt(range.min * range.max)); };
  space.scan_lr = section.number("scan_lr", middle(space.lr), kPositive);
  space.scan_wd = section.number("scan_wd", middle(space.wd), kPositive);
}

const std::vector<std::string_view> kSearchKeys = {
    "method", "max_trials", "replicates",    "extensions", "points",        "start",
    "batch",  "stop",       "lr_half_width", "confirm",    "early_stopping"};
constexpr std::string_view kWhyNoAsha =
    "the loss of a run that is cut short ranks learning rates wrongly, small ones look best before the "
    "decay; "
    "the fit needs whole runs, so take method \"adaptive\", or fewer steps for all";

/// Neither a count, explicit values nor a single number.
bool are_plain_ranges(const Section& root) {
  const Setting* space = root.find("space");
  const auto* table = space ? std::get_if<SettingTable>(&space->value) : nullptr;
  if (!table) return false;
  int num_ranges = 0;
  for (const auto& entry : *table) {
    if (entry.key != "lr" && entry.key != "wd") continue;
    const auto* range = std::get_if<SettingTable>(&entry.setting.value);
    num_ranges += range && std::none_of(range->begin(), range->end(), [](const Entry& inner) {
                    return inner.key == "count" || inner.key == "values";
                  });
  }
  return num_ranges == 2;
}

void read_adaptive(const Section& section, SearchSpec& search) {
  search.batch = static_cast<int>(section.whole("batch", search.batch, {.low = 1, .high = 16}));
  if (section.choice("stop", "measure", {"measure", "tune"}) == "tune") {
    search.stop = StopRule::tune;
    section.refuse("lr_half_width", "stop \"tune\" asks for the cost of the optimum, not for its place");
  }
  search.lr_half_width = section.number("lr_half_width", search.lr_half_width, {.low = 0.1, .high = 2});
  if (!section.has("start")) return;
  const auto values = section.numbers("start", kPositive);
  if (values.size() != 2) section.fail("start", "write a guess of LR and WD: start = [2e-3, 0.1]");
  search.start = {values[0], values[1]};
}

/// The nine start points must lie inside the ranges.
void place_start(const Section& root, const Section& space, Study& study) {
  auto& start = study.search.start;
  const bool given = start.first > 0;
  if (!given)
    start = {rounded(std::sqrt(study.space.lr.min * study.space.lr.max)),
             rounded(std::sqrt(study.space.wd.min * study.space.wd.max))};
  const auto check = [&](const char* key, const Range& range, double middle, double reach) {
    const double factor = std::exp2(reach) * 0.999;  // written with a few digits
    if (range.min * factor <= middle && middle * factor <= range.max) return;
    const auto message = fmt::format(
        "the adaptive search starts with points {} octaves either side of {} = {:.4g}: from {:.3g} to "
        "{:.3g}, outside "
        "of {:.4g} to {:.4g}; widen {}{}, or take method \"grid\"",
        reach, key, middle, middle / std::exp2(reach), middle * std::exp2(reach), range.min, range.max, key,
        given ? " or move [search] start" : "");
    if (given) root.table("search", kSearchKeys).fail("start", message);
    space.fail(key, message);
  };
  check("lr", study.space.lr, start.first, kStartReachLr);
  check("wd", study.space.wd, start.second, kStartReachWd);
}

}  // namespace

void read_search(const Section& root, Study& study) {
  const Section section = root.table("search", kSearchKeys);
  auto& search = study.search;
  if (const Setting* stopping = section.find("early_stopping");
      stopping && std::holds_alternative<std::string>(stopping->value))
    section.fail("early_stopping",
                 fmt::format("write true or false; schemes such as \"asha\" are refused: {}", kWhyNoAsha));
  search.early_stopping = section.flag("early_stopping", search.early_stopping);
  if (const std::string word = section.text("method", "grid"); word == "asha" || word == "hyperband")
    section.fail("method", fmt::format("\"{}\" is refused: {}", word, kWhyNoAsha));
  const std::string method = section.choice("method", are_plain_ranges(root) ? "adaptive" : "grid",
                                            {"adaptive", "grid", "random", "list"});
  search.method = method == "adaptive" ? SearchMethod::adaptive
                  : method == "grid"   ? SearchMethod::grid
                  : method == "random" ? SearchMethod::random
                                       : SearchMethod::list;
  const bool adaptive = search.method == SearchMethod::adaptive;
  const double fewest = adaptive ? kFewestAdaptive : 1;
  search.max_trials =
      static_cast<int>(section.whole("max_trials", search.max_trials, {.low = fewest, .high = 10000}));
  search.replicates =
      static_cast<int>(section.whole("replicates", search.replicates, {.low = 1, .high = 100}));
  search.confirm = static_cast<int>(section.whole("confirm", adaptive ? 2 : 0, {.low = 0, .high = 100}));
  if (adaptive) {
    section.refuse("extensions", "the adaptive search walks after an edge until max_trials");
    read_adaptive(section, search);
  } else {
    for (const auto key : {"start", "batch", "stop", "lr_half_width"})
      section.refuse(key, fmt::format("method is \"{}\"; it belongs to method \"adaptive\"", method));
    search.extensions =
        static_cast<int>(section.whole("extensions", search.extensions, {.low = 0, .high = 20}));
  }
  if (search.method == SearchMethod::list)
    search.points = list_points(section);
  else
    section.refuse("points", fmt::format("method is \"{}\"; points belong to method \"list\"", method));
}

void read_space(const Section& root, Study& study) {
  const bool listed = study.search.method == SearchMethod::list;
  if (!listed)
    root.require("space", "write [space] with lr and wd, for example lr = { min = 1e-3, max = 1e-2 }");
  const Section section = root.table("space", {"lr", "wd", "init_std", "scan_lr", "scan_wd"});
  auto& space = study.space;
  if (listed) {
    for (const auto key : {"lr", "wd"}) section.refuse(key, "method \"list\" trains [search] points");
    const auto& points = study.search.points;
    const auto by_wd = [](const auto& a, const auto& b) { return a.second < b.second; };
    const auto [low_lr, high_lr] = std::minmax_element(points.begin(), points.end());
    const auto [low_wd, high_wd] = std::minmax_element(points.begin(), points.end(), by_wd);
    space.lr = {.min = low_lr->first, .max = high_lr->first};
    space.wd = {.min = low_wd->second, .max = high_wd->second};
  } else {
    space.lr = range(section, "lr", study.search.method, kDefaultLrCount);
    space.wd = range(section, "wd", study.search.method, kDefaultWdCount);
  }
  if (study.search.method == SearchMethod::adaptive) place_start(root, section, study);
  read_init_std(root, section, study);
}

void check_sweep_size(const Section& root, const Study& study) {
  const auto points = sweep_points(study).size();
  if (points <= static_cast<std::size_t>(study.search.max_trials)) return;
  root.table("search", kSearchKeys)
      .fail("max_trials", fmt::format("the sweep has {} points, more than max_trials = {}; raise it or take "
                                      "fewer values",
                                      points, study.search.max_trials));
}

}  // namespace sweeps
