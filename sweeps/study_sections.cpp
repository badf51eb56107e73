#include "sweeps/study_sections.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <stdexcept>

#include <fmt/format.h>

#include "sweeps/plan.h"
#include "sweeps/transfer.h"

namespace sweeps {
namespace {

namespace fs = std::filesystem;

constexpr int kDefaultLrCount = 7;  // with 5 WDs the grid that SKEW was measured on
constexpr int kDefaultWdCount = 5;
constexpr int kDriftDesignPoints = 7;
constexpr double kMaxSeed = 9223372036854775807.0;

fs::path environment_folder(const Section& section, std::string_view key, const char* variable) {
  const char* value = std::getenv(variable);
  if (!value || !*value)
    section.fail(key, fmt::format("needs ${}, which is not set; write the whole path", variable));
  return value;
}

/// `~/x`, a path relative to the study file, or the name of a corpus that `tuneonce data fetch` keeps.
std::string resolve_path(const Section& section, std::string_view key, const std::string& text,
                         const fs::path& folder) {
  if (text.empty()) section.fail(key, "the path is empty; name a file or a folder");
  if (text == "gcide") {
    const char* cache = std::getenv("XDG_CACHE_HOME");
    const fs::path base =
        cache && *cache ? fs::path(cache) : environment_folder(section, key, "HOME") / ".cache";
    return (base / "tuneonce" / text).string();
  }
  if (text == "~" || text.starts_with("~/"))
    return (environment_folder(section, key, "HOME") /
            fs::path(text.substr(std::min<std::size_t>(2, text.size()))))
        .lexically_normal()
        .string();
  return fs::absolute(folder / text).lexically_normal().string();
}

/// Runs a check of another room and gives its message the place of the first key that it mentions.
template <class Check>
void placed(const Section& section, std::initializer_list<std::string_view> keys, const std::string& who,
            Check check) {
  try {
    check();
  } catch (const std::invalid_argument& error) {
    const std::string_view what = error.what();
    for (const auto key : keys)
      if (section.has(key) && what.find(key) != std::string_view::npos)
        section.fail_at(section.where(key), fmt::format("{}: {}", who, what));
    for (const auto key : keys)
      if (section.has(key)) section.fail_at(section.where(key), fmt::format("{}: {}", who, what));
    section.fail_at(section.where(""), fmt::format("{}: {}", who, what));
  }
}

/// A hidden width given as a multiple of the model's width.
std::int64_t hidden_width(const Section& section, std::string_view key, double expansion,
                          std::int64_t width) {
  const double exact = expansion * static_cast<double>(width);
  const double whole = std::round(exact);
  if (whole < 1 || std::abs(exact - whole) > 1e-6 * whole)
    section.fail(key,
                 fmt::format("expansion {} times width {} is {:.6g}, not a whole number of at least 1; {} "
                             "would give {}",
                             expansion, width, exact, std::max(1.0, whole) / static_cast<double>(width),
                             std::max(1.0, whole)));
  return static_cast<std::int64_t>(whole);
}

/// Reads one section after the other; later ones may use what earlier ones found.
class StudyReader {
 public:
  StudyReader(const Setting& root, const std::string& file, fs::path folder)
      : root_(file, "the study", root,
              {"schema", "name", "seed", "data", "model", "train", "space", "search", "transfer", "target",
               "drift", "resources", "retry"}),
        folder_(std::move(folder)) {}

  Study read() {
    head();
    data();
    model();
    train();
    search();
    space();
    size_of_sweep();
    transfer_rule();
    drift();
    targets();
    resources();
    retry();
    return std::move(study_);
  }

 private:
  void head();
  void data();
  void model();
  void train();
  void schedule(const Section& train);
  void search();
  void list_points(const Section& search);
  void space();
  Range range(const Section& space, std::string_view key, int default_count) const;
  Range range_table(const Section& section, const std::string& key, int default_count) const;
  void init_std(const Section& space);
  void size_of_sweep() const;
  void transfer_rule();
  void drift();
  double tolerance(const Section& drift, double& nats) const;
  void targets();
  TargetSpec target(const Setting& setting, std::size_t index);
  std::string target_name(const Section& section) const;
  void target_shape(const Section& section, TargetSpec& target) const;
  void resources();
  void retry();

