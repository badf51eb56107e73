#include "orchestrator/check.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <set>

#include <fmt/format.h>

#include "orchestrator/chart_lines.h"
#include "orchestrator/exit_code.h"
#include "orchestrator/nominal_plan.h"
#include "orchestrator/report_style.h"
#include "orchestrator/scheduler.h"
#include "orchestrator/worker_process.h"
#include "sweeps/loss_overlay.h"
#include "sweeps/plan.h"
#include "sweeps/study_file.h"

namespace orchestrator {
namespace {

using sweeps::Quantities;

constexpr const char* kBuiltInStudy = R"(
schema = 1
name = "check"
[data]
source = "teacher"
[model]
width = 64
depth = 2
head_size = 16
context = 64
[train]
steps = 300
batch = 16
init_std = 0.125
[space]
lr = 3e-3
wd = 0.1
[[target]]
name = "8e2a"
moe = "8e2a"
[[target]]
name = "8e2a1s-wide"
moe = "8e2a1s"
width = 128
)";

/// What all checks begin with: the study, the rule asked for, and a trial of its proxy.
struct Subject {
  sweeps::Study study;
  sweeps::TrialSpec proxy;
};

Subject subject_of(const CheckOptions& options) {
  Subject subject;
  auto& study = subject.study;
  study = options.study_file.empty() ? sweeps::parse_study(kBuiltInStudy, "built-in study")
                                     : sweeps::load_study(options.study_file);
  if (study.proxy.shape.family != models::ModelFamily::language_model)
    throw ExitError(kUsage, fmt::format("{}: only language models can be checked; leave the study out to check "
                                        "the rule itself",
                                        options.study_file.string()));
  if (!options.rule.empty()) study.rule.rule = models::parse_parameterization(options.rule);
  if (!options.head.empty()) study.rule.head = models::parse_head_rule(options.head);
  const auto middle = nominal_plan(study).optimum;
  subject.proxy = sweeps::plan_sweep(study, options.init_std.value_or(middle.init_std)).front();
  subject.proxy.base.lr = options.lr.value_or(middle.lr);
  subject.proxy.base.wd = middle.wd;
  return subject;
}

sweeps::CoordOptions coord_options(const CheckOptions& options) {
  sweeps::CoordOptions coord;
  if (!options.axes.empty()) coord.axes.clear();
  for (const auto& axis : options.axes) coord.axes.push_back(sweeps::parse_axis(axis));
  coord.scales = options.scales;
  coord.seeds = options.seeds;
  coord.steps = options.steps.value_or(coord.steps);
  return coord;
}

Quantities quantities_of(const worker::WorkerMessage& message) {
  const auto* probed = std::get_if<worker::Probed>(&message);
  if (!probed) throw ExitError(kEnvironment, "the worker answered another question than the one it was asked");
  Quantities quantities;
  for (const auto& series : probed->series) quantities[{series.layer, series.quantity}] = series.values;
  return quantities;
}

awaitable<void> ask_probes(Scheduler& scheduler, std::vector<worker::OrchestratorMessage> questions,
                           Scheduler::Answered answered) {
  co_await scheduler.ask_all(std::move(questions), std::move(answered));
  co_await scheduler.close();
}

/// Probes on all workers, the largest first; the answers in the order of `specs`.
std::vector<Quantities> probe_all(const CheckOptions& options, const sweeps::Study& study,
                                  const std::vector<sweeps::TrialSpec>& specs, std::int64_t steps, bool layers,
                                  Console& console) {
  std::vector<std::size_t> order(specs.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return sweeps::cost(specs[a]).flops > sweeps::cost(specs[b]).flops;
  });
  std::vector<worker::OrchestratorMessage> questions;
  for (const auto i : order) questions.push_back(worker::Probe{specs[i], steps, layers});

  asio::io_context context{1};
  ProcessLauncher launcher(context, find_worker_program(study.proxy.shape.family));
  Scheduler scheduler(context, launcher,
                      device_slots(study.resources, options.num_workers, visible_gpus(), usable_cores()), {},
                      {.message = [&](const std::string& text) { console.message(text); }});
  std::vector<Quantities> answers(specs.size());
  std::size_t done = 0;
  const auto answered = [&](std::size_t place, const worker::WorkerMessage& message) {
    answers[order[place]] = quantities_of(message);
    console.progress(fmt::format("{} of {} models looked at", ++done, specs.size()));
  };
  std::exception_ptr error;
  asio::co_spawn(context, ask_probes(scheduler, std::move(questions), answered),
                 [&](std::exception_ptr thrown) {
                   error = thrown;
                   context.stop();
                 });
  context.run();
  if (error) std::rethrow_exception(error);
  return answers;
}

std::vector<sweeps::TrialSpec> specs_of(const std::vector<sweeps::CoordRun>& runs) {
  std::vector<sweeps::TrialSpec> specs;
  for (const auto& run : runs) specs.push_back(run.spec);
  return specs;
}

