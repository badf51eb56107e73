#include "sweeps/study_sections.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <functional>

#include <fmt/format.h>

#include "sweeps/corpora.h"
#include "sweeps/study_shapes.h"
#include "sweeps/study_space.h"
#include "sweeps/tolerance.h"

namespace sweeps {
namespace {

namespace fs = std::filesystem;

constexpr int kDriftDesignPoints = 7;
constexpr std::int64_t kDefaultEvalImages = 1024;
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
  if (std::find(kCorpora.begin(), kCorpora.end(), text) != kCorpora.end()) {
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

void read_head(const Section& root, Study& study) {
  root.require("schema", "write schema = 1 on the first line");
  const auto schema = root.whole("schema", 1, {});
  if (schema != 1)
    root.fail("schema", fmt::format("{} is not a schema of this version; it reads schema = 1", schema));
  root.require("name", "write for example name = \"my-study\"");
  study.name = root.text("name", "");
  if (study.name.empty()) root.fail("name", "it is empty; write for example name = \"my-study\"");
  if (study.name.find('/') != std::string::npos)
    root.fail("name", "a name with a slash cannot name the database; write for example name = \"my-study\"");
  study.seed = static_cast<std::uint64_t>(root.whole("seed", 1, {.low = 0, .high = kMaxSeed}));
}

/// [data] of a source of images; their size goes into the proxy's shape.
void read_image_data(const Section& section, const std::string& source, const fs::path& folder,
                     Study& study) {
  auto& data = study.data;
  auto& shape = study.proxy.shape;
  const bool built_in = source == "templates";
  data.source = built_in ? DataSource::templates : DataSource::images;
  section.refuse("teacher_seed", fmt::format("source \"{}\" has no teacher", source));
  section.refuse("validation_path", "held-out images are the data set's test files, or a share of all");
  shape.image_size = section.whole("image_size", built_in ? 8 : 28, {.low = 1, .high = 1024});
  shape.channels = section.whole("channels", 1, {.low = 1, .high = 16});
  if (built_in) {
    section.refuse("path", "the built-in templates make their own images");
    section.refuse("holdout", "the built-in templates make their own held-out images");
    data.teacher_seed = static_cast<std::uint64_t>(
        section.whole("template_seed", static_cast<std::int64_t>(study.seed), {.low = 0, .high = kMaxSeed}));
    return;
  }
  section.refuse("template_seed", "source \"images\" has no templates");
  section.require("path", "name a file or a folder of images, or \"fashion-mnist\" as fetched");
  data.path = resolve_path(section, "path", section.text("path", ""), folder);
  data.holdout = 0;  // the test files, or a small share where there are none
  if (section.has("holdout"))
    data.holdout = section.number("holdout", 0, {.low = 0, .high = 0.5, .low_open = true});
}

/// [data] of family "command" may be left out: its program reads what it likes.
void read_command_data(const Section& root, const fs::path& folder, Study& study) {
  const Section section = root.table("data", {"source", "path", "validation_path", "holdout", "teacher_seed",
                                              "template_seed", "image_size", "channels"});
  const std::string why = "the program of family \"command\" reads its own data; path is handed to it";
  for (const auto key :
       {"validation_path", "holdout", "teacher_seed", "template_seed", "image_size", "channels"})
    section.refuse(key, why);
  if (section.text("source", "command") != "command") section.refuse("source", why);
  study.data.source = DataSource::command;
  if (section.has("path")) study.data.path = resolve_path(section, "path", section.text("path", ""), folder);
}

void read_data(const Section& root, const fs::path& folder, Study& study) {
  if (has_command(root)) return read_command_data(root, folder, study);
  static constexpr const char* kSources =
      "source = \"teacher\", \"text\" or \"tokens\" for a language model, \"templates\" or \"images\" for a "
      "diffusion model";
  root.require("data", fmt::format("write [data] with {}", kSources));
  const Section section = root.table("data", {"source", "path", "validation_path", "holdout", "teacher_seed",
                                              "template_seed", "image_size", "channels"});
  section.require("source", fmt::format("write {}", kSources));
  const std::string source =
      section.choice("source", "", {"teacher", "text", "tokens", "templates", "images"});
  auto& data = study.data;
  if (source == "templates" || source == "images") {
    read_image_data(section, source, folder, study);
    return;
  }
  for (const auto key : {"template_seed", "image_size", "channels"})
    section.refuse(key, fmt::format("source \"{}\" has no images", source));
  if (source == "teacher") {
    data.source = DataSource::teacher;
    for (const auto key : {"path", "validation_path", "holdout"})
      section.refuse(key, "the built-in teacher makes its own tokens");
    data.teacher_seed = static_cast<std::uint64_t>(
        section.whole("teacher_seed", static_cast<std::int64_t>(study.seed), {.low = 0, .high = kMaxSeed}));
    return;
  }
  data.source = source == "text" ? DataSource::text : DataSource::tokens;
  section.refuse("teacher_seed", fmt::format("source \"{}\" has no teacher", source));
  section.require("path", "name a file or a folder, for example path = \"~/.cache/tuneonce/gcide\"");
  data.path = resolve_path(section, "path", section.text("path", ""), folder);
  if (source == "text")
    section.refuse("validation_path", "text is split by document; holdout is the share that is held out");
  if (section.has("validation_path")) {
    section.refuse("holdout", "the held-out tokens come from validation_path");
    data.validation_path =
        resolve_path(section, "validation_path", section.text("validation_path", ""), folder);
  }
  data.holdout = section.number("holdout", data.holdout, {.low = 0, .high = 0.5, .low_open = true});
}

void read_schedule(const Section& section, Schedule& schedule) {
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

/// [train] branches: horizons of the sweep, as fractions of the steps.
void read_branches(const Section& section, Study& study) {
  if (!section.has("branches")) return;
  if (study.proxy.shape.family == models::ModelFamily::command)
    section.refuse("branches", "a program of family \"command\" reports one metric, at its end");
  static constexpr const char* kHelp = "write for example branches = [0.25, 0.5, 1.0]";
  if (study.schedule.kind != ScheduleKind::wsd)
    section.fail("branches",
                 fmt::format("a \"{}\" schedule has no stable phase to branch from; use kind = \"wsd\"",
                             name(study.schedule.kind)));
  const auto branches = section.numbers("branches", {.low = 0, .high = 1, .low_open = true});
  if (std::ranges::adjacent_find(branches, std::greater_equal<>()) != branches.end())
    section.fail("branches", fmt::format("they must rise; {}", kHelp));
  if (branches.empty() || branches.back() != 1)
    section.fail("branches", fmt::format("the last one must be 1.0, the run itself; {}", kHelp));
  if (branches.size() == 1) section.fail("branches", fmt::format("1.0 alone is no branch; {}", kHelp));
  TrialSpec spec;
  spec.run = study.proxy;
  spec.schedule = study.schedule;
  spec.branches = branches;
  const auto warmup = std::llround(study.schedule.warmup * static_cast<double>(study.proxy.steps));
  for (const auto& branch : branch_points(spec))
    if (branch.steps < 1 || branch.start < warmup)
      section.fail("branches",
                   fmt::format("{} would decay from step {}, within the warm-up of {} steps; leave it "
                               "out or train longer",
                               branch.fraction, branch.start, warmup));
  study.branches = branches;
}

void read_train(const Section& root, Study& study) {
  const Section section = root.table("train", {"steps", "batch", "schedule", "adamw", "clip", "init_std",
                                               "precision", "balance", "eval", "branches"});
  study.proxy.steps = section.whole("steps", study.proxy.steps, at_least(1));
  study.proxy.batch = section.whole("batch", study.proxy.batch, at_least(1));
  read_schedule(section.table("schedule", {"kind", "warmup", "decay"}), study.schedule);
  read_branches(section, study);

  const Section adamw = section.table("adamw", {"beta1", "beta2", "eps"});
  const Bounds share{.low = 0, .high = 1, .high_open = true};
  study.base.beta1 = adamw.number("beta1", study.base.beta1, share);
  study.base.beta2 = adamw.number("beta2", study.base.beta2, share);
  study.base.eps = adamw.number("eps", study.base.eps, kPositive);
  study.base.init_std = section.number("init_std", study.base.init_std, kPositive);
  study.clip = section.number("clip", study.clip, at_least(0));
  study.precision = section.choice("precision", "float32", {"float32", "bfloat16"}) == "bfloat16"
                        ? Precision::bfloat16
                        : Precision::float32;
  study.balancing = section.choice("balance", "bias", {"bias", "none"}, {"aux"}) == "none" ? Balancing::none
                                                                                           : Balancing::bias;

  const Section eval = section.table("eval", {"tokens", "images", "every"});
  study.eval.every = eval.number("every", study.eval.every, {.low = 0, .high = 1, .low_open = true});
  const auto context = study.proxy.shape.context;
  if (study.proxy.shape.is_diffusion()) {
    eval.refuse("tokens", "a diffusion model is evaluated on images; give images = 1024");
    study.eval.tokens = eval.whole("images", kDefaultEvalImages, {.low = 1, .high = 1 << 24}) * context;
    return;
  }
  eval.refuse("images", "a language model is evaluated on tokens; give tokens = 131072");
  study.eval.tokens = eval.whole("tokens", study.eval.tokens, at_least(1));
  if (study.eval.tokens < context)
    eval.fail("tokens", fmt::format("{} is less than one sequence; give at least the context, {}",
                                    study.eval.tokens, context));
}

/// The rules of [transfer] compare: none twice, and not the one that the others are compared with.
void read_compare(const Section& section, Study& study) {
  const auto* setting = section.find("compare");
  if (!setting) return;
  const auto* list = std::get_if<SettingList>(&setting->value);
  if (!list) section.fail("compare", "is no list; write for example compare = [\"sp\", \"mup\"]");
  for (const auto& item : *list) {
    const Setting alone{item.at, SettingTable{{"compare", item.at, item}}};
    const auto rule = read_rule(Section(section.file(), "[transfer]", alone, {"compare"}), "compare", {});
    if (rule == study.rule.rule)
      section.fail_at(item.at, fmt::format("[transfer] compare: \"{}\" is the study's own rule; leave it out",
                                           models::name(rule)));
    if (std::find(study.compare.begin(), study.compare.end(), rule) != study.compare.end())
      section.fail_at(item.at, fmt::format("[transfer] compare: \"{}\" is there twice; leave one out",
                                           models::name(rule)));
    study.compare.push_back(rule);
  }
}

Section transfer_section(const Section& root) {
  return root.table("transfer", {"rule", "compare", "depth_exponent", "duration_exponent", "wd_width", "head",
                                 "mssp_regime"});
}

void read_transfer(const Section& root, Study& study) {
  const Section section = transfer_section(root);
  auto& rule = study.rule;
  rule.rule = read_rule(section, "rule", rule.rule);
  read_compare(section, study);
  rule.depth_exponent = section.number("depth_exponent", rule.depth_exponent, {.low = 0, .high = 2});
  rule.duration_exponent = section.number("duration_exponent", rule.duration_exponent, {.low = 0, .high = 2});
  rule.wd_width = models::parse_wd_width(
      section.choice("wd_width", models::name(rule.wd_width), {"literal", "scaled", "independent"}));
  rule.head = models::parse_head_rule(
      section.choice("head", models::name(rule.head), {"published", "mup", "complete-dp"}));
  rule.mssp_regime = static_cast<int>(section.whole("mssp_regime", rule.mssp_regime, {.low = 1, .high = 3}));
}

/// Only when the targets are known is it known which rules are in use.
void refuse_unused_options(const Section& root, const Study& study) {
  const Section section = transfer_section(root);
  const auto use = options_in_use(study);
  const std::string why = fmt::format("rule \"{}\" does not use it", models::name(study.rule.rule));
  if (!use.depth_exponent) section.refuse("depth_exponent", why);
  if (!use.duration_exponent) section.refuse("duration_exponent", why);
  if (!use.wd_width) section.refuse("wd_width", why);
  if (!use.head) section.refuse("head", why);
  if (!use.mssp_regime) section.refuse("mssp_regime", why);
  if (study.compare.empty()) return;
  const auto has_drift = [](const TargetSpec& target) { return target.drift; };
  if (std::none_of(study.targets.begin(), study.targets.end(), has_drift))
    section.refuse("compare", "no target has drift = true, and only those are tried under other rules");
}

Tolerance tolerance(const Section& section, std::string_view loss_unit) {
  const Setting& setting = *section.find("tolerance");
  const auto* text = std::get_if<std::string>(&setting.value);
  if (!text)
    section.fail("tolerance", fmt::format("{} has no unit; {}", type_name(setting), tolerance_help(loss_unit)));
  try {
    return parse_tolerance(*text, loss_unit);
  } catch (const std::invalid_argument& error) {
    section.fail("tolerance", error.what());
  }
}

void read_drift(const Section& root, std::string_view loss_unit, DriftSpec& drift) {
  const Section section = root.table("drift", {"tolerance", "lr_shift", "wd_shift", "strict", "max_trials"});
  if (section.has("tolerance")) {
    const Tolerance given = tolerance(section, loss_unit);
    drift.tolerance_fraction = given.nats > 0 ? 0 : given.fraction;
    drift.tolerance_nats = given.nats;
  }
  drift.lr_shift = section.number("lr_shift", drift.lr_shift, kPositive);
  drift.wd_shift = section.number("wd_shift", drift.wd_shift, kPositive);
  drift.strict = section.flag("strict", drift.strict);
  drift.max_trials = static_cast<int>(
      section.whole("max_trials", drift.max_trials, {.low = kDriftDesignPoints, .high = 1000}));
}

void read_resources(const Section& root, ResourceSpec& resources) {
  const Section section = root.table(
      "resources", {"devices", "workers_per_device", "device_share", "memory", "host_reserve"});
  const auto* workers = section.find("workers_per_device");
  if (const auto* word = workers ? std::get_if<std::string>(&workers->value) : nullptr) {
    if (*word != "auto")
      section.fail("workers_per_device", fmt::format("\"{}\" is no number; write one, or \"auto\"", *word));
    resources.workers_per_device = 0;
  } else {
    resources.workers_per_device = static_cast<int>(
        section.whole("workers_per_device", resources.workers_per_device, {.low = 1, .high = 64}));
  }
  resources.device_share =
      section.number("device_share", resources.device_share, {.low = 0, .high = 1, .low_open = true});
  if (workers) section.refuse("device_share", "workers_per_device says it already");
  resources.memory = section.bytes("memory", resources.memory);
  if (resources.memory > 0 && !workers && resources.device_share == 0) resources.workers_per_device = 0;
  resources.host_reserve = section.bytes("host_reserve", resources.host_reserve);
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
  if (workers && resources.workers_per_device == 0 && resources.memory == 0 &&
      resources.devices == std::vector<std::string>{"cpu"})
    section.refuse("workers_per_device", "\"auto\" is for GPUs, and a core takes one worker");
}

void read_retry(const Section& root, RetrySpec& retry) {
  const Section section = root.table("retry", {"crash", "stalled", "worker_lost", "oom_host", "oom_gpu", "gpu_lost",
                                               "backoff", "stop_after"});
  const auto limit = [&](std::string_view key, int otherwise) {
    return static_cast<int>(section.whole(key, otherwise, {.low = 0, .high = 100}));
  };
  retry.crash = limit("crash", retry.crash);
  retry.stalled = limit("stalled", retry.crash);
  retry.worker_lost = limit("worker_lost", retry.crash);
  retry.oom_host = limit("oom_host", retry.crash);
  retry.oom_gpu = limit("oom_gpu", retry.oom_gpu);
  retry.gpu_lost = limit("gpu_lost", retry.gpu_lost);
  retry.backoff = section.seconds("backoff", retry.backoff);
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

void read_disk(const Section& root, DiskSpec& disk) {
  const Section section = root.table("disk", {"log", "checkpoints", "study", "keep_free"});
  disk.log = section.bytes("log", disk.log);
  disk.checkpoints = section.bytes("checkpoints", disk.checkpoints);
  disk.study = section.bytes("study", disk.study);
  disk.keep_free = section.bytes("keep_free", disk.keep_free);
}

}  // namespace

Study read_sections(const Setting& root, const std::string& file, const fs::path& folder) {
  const Section sections(file, "the study", root,
                         {"schema", "name", "seed", "data", "model", "train", "space", "search", "transfer",
                          "target", "drift", "resources", "retry", "disk"});
  Study study;
  read_head(sections, study);
  read_data(sections, folder, study);
  read_model(sections, folder, study);
  read_train(sections, study);
  read_search(sections, study);
  read_space(sections, study);
  check_sweep_size(sections, study);
  read_transfer(sections, study);
  read_drift(sections, loss_unit(study.proxy.shape), study.drift);
  read_targets(sections, study);
  refuse_unused_options(sections, study);
  read_resources(sections, study.resources);
  read_retry(sections, study.retry);
  read_disk(sections, study.disk);
  return study;
}

}  // namespace sweeps
