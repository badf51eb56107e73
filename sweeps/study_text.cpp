#include "sweeps/study_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "sweeps/settings.h"

namespace sweeps {
namespace {

/// A TOML basic string.
std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      result += {'\\', c};
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      result += fmt::format("\\u{:04X}", static_cast<int>(c));
    else
      result += c;
  }
  return result + "\"";
}

std::string list(const std::vector<double>& values) { return fmt::format("[{}]", fmt::join(values, ", ")); }

std::string image_data_text(const DataSpec& data, const models::ModelShape& shape) {
  const std::string size = fmt::format("image_size = {}\nchannels = {}\n", shape.image_size, shape.channels);
  if (data.source == DataSource::templates)
    return size + fmt::format("template_seed = {}\n", data.teacher_seed);
  const std::string holdout = data.holdout > 0 ? fmt::format("holdout = {}\n", data.holdout) : "";
  return fmt::format("path = {}\n", quoted(data.path)) + holdout + size;
}

std::string data_text(const DataSpec& data, const models::ModelShape& shape) {
  std::string text = fmt::format("\n[data]\nsource = \"{}\"\n", name(data.source));
  if (data.source == DataSource::command)
    return data.path.empty() ? text : text + fmt::format("path = {}\n", quoted(data.path));
  if (data.source == DataSource::teacher) return text + fmt::format("teacher_seed = {}\n", data.teacher_seed);
  if (has_images(data.source)) return text + image_data_text(data, shape);
  text += fmt::format("path = {}\n", quoted(data.path));
  if (!data.validation_path.empty())
    return text + fmt::format("validation_path = {}\n", quoted(data.validation_path));
  return text + fmt::format("holdout = {}\n", data.holdout);
}

double expansion(const models::ModelShape& shape) {
  return static_cast<double>(shape.ffn_width) / static_cast<double>(shape.width);
}

std::string command_text(const CommandSpec& command) {
  std::string words;
  for (const auto& word : command.words) words += (words.empty() ? "" : ", ") + quoted(word);
  std::string text = fmt::format("command = [{}]\nmetric = {}\n", words, quoted(command.metric));
  if (!command.metric_regex.empty()) text += fmt::format("metric_regex = {}\n", quoted(command.metric_regex));
  if (command.timeout_seconds > 0) text += fmt::format("timeout = \"{}s\"\n", command.timeout_seconds);
  return text;
}

std::string model_text(const Study& study) {
  const auto& shape = study.proxy.shape;
  std::string text =
      fmt::format("\n[model]\nfamily = \"{}\"\nwidth = {}\ndepth = {}\nhead_size = {}\nexpansion = {}\n",
                  models::name(shape.family), shape.width, shape.depth, shape.head_size, expansion(shape));
  if (shape.is_diffusion()) return text + fmt::format("patch = {}\n", shape.patch);
  text += fmt::format("context = {}\n", shape.context);
  if (shape.family == models::ModelFamily::command)
    return text + fmt::format("vocab = {}\n", shape.vocab) + command_text(study.command);
  if (study.data.source == DataSource::tokens) text += fmt::format("vocab = {}\n", shape.vocab);
  return text;
}

std::string train_text(const Study& study) {
  std::string text = fmt::format("\n[train]\nsteps = {}\nbatch = {}\n", study.proxy.steps, study.proxy.batch);
  text += fmt::format("schedule = {{ kind = \"{}\", warmup = {}", name(study.schedule.kind),
                      study.schedule.warmup);
  if (study.schedule.kind == ScheduleKind::wsd) text += fmt::format(", decay = {}", study.schedule.decay);
  text += " }\n";
  if (!study.branches.empty()) text += fmt::format("branches = {}\n", list(study.branches));
  text += fmt::format("adamw = {{ beta1 = {}, beta2 = {}, eps = {} }}\nclip = {}\n", study.base.beta1,
                      study.base.beta2, study.base.eps, study.clip);
  if (study.space.init_std.empty()) text += fmt::format("init_std = {}\n", study.base.init_std);
  const auto& shape = study.proxy.shape;
  const std::string eval = shape.is_diffusion()
                               ? fmt::format("images = {}", study.eval.tokens / shape.context)
                               : fmt::format("tokens = {}", study.eval.tokens);
  text += fmt::format("precision = \"{}\"\nbalance = \"{}\"\neval = {{ {}, every = {} }}\n",
                      name(study.precision), name(study.balancing), eval, study.eval.every);
  return text;
}