  Section root_;
  fs::path folder_;
  Study study_;
};

void StudyReader::head() {
  root_.require("schema", "write schema = 1 on the first line");
  const auto schema = root_.whole("schema", 1, {});
  if (schema != 1)
    root_.fail("schema", fmt::format("{} is not a schema of this version; it reads schema = 1", schema));
  root_.require("name", "write for example name = \"my-study\"");
  study_.name = root_.text("name", "");
  if (study_.name.empty()) root_.fail("name", "it is empty; write for example name = \"my-study\"");
  study_.seed = static_cast<std::uint64_t>(root_.whole("seed", 1, {.low = 0, .high = kMaxSeed}));
}

void StudyReader::data() {
  root_.require("data", "write [data] with source = \"teacher\", \"text\" or \"tokens\"");
  const Section section =
      root_.table("data", {"source", "path", "validation_path", "holdout", "teacher_seed"});
  section.require("source", "write source = \"teacher\", \"text\" or \"tokens\"");
  const std::string source =
      section.choice("source", "", {"teacher", "text", "tokens"}, {"templates", "images"});
  auto& data = study_.data;
  if (source == "teacher") {
    data.source = DataSource::teacher;
    for (const auto key : {"path", "validation_path", "holdout"})
      section.refuse(key, "the built-in teacher makes its own tokens");
    data.teacher_seed = static_cast<std::uint64_t>(
        section.whole("teacher_seed", static_cast<std::int64_t>(study_.seed), {.low = 0, .high = kMaxSeed}));
    return;
  }
  data.source = source == "text" ? DataSource::text : DataSource::tokens;
  section.refuse("teacher_seed", fmt::format("source \"{}\" has no teacher", source));
  section.require("path", "name a file or a folder, for example path = \"~/.cache/tuneonce/gcide\"");
  data.path = resolve_path(section, "path", section.text("path", ""), folder_);
  if (source == "text")
    section.refuse("validation_path", "text is split by document; holdout is the share that is held out");
  if (section.has("validation_path")) {
    section.refuse("holdout", "the held-out tokens come from validation_path");
    data.validation_path =
        resolve_path(section, "validation_path", section.text("validation_path", ""), folder_);
  }
  data.holdout = section.number("holdout", data.holdout, {.low = 0, .high = 0.5, .low_open = true});
}

void StudyReader::model() {
  root_.require("model", "write [model] with the dense proxy's width, depth, head_size and context");
  const Section section = root_.table("model", {"family", "width", "depth", "head_size", "expansion",
                                                "context", "vocab", "moe", "expert_width"});
  section.choice("family", "language_model", {"language_model"}, {"diffusion_model", "command"});
  for (const auto key : {"moe", "expert_width"})
    section.refuse(key, "the proxy is dense; experts belong in a [[target]]");
  auto& shape = study_.proxy.shape;
  shape.width = section.whole("width", shape.width, at_least(1));
  shape.depth = section.whole("depth", shape.depth, at_least(1));
  shape.head_size = section.whole("head_size", shape.head_size, at_least(1));
  shape.context = section.whole("context", shape.context, at_least(1));
  shape.ffn_width =
      hidden_width(section, "expansion", section.number("expansion", 1, kPositive), shape.width);
  if (study_.data.source == DataSource::tokens) {
    section.require("vocab", "token files do not say how many ids there are; GPT-2's are 50257");
    shape.vocab = section.whole("vocab", 0, at_least(2));
  } else {
    shape.vocab = study_.data.source == DataSource::text ? 256 : 128;
    section.refuse("vocab",
                   fmt::format("source \"{}\" has {} tokens", name(study_.data.source), shape.vocab));
  }
  placed(section, {"head_size", "width", "depth", "context"}, "[model]", [&] { models::validate(shape); });
}

void StudyReader::train() {
  const Section section = root_.table(
      "train", {"steps", "batch", "schedule", "adamw", "clip", "init_std", "precision", "balance", "eval"});
  study_.proxy.steps = section.whole("steps", study_.proxy.steps, at_least(1));
  study_.proxy.batch = section.whole("batch", study_.proxy.batch, at_least(1));
  schedule(section);

  const Section adamw = section.table("adamw", {"beta1", "beta2", "eps"});
  const Bounds share{.low = 0, .high = 1, .high_open = true};
  study_.base.beta1 = adamw.number("beta1", study_.base.beta1, share);
  study_.base.beta2 = adamw.number("beta2", study_.base.beta2, share);
  study_.base.eps = adamw.number("eps", study_.base.eps, kPositive);
  study_.base.init_std = section.number("init_std", study_.base.init_std, kPositive);
  study_.clip = section.number("clip", study_.clip, at_least(0));
  study_.precision = section.choice("precision", "float32", {"float32", "bfloat16"}) == "bfloat16"
                         ? Precision::bfloat16
                         : Precision::float32;
  study_.balancing = section.choice("balance", "bias", {"bias", "none"}, {"aux"}) == "none" ? Balancing::none
                                                                                            : Balancing::bias;

  const Section eval = section.table("eval", {"tokens", "every"});
  study_.eval.tokens = eval.whole("tokens", study_.eval.tokens, at_least(1));
  study_.eval.every = eval.number("every", study_.eval.every, {.low = 0, .high = 1, .low_open = true});
  const auto context = study_.proxy.shape.context;
  if (study_.eval.tokens < context)
    eval.fail("tokens", fmt::format("{} is less than one sequence; give at least the context, {}",
                                    study_.eval.tokens, context));
}

void StudyReader::schedule(const Section& train) {
  const Section section = train.table("schedule", {"kind", "warmup", "decay"});
  auto& schedule = study_.schedule;
  const std::string kind = section.choice("kind", "wsd", {"wsd", "cosine", "linear"});
  schedule.warmup = section.number("warmup", schedule.warmup, {.low = 0, .high = 1, .high_open = true});
  if (kind != "wsd") {
    schedule.kind = kind == "cosine" ? ScheduleKind::cosine : ScheduleKind::linear;
    section.refuse("decay", fmt::format("\"{}\" falls from the end of the warm-up", kind));
    return;
  }
  schedule.decay = section.number("decay", schedule.decay, {.low = 0, .high = 1});
  if (schedule.warmup + schedule.decay > 1)
    section.fail("decay",
                 fmt::format("warm-up {} and decay {} are more than the whole run; their sum must be at "
                             "most 1",
                             schedule.warmup, schedule.decay));
}

void StudyReader::search() {
  const Section section =
      root_.table("search", {"method", "max_trials", "replicates", "extensions", "points", "lr_half_width"});
  const std::string method = section.choice("method", "grid", {"grid", "random", "list"}, {"adaptive"});
  auto& search = study_.search;
  search.method = method == "grid"     ? SearchMethod::grid
                  : method == "random" ? SearchMethod::random
                                       : SearchMethod::list;
  section.refuse("lr_half_width", fmt::format("it belongs to method \"adaptive\", not in this version"));
  search.max_trials =
      static_cast<int>(section.whole("max_trials", search.max_trials, {.low = 1, .high = 10000}));
  search.replicates =
      static_cast<int>(section.whole("replicates", search.replicates, {.low = 1, .high = 100}));
  search.extensions =
      static_cast<int>(section.whole("extensions", search.extensions, {.low = 0, .high = 20}));
  if (search.method == SearchMethod::list)
    list_points(section);
  else
    section.refuse("points", fmt::format("method is \"{}\"; points belong to method \"list\"", method));
}

void StudyReader::list_points(const Section& section) {
  section.require("points", "method \"list\" trains these: points = [[1e-3, 0.1], [2e-3, 0.1]], LR and WD");
  const auto* list = std::get_if<SettingList>(&section.find("points")->value);
  if (!list || list->empty()) section.fail("points", "write a list of pairs: [[1e-3, 0.1], [2e-3, 0.1]]");
  for (const auto& item : *list) {
    const auto* pair = std::get_if<SettingList>(&item.value);
    if (!pair || pair->size() != 2)
      section.fail_at(item.at, fmt::format("{} points: each must be a pair [LR, WD]", section.label()));
    const Setting entry{item.at,
                        SettingTable{{"lr", (*pair)[0].at, (*pair)[0]}, {"wd", (*pair)[1].at, (*pair)[1]}}};
    const Section point(section.file(), "[search] points", entry, {"lr", "wd"});
    const std::pair values{point.number("lr", 0, kPositive), point.number("wd", 0, kPositive)};
    auto& points = study_.search.points;
    if (std::find(points.begin(), points.end(), values) != points.end())
      section.fail_at(item.at, fmt::format("{} points: [{}, {}] is there twice; leave one out",
                                           section.label(), values.first, values.second));
    points.push_back(values);
  }
}

void StudyReader::space() {
  const bool listed = study_.search.method == SearchMethod::list;
  if (!listed)
    root_.require("space", "write [space] with lr and wd, for example lr = { min = 1e-3, max = 1e-2 }");
  const Section section = root_.table("space", {"lr", "wd", "init_std", "scan_lr", "scan_wd"});
  auto& space = study_.space;
  if (listed) {
    for (const auto key : {"lr", "wd"}) section.refuse(key, "method \"list\" trains [search] points");
    const auto& points = study_.search.points;
    const auto by_wd = [](const auto& a, const auto& b) { return a.second < b.second; };
    const auto [low_lr, high_lr] = std::minmax_element(points.begin(), points.end());
    const auto [low_wd, high_wd] = std::minmax_element(points.begin(), points.end(), by_wd);
    space.lr = {.min = low_lr->first, .max = high_lr->first};
    space.wd = {.min = low_wd->second, .max = high_wd->second};
  } else {
    space.lr = range(section, "lr", kDefaultLrCount);
    space.wd = range(section, "wd", kDefaultWdCount);
  }
  init_std(section);
}

Range StudyReader::range(const Section& space, std::string_view key, int default_count) const {
  space.require(
      key, fmt::format("write {} = {{ min = ..., max = ... }}, {{ values = [...] }} or one number", key));
  const Setting& setting = *space.find(key);
  if (!std::holds_alternative<SettingTable>(setting.value)) {
    const double value = space.number(key, 0, kPositive);
    return {.min = value, .max = value, .values = {value}};
  }
  return range_table(space.table(key, {"min", "max", "scale", "values", "count"}), std::string(key),
                     default_count);
}

Range StudyReader::range_table(const Section& section, const std::string& key, int default_count) const {
  const bool grid = study_.search.method == SearchMethod::grid;
  Range result;
  if (section.has("values")) {
    for (const auto other : {"min", "max", "scale", "count"})
      section.refuse(other, fmt::format("{} has explicit values", key));
    result.values = section.numbers("values", kPositive);
    if (!grid && result.values.size() > 1)
      section.fail("values", "method \"random\" draws from a range; give min and max, or one value");
    std::sort(result.values.begin(), result.values.end());
    result.min = result.values.front();
    result.max = result.values.back();
    return result;
  }
  for (const auto end : {"min", "max"}) section.require(end, "give both min and max, or values = [...]");
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
    section.refuse("count", "method \"random\" takes [search] max_trials points");
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

void StudyReader::init_std(const Section& section) {
  auto& space = study_.space;
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
  if (const auto* train = root_.find("train"))
    if (const auto* table = std::get_if<SettingTable>(&train->value))
      for (const auto& entry : *table)
        if (entry.key == "init_std")
          section.fail_at(entry.at,
                          "[train] init_std: has no effect: [space] init_std is scanned; leave it out");
  study_.base.init_std = space.init_std.front();
  const auto middle = [](const Range& range) { return rounded(std::sqrt(range.min * range.max)); };
  space.scan_lr = section.number("scan_lr", middle(space.lr), kPositive);
  space.scan_wd = section.number("scan_wd", middle(space.wd), kPositive);
}

void StudyReader::size_of_sweep() const {
  const auto points = sweep_points(study_).size();
  if (points <= static_cast<std::size_t>(study_.search.max_trials)) return;
  const Section section =
      root_.table("search", {"method", "max_trials", "replicates", "extensions", "points"});
  section.fail("max_trials",
               fmt::format("the sweep has {} points, more than max_trials = {}; raise it or take "
                           "fewer values",
                           points, study_.search.max_trials));
}

void StudyReader::transfer_rule() {
  const Section section =
      root_.table("transfer", {"rule", "depth_exponent", "duration_exponent", "wd_width", "head"});
  auto& rule = study_.rule;
  const std::string word = section.choice("rule", "complete-mue", {"complete-mue", "mup", "sp"},
                                          {"completep", "complete-dp", "mup-moe", "jiang", "mssp", "u-mup"});
  rule.rule = models::parse_parameterization(word);
  if (rule.rule != models::Parameterization::complete_mue)
    for (const auto key : {"depth_exponent", "duration_exponent", "head"})
      section.refuse(key, fmt::format("rule \"{}\" does not use it", word));
  if (rule.rule == models::Parameterization::sp) section.refuse("wd_width", "rule \"sp\" does not use it");
  rule.depth_exponent = section.number("depth_exponent", rule.depth_exponent, {.low = 0, .high = 2});
  rule.duration_exponent = section.number("duration_exponent", rule.duration_exponent, {.low = 0, .high = 2});
  rule.wd_width = models::parse_wd_width(
      section.choice("wd_width", models::name(rule.wd_width), {"literal", "scaled", "independent"}));
  rule.head = models::parse_head_rule(
      section.choice("head", models::name(rule.head), {"published", "mup", "complete-dp"}));
}

void StudyReader::drift() {
  const Section section = root_.table("drift", {"tolerance", "lr_shift", "wd_shift", "max_trials"});
  auto& drift = study_.drift;
  if (section.has("tolerance")) drift.tolerance_fraction = tolerance(section, drift.tolerance_nats);
  drift.lr_shift = section.number("lr_shift", drift.lr_shift, kPositive);
  drift.wd_shift = section.number("wd_shift", drift.wd_shift, kPositive);
  drift.max_trials = static_cast<int>(
      section.whole("max_trials", drift.max_trials, {.low = kDriftDesignPoints, .high = 1000}));
}

/// "0.1%" of the target's loss (returned as a share), or "0.003 nats" (put into `nats`).
double StudyReader::tolerance(const Section& section, double& nats) const {
  static constexpr std::string_view kHelp = "write \"0.1%\" (of the target's loss) or \"0.003 nats\"";
  const Setting& setting = *section.find("tolerance");
  const auto* text = std::get_if<std::string>(&setting.value);
  if (!text) section.fail("tolerance", fmt::format("{} has no unit; {}", type_name(setting), kHelp));
  double value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  std::string_view unit(end, static_cast<std::size_t>(text->data() + text->size() - end));
  unit.remove_prefix(std::min(unit.find_first_not_of(' '), unit.size()));
  if (error != std::errc{} || !(value > 0) || !std::isfinite(value) || (unit != "%" && unit != "nats"))
    section.fail("tolerance", fmt::format("\"{}\" is no tolerance above 0; {}", *text, kHelp));
  if (unit == "%" && value >= 100)
    section.fail("tolerance", fmt::format("\"{}\" would accept any loss; {}", *text, kHelp));
  if (unit == "%") return value / 100;
  nats = value;
  return 0;
}

void StudyReader::targets() {
  const auto* setting = root_.find("target");
  if (!setting) return;
  const auto* list = std::get_if<SettingList>(&setting->value);
  if (!list) root_.fail("target", "targets are a list; write [[target]] with two brackets");
  for (std::size_t i = 0; i < list->size(); ++i) study_.targets.push_back(target((*list)[i], i));
}

TargetSpec StudyReader::target(const Setting& setting, std::size_t index) {
  const Section section(root_.file(), fmt::format("[[target]] {}", index + 1), setting,
                        {"name", "moe", "width", "depth", "head_size", "expansion", "expert_width", "batch",
                         "steps", "drift", "baseline"});
  TargetSpec target;
  target.name = target_name(section);
  target.run = study_.proxy;
  target.run.steps = section.whole("steps", target.run.steps, at_least(1));
  target.run.batch = section.whole("batch", target.run.batch, at_least(1));
  target.drift = section.flag("drift", target.drift);
  target.baseline = section.flag("baseline", target.baseline);
  if (section.has("baseline") && study_.rule.rule == models::Parameterization::sp)
    section.refuse("baseline", "under rule \"sp\" the target is its own baseline");
  target_shape(section, target);
  // Refused now, before anything is trained: a beta that the rule would push past 1 or below 0.
  placed(section, {"steps", "batch"}, fmt::format("target \"{}\"", target.name),
         [&] { transfer(target.name, target.run, study_.proxy, study_.base, study_.rule); });
  return target;
}

std::string StudyReader::target_name(const Section& section) const {
  section.require("name", "write for example name = \"8e2a\"");
  const std::string name = section.text("name", "");
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  };
  if (name.empty() || !std::all_of(name.begin(), name.end(), plain))
    section.fail("name", fmt::format("\"{}\" must be letters, digits, '-', '_' or '.', at least one", name));
  if (name == "proxy" || name == "scan")
    section.fail("name", fmt::format("\"{}\" is what the proxy's own trials are called; take another", name));
  for (const auto& other : study_.targets)
    if (other.name == name)
      section.fail("name", fmt::format("\"{}\" is the name of another target too; names must differ", name));
  return name;
}

void StudyReader::target_shape(const Section& section, TargetSpec& target) const {
  auto& shape = target.run.shape;
  const std::string who = fmt::format("target \"{}\"", target.name);
  const double proxy_expansion =
      static_cast<double>(study_.proxy.shape.ffn_width) / static_cast<double>(study_.proxy.shape.width);
  shape.width = section.whole("width", shape.width, at_least(1));
  shape.depth = section.whole("depth", shape.depth, at_least(1));
  shape.head_size = section.whole("head_size", shape.head_size, at_least(1));
  if (section.has("moe")) {
    section.refuse("expansion", "the target is a MoE; expert_width is the hidden width of one expert");
    placed(section, {"moe"}, who, [&] {
      const auto code = models::parse_moe_code(section.text("moe", ""));
      shape.num_experts = code.num_experts;
      shape.num_active = code.num_active;
      shape.num_groups = code.num_groups;
      shape.num_shared = code.num_shared;
    });
    shape.expert_width = section.has("expert_width")
                             ? section.whole("expert_width", 0, at_least(1))
                             : hidden_width(section, "width", proxy_expansion, shape.width);
    shape.ffn_width = 0;
  } else {
    section.refuse("expert_width", "the target is dense; add moe = \"8e2a\", or give expansion");
    shape.ffn_width = hidden_width(section, "expansion",
                                   section.number("expansion", proxy_expansion, kPositive), shape.width);
  }
  placed(section, {"head_size", "groups", "active", "moe", "width", "depth"}, who,
         [&] { models::validate(shape); });
}

void StudyReader::resources() {
  const Section section = root_.table("resources", {"devices", "workers_per_device", "memory"});
  section.refuse("memory", "a bound on memory is not in this version");
  auto& resources = study_.resources;
  resources.workers_per_device = static_cast<int>(
      section.whole("workers_per_device", resources.workers_per_device, {.low = 1, .high = 64}));
  resources.devices = {"auto"};
  const auto* setting = section.find("devices");
  if (!setting) return;
  static constexpr const char* kHelp =
      "write \"auto\", or a list such as [\"cuda:0\", \"cuda:2\"] or [\"cpu\"]";
  if (const auto* word = std::get_if<std::string>(&setting->value)) {
    if (*word != "auto")
      section.fail("devices", fmt::format("\"{}\" is no list of devices; {}", *word, kHelp));
    return;
  }
  const auto* list = std::get_if<SettingList>(&setting->value);
  if (!list || list->empty()) section.fail("devices", kHelp);
  resources.devices.clear();
  for (const auto& item : *list) {
    const auto* device = std::get_if<std::string>(&item.value);
    const bool known =
        device && (*device == "cpu" || (device->starts_with("cuda:") && device->size() > 5 &&
                                        device->find_first_not_of("0123456789", 5) == std::string::npos));
    if (!known) section.fail_at(item.at, fmt::format("[resources] devices: unknown device; {}", kHelp));
    if (std::find(resources.devices.begin(), resources.devices.end(), *device) != resources.devices.end())
      section.fail_at(item.at, fmt::format("[resources] devices: \"{}\" is there twice; raise "
                                           "workers_per_device to run several workers on it",
                                           *device));
    resources.devices.push_back(*device);
  }
}

void StudyReader::retry() {
  const Section section = root_.table("retry", {"crash", "stop_after"});
  auto& retry = study_.retry;
  retry.crash = static_cast<int>(section.whole("crash", retry.crash, {.low = 0, .high = 100}));
  const std::string text = section.text("stop_after", fmt::format("{} in a row", retry.stop_after));
  if (text == "never") {
    retry.stop_after = 0;
    return;
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), retry.stop_after);
  if (error != std::errc{} || std::string_view(end) != " in a row" || retry.stop_after < 1)
    section.fail("stop_after",
                 fmt::format("\"{}\" is not understood; write \"5 in a row\" or \"never\"", text));
}

}  // namespace

Study read_sections(const Setting& root, const std::string& file, const fs::path& folder) {
  return StudyReader(root, file, folder).read();
}

}  // namespace sweeps
