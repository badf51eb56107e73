#include "sweeps/study_shapes.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <stdexcept>

#include <fmt/format.h>

#include "sweeps/command_line.h"
#include "sweeps/metric_pattern.h"
#include "sweeps/transfer.h"

namespace sweeps {
namespace {

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

std::string target_name(const Section& section, const Study& study) {
  section.require("name", "write for example name = \"8e2a\"");
  const std::string name = section.text("name", "");
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  };
  if (name.empty() || !std::all_of(name.begin(), name.end(), plain))
    section.fail("name", fmt::format("\"{}\" must be letters, digits, '-', '_' or '.', at least one", name));
  if (name == "proxy" || name == "scan")
    section.fail("name", fmt::format("\"{}\" is what the proxy's own trials are called; take another", name));
  for (const auto& other : study.targets)
    if (other.name == name)
      section.fail("name", fmt::format("\"{}\" is the name of another target too; names must differ", name));
  return name;
}

void read_target_shape(const Section& section, const Study& study, TargetSpec& target) {
  auto& shape = target.run.shape;
  const std::string who = fmt::format("target \"{}\"", target.name);
  const double proxy_expansion =
      static_cast<double>(study.proxy.shape.ffn_width) / static_cast<double>(study.proxy.shape.width);
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

/// Refused now, before anything is trained: a shape that the rule says nothing about, a beta that it would
/// push past 1 or below 0.
void check_transfer(const Section& section, const Study& study, const TargetSpec& target) {
  placed(section, {"moe", "expert_width", "expansion", "depth", "steps", "batch"},
         fmt::format("target \"{}\"", target.name),
         [&] { transfer(target.name, target.run, study.proxy, study.base, target.rule); });
}

TargetSpec read_target(const Section& section, const Study& study) {
  TargetSpec target;
  target.name = target_name(section, study);
  target.run = study.proxy;
  target.run.steps = section.whole("steps", target.run.steps, at_least(1));
  target.run.batch = section.whole("batch", target.run.batch, at_least(1));
  target.drift = section.flag("drift", target.drift);
  target.baseline = section.flag("baseline", target.baseline);
  target.rule = study.rule;
  target.rule.rule = read_rule(section, "rule", study.rule.rule);
  if (target.rule.rule == models::Parameterization::sp)
    section.refuse("baseline", "under rule \"sp\" the target is its own baseline");
  read_target_shape(section, study, target);
  check_transfer(section, study, target);
  return target;
}

Section model_section(const Section& root) {
  return root.table("model",
                    {"family", "width", "depth", "head_size", "expansion", "context", "vocab", "patch", "moe",
                     "expert_width", "command", "metric", "metric_regex", "timeout"});
}

std::string family_of(const Section& model) {
  return model.choice("family", "language_model", {"language_model", "diffusion_model", "command"});
}

/// What the model is made for must be what the source holds.
void read_family(const Section& section, Study& study) {
  const std::string family = family_of(section);
  if (family == "command") {
    study.proxy.shape.family = models::ModelFamily::command;
    return;
  }
  const bool diffusion = family == "diffusion_model", images = has_images(study.data.source);
  if (diffusion && !images)
    section.fail("family", fmt::format("a diffusion model learns from images, but [data] source \"{}\" has "
                                       "tokens; use \"templates\" or \"images\"",
                                       name(study.data.source)));
  if (!diffusion && images)
    section.fail("family", fmt::format("[data] source \"{}\" has images, which a language model cannot read; "
                                       "write family = \"diffusion_model\"",
                                       name(study.data.source)));
  if (diffusion) study.proxy.shape.family = models::ModelFamily::diffusion_model;
}

/// The tokens of a diffusion model: the patches of the source's images.
void read_patches(const Section& section, models::ModelShape& shape) {
  section.refuse("context", "a diffusion model's tokens are the patches of an image; patch is their side");
  section.refuse("vocab", "a diffusion model has no vocabulary");
  shape.patch = section.whole("patch", 2, at_least(1));
  const auto side = shape.image_size / shape.patch;
  shape.context = side * side;
  shape.vocab = 0;
  if (side * shape.patch != shape.image_size)
    section.fail("patch", fmt::format("{} does not divide the image size, {} ([data] image_size)",
                                      shape.patch, shape.image_size));
}

std::vector<std::string> read_words(const Section& section) {
  static constexpr const char* kHelp =
      "write the program and its arguments as a list of strings, for example command = [\"python3\", "
      "\"train.py\", \"--config\", \"{config}\"]";
  section.require("command", kHelp);
  const auto* list = std::get_if<SettingList>(&section.find("command")->value);
  if (!list || list->empty()) section.fail("command", kHelp);
  std::vector<std::string> words;
  for (const auto& item : *list) {
    const auto* word = std::get_if<std::string>(&item.value);
    if (!word)
      section.fail_at(item.at,
                      fmt::format("[model] command: {} among the words; {}", type_name(item), kHelp));
    try {
      expand(*word, [](std::string_view) { return std::string(); });
    } catch (const std::invalid_argument& error) {
      section.fail_at(item.at, fmt::format("[model] command: {}", error.what()));
    }
    words.push_back(*word);
  }
  if (words.front().empty())
    section.fail_at(list->front().at, fmt::format("[model] command: no program; {}", kHelp));
  return words;
}

/// What trains the models of family "command"; the keys have no effect in others.
void read_command(const Section& section, const std::filesystem::path& folder, Study& study) {
  if (study.proxy.shape.family != models::ModelFamily::command) {
    for (const auto key : {"command", "metric", "metric_regex", "timeout"})
      section.refuse(key,
                     fmt::format("only family = \"command\" runs a program of yours, this is family \"{}\"",
                                 models::name(study.proxy.shape.family)));
    return;
  }
  auto& command = study.command;
  command.words = read_words(section);
  command.folder = std::filesystem::absolute(folder.empty() ? "." : folder).lexically_normal().string();
  command.metric = section.text("metric", command.metric);
  if (command.metric.empty() || command.metric == "step")
    section.fail("metric", fmt::format("\"{}\" is no metric's name; write for example metric = \"val_loss\"",
                                       command.metric));
  command.timeout_seconds = section.seconds("timeout", 0);
  command.metric_regex = section.text("metric_regex", "");
  if (!section.has("metric_regex")) return;
  try {
    MetricPattern pattern(command.metric_regex);
  } catch (const std::invalid_argument& error) {
    section.fail("metric_regex", error.what());
  }
}

/// The same target under another rule: same seed, same drift check.
TargetSpec copy_under(models::Parameterization rule, const TargetSpec& target) {
  TargetSpec copy = target;
  copy.name = fmt::format("{}@{}", target.name, models::name(rule));
  copy.rule.rule = rule;
  copy.baseline = false;
  copy.copy_of = target.name;
  return copy;
}

}  // namespace

models::Parameterization read_rule(const Section& section, std::string_view key,
                                   models::Parameterization otherwise) {
  std::vector<std::string_view> words;
  for (const auto rule : models::all_rules()) words.push_back(models::name(rule));
  const auto rule = models::parse_parameterization(section.choice(key, models::name(otherwise), words));
  if (!models::is_trained(rule))
    section.fail(key,
                 fmt::format("\"{}\" has a forward pass that this program does not train; `tuneonce transfer "
                             "--rule {}` prints its table",
                             models::name(rule), models::name(rule)));
  return rule;
}

bool has_command(const Section& root) { return family_of(model_section(root)) == "command"; }

void read_model(const Section& root, const std::filesystem::path& folder, Study& study) {
  root.require("model", "write [model] with the dense proxy's width, depth, head_size and context");
  const Section section = model_section(root);
  read_family(section, study);
  read_command(section, folder, study);
  for (const auto key : {"moe", "expert_width"})
    section.refuse(key, "the proxy is dense; experts belong in a [[target]]");
  auto& shape = study.proxy.shape;
  shape.width = section.whole("width", shape.width, at_least(1));
  shape.depth = section.whole("depth", shape.depth, at_least(1));
  shape.head_size = section.whole("head_size", shape.head_size, at_least(1));
  shape.ffn_width =
      hidden_width(section, "expansion", section.number("expansion", 1, kPositive), shape.width);
  if (shape.is_diffusion()) {
    read_patches(section, shape);
    placed(section, {"head_size", "patch", "width", "depth"}, "[model]", [&] { models::validate(shape); });
    return;
  }
  section.refuse("patch", "only a diffusion model has patches; context is the model's tokens");
  shape.context = section.whole("context", shape.context, at_least(1));
  if (study.data.source == DataSource::tokens) {
    section.require("vocab", "token files do not say how many ids there are; GPT-2's are 50257");
    shape.vocab = section.whole("vocab", 0, at_least(2));
  } else if (study.data.source == DataSource::command) {
    shape.vocab = section.whole("vocab", shape.vocab, at_least(2));
  } else {
    shape.vocab = study.data.source == DataSource::text ? 256 : 128;
    section.refuse("vocab", fmt::format("source \"{}\" has {} tokens", name(study.data.source), shape.vocab));
  }
  placed(section, {"head_size", "width", "depth", "context"}, "[model]", [&] { models::validate(shape); });
}

void read_targets(const Section& root, Study& study) {
  const auto* setting = root.find("target");
  if (!setting) return;
  const auto* list = std::get_if<SettingList>(&setting->value);
  if (!list) root.fail("target", "targets are a list; write [[target]] with two brackets");
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Section section(root.file(), fmt::format("[[target]] {}", i + 1), (*list)[i],
                          {"name", "moe", "width", "depth", "head_size", "expansion", "expert_width", "batch",
                           "steps", "rule", "drift", "baseline"});
    const TargetSpec target = read_target(section, study);
    study.targets.push_back(target);
    if (!target.drift || is_comparator(study, target)) continue;
    for (const auto rule : study.compare) {
      study.targets.push_back(copy_under(rule, target));
      check_transfer(section, study, study.targets.back());
    }
  }
}

}  // namespace sweeps