std::string range_text(const Range& range, SearchMethod method) {
  if (range.values.size() == 1) return fmt::format("{}", range.values.front());
  if (!range.values.empty()) return fmt::format("{{ values = {} }}", list(range.values));
  std::string text = fmt::format("{{ min = {}, max = {}", range.min, range.max);
  if (method == SearchMethod::adaptive) return text + " }";
  text += fmt::format(", scale = \"{}\"", range.log_scale ? "log" : "linear");
  if (method == SearchMethod::grid) text += fmt::format(", count = {}", range.count);
  return text + " }";
}

std::string space_text(const Study& study) {
  const auto& space = study.space;
  std::string text = "\n[space]\n";
  if (study.search.method != SearchMethod::list)
    text += fmt::format("lr = {}\nwd = {}\n", range_text(space.lr, study.search.method),
                        range_text(space.wd, study.search.method));
  if (!space.init_std.empty())
    text += fmt::format("init_std = {{ values = {} }}\nscan_lr = {}\nscan_wd = {}\n", list(space.init_std),
                        space.scan_lr, space.scan_wd);
  return text;
}

std::string_view method_name(SearchMethod method) {
  switch (method) {
    case SearchMethod::grid: return "grid";
    case SearchMethod::random: return "random";
    case SearchMethod::list: return "list";
    case SearchMethod::adaptive: return "adaptive";
  }
  throw std::logic_error("method_name: unknown SearchMethod");
}

std::string search_text(const SearchSpec& search) {
  std::string text = fmt::format(
      "\n[search]\nmethod = \"{}\"\nmax_trials = {}\nreplicates = {}\nconfirm = {}\n"
      "early_stopping = {}\n",
      method_name(search.method), search.max_trials, search.replicates, search.confirm,
      search.early_stopping);
  if (search.method == SearchMethod::adaptive) {
    text +=
        fmt::format("start = [{}, {}]\nbatch = {}\n", search.start.first, search.start.second, search.batch);
    if (search.stop == StopRule::tune) return text + "stop = \"tune\"\n";
    return text + fmt::format("stop = \"measure\"\nlr_half_width = {}\n", search.lr_half_width);
  }
  text += fmt::format("extensions = {}\n", search.extensions);
  if (search.method != SearchMethod::list) return text;
  std::string points;
  for (const auto& [lr, wd] : search.points)
    points += fmt::format("{}[{}, {}]", points.empty() ? "" : ", ", lr, wd);
  return text + fmt::format("points = [{}]\n", points);
}

std::string transfer_text(const Study& study) {
  const auto& options = study.rule;
  const auto use = options_in_use(study);
  std::string text = fmt::format("\n[transfer]\nrule = \"{}\"\n", models::name(options.rule));
  std::string rules;
  for (const auto rule : study.compare)
    rules += fmt::format("{}\"{}\"", rules.empty() ? "" : ", ", models::name(rule));
  if (!rules.empty()) text += fmt::format("compare = [{}]\n", rules);
  if (use.wd_width) text += fmt::format("wd_width = \"{}\"\n", models::name(options.wd_width));
  if (use.depth_exponent) text += fmt::format("depth_exponent = {}\n", options.depth_exponent);
  if (use.duration_exponent) text += fmt::format("duration_exponent = {}\n", options.duration_exponent);
  if (use.head) text += fmt::format("head = \"{}\"\n", models::name(options.head));
  if (use.mssp_regime) text += fmt::format("mssp_regime = {}\n", options.mssp_regime);
  return text;
}