void print(const db::Table& table, Format format) {
  const auto text = format_table(table, format);
  std::fwrite(text.data(), 1, text.size(), stdout);
}
/// The verdict, for people; the rows say it to programs.
void print_verdict(const std::string& text, Format format) {
  if (format == Format::table) fmt::print("\n{}\n", text);
}

/// Charts in rows of `columns`, one picture that stands alone.
void write_svg(const std::filesystem::path& file, const std::vector<std::string>& charts, int columns,
               double width, double height) {
  const auto rows = (static_cast<int>(charts.size()) + columns - 1) / columns;
  std::string text = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" "
      "height=\"{1:.0f}\">\n<style>{2}\nsvg {{ background: var(--bg); }}</style>\n",
      width * columns, height * rows, kReportStyle);
  int column = 0, row = 0;
  for (const auto& chart : charts) {
    text += fmt::format("<g transform=\"translate({:.0f} {:.0f})\">\n{}</g>\n", width * column, height * row,
                        chart);
    if (++column == columns) column = 0, ++row;
  }
  text += "</svg>\n";
  std::ofstream stream(file);
  stream << text << std::flush;
  if (!stream) throw ExitError(kEnvironment, fmt::format("{}: cannot be written", file.string()));
}

std::string rule_text(const sweeps::TrialSpec& proxy) {
  std::string text(models::name(proxy.rule.rule));
  if (models::uses(proxy.rule.rule).head)
    text += fmt::format(", head {}", models::name(proxy.rule.head));
  return text;
}

/// Size against scale after the last step, over that of the smallest scale: flat lines are good.
std::vector<std::string> coord_charts(const std::vector<sweeps::CoordRow>& rows,
                                      const sweeps::CoordOptions& options) {
  std::vector<std::string> charts;
  for (const auto axis : options.axes)
    for (const char* quantity : {"activation", "effective", "propagating"}) {
      LineChart chart{.title = fmt::format("{}: {}", sweeps::name(axis), quantity),
                      .x_title = "log2 of the scale",
                      .y_title = "log2 of rms, over the smallest",
                      .octaves = true,
                      .lines = {},
                      .width = 420,
                      .height = 300};
      for (const auto& row : rows) {
        if (row.axis != axis || row.key.second != quantity || row.slope.empty()) continue;
        const auto colour = chart.lines.size();
        Line line{.name = row.key.first + (row.pass ? "" : " FAIL"),
                  .style = fmt::format("line t{}{}", colour % 6, colour >= 6 ? " dashed" : ""),
                  .points = {}};
        for (std::size_t i = 0; i < row.mean_log.size(); ++i)
          line.points.emplace_back(std::log2(options.scales[i]),
                                   (row.mean_log[i].back() - row.mean_log[0].back()) / std::log(2.0));
        line.marked = true;
        chart.lines.push_back(std::move(line));
      }
      charts.push_back(line_chart(chart));
    }
  return charts;
}

db::Table coord_table(const std::vector<sweeps::CoordRow>& rows, bool all) {
  db::Table table;
  table.columns = {"axis",  "quantity", "layer", "slope_first", "slope_last", "slope_worst",
                   "error", "step",     "lo",    "hi",          "verdict",    "band"};
  for (const auto& row : rows) {
    if (row.slope.empty() || (!all && !row.band.gated)) continue;
    const auto value = [](double slope) { return std::round(slope * 1e3) / 1e3; };
    table.rows.push_back({std::string(sweeps::name(row.axis)), row.key.second, row.key.first,
                          value(row.slope.front()), value(row.slope.back()), value(row.slope[row.worst]),
                          value(row.standard_error[row.worst]),
                          static_cast<std::int64_t>(row.worst) + row.first_step,
                          row.band.gated ? db::Value(row.band.lo) : db::Value(),
                          row.band.gated ? db::Value(row.band.hi) : db::Value(),
                          std::string(!row.band.gated ? "-"
                                      : row.pass      ? "PASS"
                                                      : "FAIL"),
                          row.band.why});
  }
  return table;
}

}  // namespace

int check_coord(const CheckOptions& options, Console& console) {
  const auto coord = coord_options(options);
  const auto subject = subject_of(options);
  const auto runs = sweeps::plan_coord(sweeps::small_proxy(subject.proxy), coord);
  console.message(fmt::format("{}: {} models, {} steps each", rule_text(subject.proxy), runs.size(), coord.steps));
  const auto seen = probe_all(options, subject.study, specs_of(runs), coord.steps, true, console);
  const auto rows = sweeps::judge_coord(runs, seen, coord);
  print(coord_table(rows, options.all), options.format);
  if (!options.svg.empty()) write_svg(options.svg, coord_charts(rows, coord), 3, 430, 640);
  std::set<std::string> failed;
  int num_gated = 0, num_failed = 0;
  for (const auto& row : rows) {
    num_gated += row.band.gated;
    if (row.pass) continue;
    ++num_failed;
    failed.insert(std::string(sweeps::name(row.axis)));
  }
  std::string axes;
  for (const auto& axis : failed) axes += (axes.empty() ? "" : ", ") + axis;
  print_verdict(num_failed == 0 ? fmt::format("PASS  {}: {} slopes in their bands", rule_text(subject.proxy), num_gated)
                                : fmt::format("FAIL  {}: {} of {} slopes outside their bands (along {})",
                                              rule_text(subject.proxy), num_failed, num_gated, axes),
                options.format);
  return num_failed == 0 ? kDone : kGateFailed;
}

