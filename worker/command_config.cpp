#include "worker/command_config.h"

#include <charconv>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string_view>

#include <nlohmann/json.hpp>

#include "sweeps/command_line.h"
#include "sweeps/transfer.h"

extern char** environ;

namespace worker {
namespace {

using nlohmann::json;

/// Frameworks take 31 bits everywhere.
std::uint64_t seed_of(const sweeps::TrialSpec& spec) { return spec.seed & 0x7fffffff; }

template <class Number>
std::string text(Number value) {
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return {buffer, end};
}

json shape_json(const models::ModelShape& shape) {
  return {{"moe", models::moe_code(shape)},
          {"width", shape.width},
          {"depth", shape.depth},
          {"head_size", shape.head_size},
          {"num_heads", shape.num_heads()},
          {"context", shape.context},
          {"vocab", shape.vocab},
          {"ffn_width", shape.ffn_width},
          {"num_experts", shape.num_experts},
          {"num_active", shape.num_active},
          {"num_shared", shape.num_shared},
          {"num_groups", shape.num_groups},
          {"expert_width", shape.expert_width}};
}

json group_json(const sweeps::TransferRow& row) {
  return {{"init_std", row.init_std},        {"lr", row.lr},
          {"wd", row.decays ? row.wd : 0},   {"eps", row.eps},
          {"betas", {row.beta1, row.beta2}}, {"forward", row.factor.forward}};
}

/// The device as CUDA_VISIBLE_DEVICES names it: where this program sees some only, one of those.
std::string visible_device(const std::string& device) {
  if (!device.starts_with("cuda:")) return "";
  const auto index = static_cast<std::size_t>(std::strtoul(device.c_str() + 5, nullptr, 10));
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (!visible) return device.substr(5);
  std::istringstream list(visible);
  std::string name;
  for (std::size_t i = 0; std::getline(list, name, ',');)
    if (i++ == index) return name;
  throw std::invalid_argument(device + " is not among CUDA_VISIBLE_DEVICES=" + visible);
}

std::string placeholder(std::string_view name, const Assignment& assignment, const CommandFiles& files) {
  const auto& spec = assignment.spec;
  if (name == "lr") return text(spec.base.lr);
  if (name == "wd") return text(spec.base.wd);
  if (name == "init_std") return text(spec.base.init_std);
  if (name == "seed") return text(seed_of(spec));
  if (name == "steps") return text(spec.run.steps);
  if (name == "attempt") return text(assignment.attempt);
  if (name == "config") return files.config;
  if (name == "metrics") return files.metrics;
  if (name == "checkpoint_dir") return files.checkpoint;
  if (name == "target") return spec.target;
  throw std::logic_error("placeholder: unknown name");
}

}  // namespace

json command_config(const Assignment& assignment, const CommandFiles& files, const std::string& device) {
  const auto& spec = assignment.spec;
  const auto table = sweeps::transfer(spec.target, spec.run, spec.proxy, spec.base, spec.rule);
  const auto gates = models::gate_rule(spec.rule.rule);
  json groups = json::object();
  for (const auto& row : table.rows) groups[std::string(models::name(row.group))] = group_json(row);
  return {
      {"format", 1},
      {"trial", spec.name},
      {"key", assignment.trial},
      {"role", std::string(sweeps::name(spec.role))},
      {"target", spec.target},
      {"attempt", assignment.attempt},
      {"device", device},
      {"seed", seed_of(spec)},
      {"steps", spec.run.steps},
      {"batch", spec.run.batch},
      {"shape", shape_json(spec.run.shape)},
      {"proxy",
       {{"shape", shape_json(spec.proxy.shape)}, {"steps", spec.proxy.steps}, {"batch", spec.proxy.batch}}},
      {"rule", std::string(models::name(spec.rule.rule))},
      {"base",
       {{"lr", spec.base.lr},
        {"wd", spec.base.wd},
        {"init_std", spec.base.init_std},
        {"betas", {spec.base.beta1, spec.base.beta2}},
        {"eps", spec.base.eps}}},
      {"groups", groups},
      {"branch_scale", table.branch_scale},
      {"route_scale", table.route_scale},
      {"gates", {{"function", gates.softmax ? "softmax" : "sigmoid"}, {"normalised", gates.normalised}}},
      {"schedule",
       {{"kind", std::string(sweeps::name(spec.schedule.kind))},
        {"warmup", spec.schedule.warmup},
        {"decay", spec.schedule.decay}}},
      {"clip", spec.clip},
      {"precision", std::string(sweeps::name(spec.precision))},
      {"balance", std::string(sweeps::name(spec.balancing))},
      {"eval", {{"tokens", spec.eval.tokens}, {"every_steps", sweeps::eval_interval(spec)}}},
      {"data", {{"path", spec.data.path}}},
      {"metric", spec.command.metric},
      {"metrics", files.metrics.string()},
      {"checkpoint_dir", files.checkpoint.string()}};
}

std::vector<std::string> command_words(const Assignment& assignment, const CommandFiles& files) {
  std::vector<std::string> words;
  for (const auto& word : assignment.spec.command.words)
    words.push_back(
        sweeps::expand(word, [&](std::string_view name) { return placeholder(name, assignment, files); }));
  return words;
}

std::vector<std::string> command_environment(const Assignment& assignment, const CommandFiles& files,
                                             const std::string& device) {
  std::vector<std::string> variables = {
      "TUNEONCE_TRIAL=" + assignment.trial,         "TUNEONCE_ATTEMPT=" + text(assignment.attempt),
      "TUNEONCE_CONFIG=" + files.config.string(),   "TUNEONCE_CHECKPOINT_DIR=" + files.checkpoint.string(),
      "TUNEONCE_METRICS=" + files.metrics.string(), "CUDA_VISIBLE_DEVICES=" + visible_device(device)};
  // What is printed must not wait in a buffer: it is how a program shows that it is alive.
  if (!std::getenv("PYTHONUNBUFFERED")) variables.push_back("PYTHONUNBUFFERED=1");
  const auto is_set = [set = variables](std::string_view variable) {
    const auto name = variable.substr(0, variable.find('=') + 1);
    for (const auto& one : set)
      if (one.starts_with(name)) return true;
    return false;
  };
  for (char** variable = environ; *variable; ++variable)
    if (!is_set(*variable)) variables.emplace_back(*variable);
  return variables;
}

}  // namespace worker