std::string target_text(const TargetSpec& target) {
  const auto& shape = target.run.shape;
  std::string text = fmt::format("\n[[target]]\nname = {}\n", quoted(target.name));
  if (shape.is_moe()) text += fmt::format("moe = \"{}\"\n", models::moe_code(shape));
  text += fmt::format("width = {}\ndepth = {}\nhead_size = {}\n", shape.width, shape.depth, shape.head_size);
  text += shape.is_moe() ? fmt::format("expert_width = {}\n", shape.expert_width)
                         : fmt::format("expansion = {}\n", expansion(shape));
  text += fmt::format("batch = {}\nsteps = {}\nrule = \"{}\"\ndrift = {}\n", target.run.batch,
                      target.run.steps, models::name(target.rule.rule), target.drift);
  if (target.rule.rule != models::Parameterization::sp)
    text += fmt::format("baseline = {}\n", target.baseline);
  return text;
}

std::string drift_text(const DriftSpec& drift, std::string_view loss_unit) {
  // Twelve digits: x / 100 * 100 need not be x.
  const std::string tolerance = drift.tolerance_nats > 0
                                    ? fmt::format("{} {}", drift.tolerance_nats, loss_unit)
                                    : fmt::format("{:.12g}%", drift.tolerance_fraction * 100);
  return fmt::format(
      "\n[drift]\ntolerance = \"{}\"\nlr_shift = {}\nwd_shift = {}\nstrict = {}\nmax_trials = {}\n", tolerance,
      drift.lr_shift, drift.wd_shift, drift.strict, drift.max_trials);
}

std::string resources_text(const ResourceSpec& resources) {
  std::string devices = "\"auto\"";
  if (resources.devices != std::vector<std::string>{"auto"})
    devices = fmt::format("[\"{}\"]", fmt::join(resources.devices, "\", \""));
  std::string text = fmt::format("\n[resources]\ndevices = {}\n", devices);
  if (resources.device_share > 0)
    text += fmt::format("device_share = {}\n", resources.device_share);
  else if (resources.workers_per_device == 0)
    text += "workers_per_device = \"auto\"\n";
  else
    text += fmt::format("workers_per_device = {}\n", resources.workers_per_device);
  if (resources.memory > 0) text += fmt::format("memory = \"{}\"\n", bytes_text(resources.memory));
  return text + fmt::format("host_reserve = \"{}\"\n", bytes_text(resources.host_reserve));
}

std::string retry_text(const RetrySpec& retry) {
  const std::string stop = retry.stop_after == 0 ? "never" : fmt::format("{} in a row", retry.stop_after);
  return fmt::format(
      "\n[retry]\ncrash = {}\nstalled = {}\nworker_lost = {}\noom_host = {}\noom_gpu = {}\ngpu_lost = {}\n"
      "backoff = \"{}s\"\nstop_after = \"{}\"\n",
      retry.crash, retry.stalled, retry.worker_lost, retry.oom_host, retry.oom_gpu, retry.gpu_lost, retry.backoff, stop);
}

std::string disk_text(const DiskSpec& disk) {
  return fmt::format("\n[disk]\nlog = \"{}\"\ncheckpoints = \"{}\"\nstudy = \"{}\"\nkeep_free = \"{}\"\n",
                     bytes_text(disk.log), bytes_text(disk.checkpoints), bytes_text(disk.study),
                     bytes_text(disk.keep_free));
}

}  // namespace

std::string study_text(const Study& study) {
  std::string text = fmt::format("schema = 1\nname = {}\nseed = {}\n", quoted(study.name), study.seed);
  text +=
      data_text(study.data, study.proxy.shape) + model_text(study) + train_text(study) + space_text(study);
  text += search_text(study.search) + transfer_text(study);
  for (const auto& target : study.targets)
    if (target.copy_of.empty()) text += target_text(target);  // [transfer] compare makes the copies again
  return text + drift_text(study.drift, loss_unit(study.proxy.shape)) + resources_text(study.resources) +
         retry_text(study.retry) + disk_text(study.disk);
}

}  // namespace sweeps