int check_init(const CheckOptions& options, Console& console) {
  const auto coord = coord_options(options);
  const auto subject = subject_of(options);
  const auto runs = sweeps::plan_init(sweeps::small_proxy(subject.proxy), coord);
  const auto seen = probe_all(options, subject.study, specs_of(runs), 0, true, console);
  const auto rows = sweeps::judge_init(runs, seen, coord);
  db::Table table;
  table.columns = {"axis", "branch", "scale", "rms", "ratio", "verdict"};
  int num_failed = 0;
  for (const auto& row : rows) {
    num_failed += !row.pass;
    table.rows.push_back({std::string(sweeps::name(row.axis)), row.layer, static_cast<std::int64_t>(row.scale),
                          row.rms, std::round(row.ratio * 1e3) / 1e3, std::string(row.pass ? "PASS" : "FAIL")});
  }
  print(table, options.format);
  print_verdict(fmt::format("{}  {}: {} of {} branch sizes within {:g} % of the smallest model's ({:g} % for attention along depth)",
                            num_failed == 0 ? "PASS" : "FAIL", rule_text(subject.proxy),
                            rows.size() - static_cast<std::size_t>(num_failed), rows.size(),
                            100 * sweeps::kInitTolerance, 100 * sweeps::kInitDepthTolerance),
                options.format);
  return num_failed == 0 ? kDone : kGateFailed;
}

int check_loss(const CheckOptions& options, Console& console) {
  const auto subject = subject_of(options);
  const auto& study = subject.study;
  const std::int64_t steps = options.steps.value_or(100);
  std::vector<sweeps::TrialSpec> specs;
  const auto add = [&](const models::ModelShape& shape) {
    for (int seed = 0; seed < options.seeds; ++seed) {
      auto spec = subject.proxy;
      spec.run.steps = spec.proxy.steps = steps;  // batch and duration are another matter
      spec.run.shape = shape;
      spec.schedule = {.kind = sweeps::ScheduleKind::wsd, .warmup = 0.1, .decay = 0};
      spec.seed = sweeps::derived_seed(study.seed, "check/" + std::to_string(seed));
      specs.push_back(std::move(spec));
    }
  };
  add(study.proxy.shape);
  for (const auto& target : study.targets) add(target.run.shape);
  const auto seen = probe_all(options, study, specs, steps, false, console);
  const auto losses = [&](std::size_t model) {
    std::vector<std::vector<double>> result;
    for (std::size_t s = 0; s < static_cast<std::size_t>(options.seeds); ++s) {
      const auto& one = seen[model * static_cast<std::size_t>(options.seeds) + s];
      const auto it = one.find({"loss", "loss"});
      result.push_back(it == one.end() ? std::vector<double>{} : it->second);
    }
    return result;
  };

  db::Table table;
  table.columns = {"target", "moe", "slope", "slope_lower", "largest_gap", "limit", "largest_lead", "spread", "verdict"};
  LineChart chart{.title = "gap to the dense proxy, " + rule_text(subject.proxy),
                  .x_title = "step",
                  .y_title = "nats, mean over seeds and 10 steps",
                  .lines = {}};
  int num_failed = 0;
  for (std::size_t i = 0; i < study.targets.size(); ++i) {
    const auto& target = study.targets[i];
    const auto overlay = sweeps::overlay_losses(losses(0), losses(i + 1));
    num_failed += !overlay.pass;
    table.rows.push_back({target.name, models::moe_code(target.run.shape), overlay.slope, overlay.slope_lower,
                          overlay.largest_gap, overlay.limit, overlay.largest_lead, overlay.spread,
                          std::string(overlay.pass ? "PASS" : "FAIL")});
    Line line{.name = target.name, .style = fmt::format("line t{}", i % 6), .points = {}};
    for (std::size_t t = 0; t < overlay.gap.size(); ++t)
      line.points.emplace_back(static_cast<double>(t), overlay.gap[t]);
    chart.lines.push_back(std::move(line));
  }
  print(table, options.format);
  if (!options.svg.empty()) write_svg(options.svg, {line_chart(chart)}, 1, 560, 440);
  print_verdict(fmt::format("{}  {}: {} of {} targets follow the dense proxy over {} steps",
                            num_failed == 0 ? "PASS" : "FAIL", rule_text(subject.proxy),
                            study.targets.size() - static_cast<std::size_t>(num_failed), study.targets.size(), steps),
                options.format);
  return num_failed == 0 ? kDone : kGateFailed;
}

}  // namespace orchestrator
