#include "orchestrator/calculator.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <span>
#include <stdexcept>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sweeps/settings.h"

namespace orchestrator {
namespace {

/// The parts of "128e8a1s,width=1024" that have no '=', and those that have.
struct Words {
  std::vector<std::string> plain;
  std::map<std::string, double> values;
};

[[noreturn]] void refuse(const std::string& text, const std::string& why) {
  throw std::invalid_argument(fmt::format("\"{}\": {}", text, why));
}

double positive_number(const std::string& text, const std::string& key, const std::string& value) {
  double number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size() || !std::isfinite(number) || number <= 0)
    refuse(text, fmt::format("{} is \"{}\"; it must be a number above 0", key, value));
  return number;
}

Words words(const std::string& text, std::span<const std::string_view> keys) {
  Words result;
  for (std::size_t begin = 0; begin <= text.size();) {
    const auto end = std::min(text.find(',', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    begin = end + 1;
    const auto equals = word.find('=');
    if (equals == std::string::npos) {
      result.plain.push_back(word);
      continue;
    }
    const std::string key = word.substr(0, equals);
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      const std::string hint = sweeps::nearest(key, keys);
      refuse(text, fmt::format("unknown key \"{}\"; {}", key,
                               hint.empty() ? fmt::format("keys are {}", fmt::join(keys, ", "))
                                            : fmt::format("did you mean \"{}\"?", hint)));
    }
    if (result.values.contains(key)) refuse(text, key + " is there twice; leave one out");
    result.values[key] = positive_number(text, key, word.substr(equals + 1));
  }
  return result;
}

/// Takes a whole number that is given, and leaves `value` as it is otherwise.
void take(const std::string& text, const Words& given, const char* key, std::int64_t& value) {
  const auto found = given.values.find(key);
  if (found == given.values.end()) return;
  if (found->second != std::floor(found->second) || found->second > 9e15)
    refuse(text, fmt::format("{} is {}; it must be a whole number", key, found->second));
  value = static_cast<std::int64_t>(found->second);
}

void take_common(const std::string& text, const Words& given, models::RunShape& run) {
  take(text, given, "width", run.shape.width);
  take(text, given, "depth", run.shape.depth);
  take(text, given, "head_size", run.shape.head_size);
  take(text, given, "batch", run.batch);
  take(text, given, "steps", run.steps);
}

std::int64_t hidden_width(const std::string& text, double expansion, std::int64_t width) {
  const double exact = expansion * static_cast<double>(width);
  if (exact < 1 || std::abs(exact - std::round(exact)) > 1e-6 * exact)
    refuse(text, fmt::format("expansion {} times width {} is {:.6g}, not a whole number of at least 1",
                             expansion, width, exact));
  return std::llround(exact);
}

double expansion_of(const Words& given, double otherwise) {
  const auto found = given.values.find("expansion");
  return found == given.values.end() ? otherwise : found->second;
}

void check_shape(const std::string& text, const models::RunShape& run) {
  try {
    models::validate(run.shape);
  } catch (const std::invalid_argument& error) {
    refuse(text, error.what());
  }
}

}  // namespace

models::ModelFamily parse_family(const std::string& text) {
  for (const auto family : {models::ModelFamily::language_model, models::ModelFamily::diffusion_model})
    if (text == models::name(family)) return family;
  throw std::invalid_argument(
      fmt::format("--family \"{}\" is unknown; known: language_model, diffusion_model", text));
}

models::RunShape parse_proxy(const std::string& text, models::ModelFamily family) {
  const bool diffusion = family == models::ModelFamily::diffusion_model;
  std::vector<std::string_view> keys = {"width", "depth", "head_size", "expansion", "batch", "steps"};
  if (diffusion)
    keys.insert(keys.end(), {"image_size", "channels", "patch"});
  else
    keys.insert(keys.end(), {"context", "vocab"});
  const Words given = words(text, keys);
  if (!given.plain.empty())
    refuse(text, fmt::format("\"{}\" is no key=value; the proxy is dense, write for example "
                             "width=128,depth=32,steps=25000",
                             given.plain.front()));
  models::RunShape run;
  run.shape.family = family;
  take_common(text, given, run);
  if (diffusion) {
    run.shape.image_size = 8, run.shape.channels = 1, run.shape.patch = 2;  // as the study file has them
    take(text, given, "image_size", run.shape.image_size);
    take(text, given, "channels", run.shape.channels);
    take(text, given, "patch", run.shape.patch);
    const auto side = run.shape.image_size / run.shape.patch;
    run.shape.context = side * side;
    run.shape.vocab = 0;
  }
  take(text, given, "context", run.shape.context);
  take(text, given, "vocab", run.shape.vocab);
  run.shape.ffn_width = hidden_width(text, expansion_of(given, 1), run.shape.width);
  check_shape(text, run);
  return run;
}

models::RunShape parse_target(const std::string& text, const models::RunShape& proxy) {
  static constexpr std::string_view kKeys[] = {"width",        "depth", "head_size", "expansion",
                                               "expert_width", "batch", "steps"};
  const Words given = words(text, kKeys);
  if (given.plain.size() > 1)
    refuse(text, fmt::format("\"{}\" is no key=value; only the first word is a MoE code or dense",
                             given.plain.back()));
  models::RunShape run = proxy;
  take_common(text, given, run);
  const double e0 = static_cast<double>(proxy.shape.ffn_width) / static_cast<double>(proxy.shape.width);
  if (given.plain.empty() || given.plain.front() == "dense") {
    if (given.values.contains("expert_width"))
      refuse(text,
             "expert_width: the target is dense; begin with a MoE code such as 8e2a, or give expansion");
    run.shape.ffn_width = hidden_width(text, expansion_of(given, e0), run.shape.width);
  } else {
    if (given.values.contains("expansion"))
      refuse(text, "expansion: the target is a MoE; expert_width is the hidden width of one expert");
    models::MoeCode code;
    try {
      code = models::parse_moe_code(given.plain.front());
    } catch (const std::invalid_argument& error) {
      refuse(text, error.what());
    }
    run.shape.num_experts = code.num_experts;
    run.shape.num_active = code.num_active;
    run.shape.num_groups = code.num_groups;
    run.shape.num_shared = code.num_shared;
    run.shape.expert_width =
        given.values.contains("expert_width") ? 0 : hidden_width(text, e0, run.shape.width);
    take(text, given, "expert_width", run.shape.expert_width);
    run.shape.ffn_width = 0;
  }
  check_shape(text, run);
  return run;
}

std::vector<sweeps::TargetConfig> calculate(const CalculatorOptions& options) {
  models::RuleOptions rule = options.options;
  rule.rule = models::parse_parameterization(options.rule);
  if (options.wd_width) rule.wd_width = models::parse_wd_width(*options.wd_width);
  if (options.head) rule.head = models::parse_head_rule(*options.head);
  const auto proxy = parse_proxy(options.proxy, parse_family(options.family));
  std::vector<sweeps::TargetConfig> configs;
  for (const auto& text : options.targets) {
    const auto run = parse_target(text, proxy);
    try {
      configs.push_back(sweeps::transfer(models::moe_code(run.shape), run, proxy, options.tuned, rule));
    } catch (const std::invalid_argument& error) {
      refuse(text, error.what());
    }
  }
  return configs;
}

}  // namespace orchestrator
