#include "orchestrator/csv_commands.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include <fmt/format.h>

#include "orchestrator/chart_heat_map.h"
#include "orchestrator/chart_lr.h"
#include "orchestrator/chart_transfer.h"
#include "orchestrator/exit_code.h"
#include "orchestrator/report_file.h"
#include "orchestrator/sweep_csv.h"
#include "orchestrator/verdicts.h"
#include "sweeps/tolerance.h"

namespace orchestrator {
namespace {

namespace fs = std::filesystem;
using sweeps::TrialState;

constexpr double kChartPad = 0.4;  // octaves
constexpr int kNextRuns = 4;       // that would tell most

void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

/// The loss's unit tells the family, which tells fit and pictures what a loss is.
CsvSweep read(const std::string& file, const CsvOptions& options) {
  auto sweep = read_sweep_csv(file);
  if (options.loss_unit == "mse")
    for (auto& trial : sweep.trials) trial.spec.run.shape.family = models::ModelFamily::diffusion_model;
  return sweep;
}

int num_in(const CsvSweep& sweep, TrialState state) {
  return static_cast<int>(std::ranges::count(sweep.trials, state, &sweeps::TrialResult::state));
}

double lowest_loss(const CsvSweep& sweep) {
  double lowest = INFINITY;
  for (const auto& trial : sweep.trials)
    if (trial.loss) lowest = std::min(lowest, *trial.loss);
  return lowest;
}

/// Octaves of LR that the runs span, as a chart's axis.
sweeps::Interval lr_axis(const CsvSweep& sweep) {
  sweeps::Interval axis{INFINITY, -INFINITY};
  for (const auto& trial : sweep.trials) {
    const double x = std::log2(trial.spec.base.lr);
    axis = {std::min(axis.lo, x - kChartPad), std::max(axis.hi, x + kChartPad)};
  }
  return axis;
}

/// What a fit cannot say better: nothing finished.
void require_finished(const CsvSweep& sweep, const std::string& file) {
  if (num_in(sweep, TrialState::complete) > 0) return;
  double lowest = INFINITY;
  for (const auto& trial : sweep.trials) lowest = std::min(lowest, trial.spec.base.lr);
  const int diverged = num_in(sweep, TrialState::diverged);
  throw ExitError(kNoVerdict,
                  diverged > 0
                      ? fmt::format("{}: no run finished, {} of {} diverged; add runs below LR {:.2g}", file,
                                    diverged, sweep.trials.size(), lowest)
                      : fmt::format("{}: no run finished; add runs that are complete", file));
}

/// In the loss's unit.
double tolerance_of(const CsvOptions& options, double loss, const std::string& file) {
  const auto parsed = sweeps::parse_tolerance(options.tolerance, options.loss_unit);
  if (parsed.nats <= 0 && loss <= 0)
    throw ExitError(kUsage,
                    fmt::format("{}: the lowest loss is {:.4g}, and a share of it is no tolerance; give "
                                "--tolerance in {}, as in \"0.003 {}\"",
                                file, loss, options.loss_unit, options.loss_unit));
  return parsed.of(loss);
}

sweeps::FitOptions fit_options(const CsvOptions& options, const std::string& purpose, double tolerance) {
  sweeps::FitOptions how;
  how.seed = sweeps::derived_seed(options.seed, "fit/" + purpose);
  how.loss_unit = options.loss_unit;
  how.regret_tolerance = tolerance;
  return how;
}

/// Like the fit of a study's proxy, with the noise between seeds where there are several.
sweeps::FitResult fit(const CsvSweep& sweep, double tolerance, const CsvOptions& options) {
  auto how = fit_options(options, "proxy", tolerance);
  auto by_seed = sweep.trials;
  std::ranges::stable_sort(by_seed, {}, [](const auto& trial) { return trial.spec.seed; });
  const auto noise = sweeps::seed_noise(by_seed, sweep.num_seeds);
  how.sigma0 = noise.sigma;
  how.nu0 = noise.df;
  return sweeps::fit_optimum(sweeps::fit_points(sweep.trials), how);
}

/// The optimum, or the end of the command with what is missing.
sweeps::Optimum require_optimum(sweeps::FitResult result, const std::string& file) {
  if (auto* optimum = std::get_if<sweeps::Optimum>(&result)) return std::move(*optimum);
  const auto* few = std::get_if<sweeps::TooFewTrials>(&result);
  throw ExitError(
      kNoVerdict,
      fmt::format("{}: {}", file, few ? few->message : std::get<sweeps::RankDeficient>(result).message));
}

std::string listed(const std::vector<sweeps::NewPoint>& points) {
  std::string text;
  for (const auto& point : points)
    text += fmt::format("{}LR {:.2g} WD {:.2g}", text.empty() ? "" : ", ", std::exp2(point.x),
                        std::exp2(point.y));
  return text;
}

/// Runs that are neither complete nor diverged; nothing where there are none.
std::string left_out(const CsvSweep& sweep) {
  std::string text;
  for (const auto state : {TrialState::failed, TrialState::pruned, TrialState::waiting, TrialState::running,
                           TrialState::dropped})
    if (const int count = num_in(sweep, state))
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, sweeps::name(state));
  return text;
}

std::string text_of_fit(const sweeps::Optimum& optimum, const CsvSweep& sweep, std::int64_t steps) {
  auto text = sweeps::describe(optimum, sweep.name, steps);
  if (const auto out = left_out(sweep); !out.empty()) text += "\n  left out         " + out;
  if (optimum.bracketed()) return text;
  const auto points = sweeps::extension_points(optimum, sweeps::fit_points(sweep.trials));
  if (!points.empty()) text += "\n  to bracket it    add " + listed(points);
  return text;
}

void write_chart(const fs::path& file, const Svg& picture, Console& console) {
  write_picture(file, picture);
  console.message(file.string());
}

void write_fit_charts(const fs::path& folder, const CsvSweep& sweep, const sweeps::Optimum& optimum,
                      Console& console) {
  if (const auto map = heat_map(sweep.trials, &optimum))
    write_chart(folder / (sweep.name + "_heat_map.svg"), *map, console);
  LrChart chart;
  chart.title = sweep.name;
  chart.loss_unit = optimum.loss_unit;
  chart.trials = sweep.trials;
  chart.fit = &optimum;
  const auto axis = lr_axis(sweep);
  write_chart(folder / (sweep.name + "_lr.svg"), lr_chart(chart, axis.lo, axis.hi), console);
}

/// What a study's table would hold and a CSV file does not say: NULL.
void clear(db::Table& table, std::initializer_list<std::string_view> columns) {
  for (std::size_t i = 0; i < table.columns.size(); ++i)
    if (std::ranges::find(columns, table.columns[i]) != columns.end())
      for (auto& row : table.rows) row[i] = {};
}

void set_model(db::Table& table, const std::string& name) {
  for (auto& row : table.rows) row.at(0) = name;
}

/// Two files of one name are told apart by their folders.
void name_apart(CsvSweep& proxy, const fs::path& proxy_file, CsvSweep& target, const fs::path& target_file) {
  if (proxy.name != target.name) return;
  const auto with_folder = [](const fs::path& file) {
    const auto absolute = fs::weakly_canonical(file);
    return fmt::format("{}_{}", absolute.parent_path().filename().string(), absolute.stem().string());
  };
  proxy.name = with_folder(proxy_file), target.name = with_folder(target_file);
}

/// The judge's two questions: what is the verdict on these runs, and which runs would settle an open one.
struct Judged {
  sweeps::DriftReport report;
  std::vector<sweeps::NewPoint> next;
};
Judged judge(const CsvSweep& target, double x, double y, const sweeps::Optimum& proxy,
             sweeps::DriftOptions options) {
  const auto points = sweeps::fit_points(target.trials);
  Judged judged{sweeps::judge_drift(points, x, y, proxy, options), {}};
  if (sweeps::exit_code(judged.report.verdict) != kNoVerdict) return judged;
  options.extensions_left = kNextRuns;
  judged.next = sweeps::judge_drift(points, x, y, proxy, options).next;
  judged.next.resize(std::min<std::size_t>(judged.next.size(), kNextRuns));
  return judged;
}

/// What was compared, and from where.
struct Transfer {
  const CsvDriftOptions& options;
  const CsvSweep& proxy;
  const CsvSweep& target;
  const sweeps::Optimum& optimum;  // the proxy's
  double lr = 0, wd = 0;           // the transferred point
  bool anchored = true;            // it is an optimum of the proxy, or was named
};

std::string optimum_text(const sweeps::Optimum& fit) {
  const auto interval = [](const sweeps::Interval& ci) {
    return fmt::format("[{:.2g}, {:.2g}]", std::exp2(ci.lo), std::exp2(ci.hi));
  };
  auto text = fmt::format("LR {:.2g} {}", std::exp2(fit.lr.estimate), interval(fit.lr.ci));
  if (fit.wd_fitted) text += fmt::format(", WD {:.2g} {}", std::exp2(fit.wd.estimate), interval(fit.wd.ci));
  return text + (fit.bracketed() ? ", bracketed" : ", not bracketed");
}

std::string transferred_text(const Transfer& transfer) {
  const auto& options = transfer.options;
  const auto origin = [&](const char* name, double value, bool given) {
    return fmt::format("{} {:.4g} ({})", name, value, given ? "given" : "the proxy's optimum");
  };
  return origin("LR", transfer.lr, options.lr.has_value()) + ", " +
         origin("WD", transfer.wd, options.wd.has_value());
}

std::string text_of_drift(const Transfer& transfer, const Judged& judged) {
  const auto& report = judged.report;
  const bool share = transfer.options.tolerance.ends_with('%');
  std::string text =
      fmt::format("transfer check  eps={:.4g} {}{}  D0={:.2f} oct LR / {:.2f} oct WD", report.tolerance,
                  transfer.options.loss_unit,
                  share ? fmt::format(" ({} of the target's lowest loss)", transfer.options.tolerance) : "",
                  transfer.options.lr_shift, transfer.options.wd_shift);
  text += fmt::format("\n{:<16} {}", transfer.proxy.name, optimum_text(transfer.optimum));
  text += fmt::format("\n{:<16} {}", "transferred", transferred_text(transfer));
  text += fmt::format("\n{}\n{}", sweeps::drift_table_header(transfer.options.loss_unit),
                      sweeps::describe(report, transfer.target.name));
  if (report.fit) {
    const auto shift = [](const sweeps::Estimate& e) {
      return fmt::format("{:+.2f} [{:+.2f},{:+.2f}]", e.value, e.ci.lo, e.ci.hi);
    };
    text += "\ndLR, dWD and the regret are measured from the transferred point, taken as exact.";
    text += fmt::format("\nFrom the proxy's optimum, as uncertain as it is: dLR {}, dWD {}.",
                        shift(report.lr_from_proxy), shift(report.wd_from_proxy));
  }
  if (const auto out = left_out(transfer.target); !out.empty())
    text += "\nleft out of the target's runs: " + out;
  if (!judged.next.empty()) text += "\nruns of the target that would tell most: " + listed(judged.next);
  if (!transfer.anchored) {
    text +=
        "\nno verdict on the transfer: the proxy's own optimum is not bracketed. Give the transferred point "
        "with "
        "--lr and --wd, or extend the proxy's sweep";
    const auto more = sweeps::extension_points(transfer.optimum, sweeps::fit_points(transfer.proxy.trials));
    if (!more.empty()) text += ": add " + listed(more);
  }
  return text;
}

/// The columns of a study's table, and what is known of the proxy here.
db::Table table_of_drift(const Transfer& transfer, const sweeps::DriftReport& report) {
  sweeps::Analysis analysis;
  analysis.targets.emplace_back();
  analysis.targets[0].spec.name = transfer.target.name;
  analysis.targets[0].drift = report;
  auto table = drift_table(analysis);
  clear(table, {"rule", "sigma0_ratio", "sigma0_measured"});
  table.columns.insert(table.columns.end(),
                       {"lr", "wd", "proxy_bracketed", "lr_from_proxy", "lr_from_proxy_low",
                        "lr_from_proxy_high", "wd_from_proxy", "wd_from_proxy_low", "wd_from_proxy_high"});
  auto& row = table.rows.at(0);
  row.insert(row.end(), {transfer.lr, transfer.wd, static_cast<std::int64_t>(transfer.optimum.bracketed())});
  for (const auto& from_proxy : {report.lr_from_proxy, report.wd_from_proxy})
    for (const double value : {from_proxy.value, from_proxy.ci.lo, from_proxy.ci.hi})
      row.push_back(report.fit ? db::Value(value) : db::Value());
  return table;
}

/// Both curves; a target that cannot be judged is drawn as it fits by itself, if it does.
void write_drift_chart(const fs::path& folder, const Transfer& transfer, const sweeps::DriftReport& report,
                       Console& console) {
  auto own =
      report.fit ? sweeps::FitResult(*report.fit) : fit(transfer.target, report.tolerance, transfer.options);
  const std::vector<LrPanel> panels = {
      {fmt::format("{} and {}", transfer.proxy.name, transfer.target.name),
       {{transfer.proxy.name, transfer.proxy.trials, &transfer.optimum},
        {transfer.target.name, transfer.target.trials, std::get_if<sweeps::Optimum>(&own)}},
       std::log2(transfer.lr)}};
  if (const auto picture = transfer_chart(panels))
    write_chart(folder / (transfer.target.name + "_drift.svg"), *picture, console);
}

}  // namespace

int fit_csv(const CsvFitOptions& options, Format format, Console& console) {
  const auto sweep = read(options.csv, options);
  require_finished(sweep, options.csv);
  const double tolerance = tolerance_of(options, lowest_loss(sweep), options.csv);
  const auto optimum = require_optimum(fit(sweep, tolerance, options), options.csv);
  if (!options.charts.empty()) write_fit_charts(options.charts, sweep, optimum, console);
  if (format == Format::table) {
    print(text_of_fit(optimum, sweep, options.steps) + "\n");
  } else {
    sweeps::Study study;
    study.proxy.steps = options.steps;
    sweeps::Analysis analysis;
    analysis.fit = optimum;
    auto table = fit_table(study, analysis);
    set_model(table, sweep.name);
    clear(table, {"init_std"});
    if (options.steps == 0) clear(table, {"steps"});
    print(format_table(table, format));
  }
  return optimum.bracketed() ? kDone : kNoVerdict;
}

int drift_csv(const CsvDriftOptions& options, Format format, Console& console) {
  auto proxy = read(options.proxy, options), target = read(options.target, options);
  if (fs::equivalent(options.proxy, options.target))
    throw ExitError(kUsage, fmt::format("{}: is the proxy and the target; name two sweeps", options.target));
  name_apart(proxy, options.proxy, target, options.target);
  require_finished(proxy, options.proxy);
  require_finished(target, options.target);
  const double proxy_tolerance = tolerance_of(options, lowest_loss(proxy), options.proxy);
  const auto optimum = require_optimum(fit(proxy, proxy_tolerance, options), options.proxy);
  auto [lr, wd] = sweeps::values_to_transfer(optimum, sweeps::fit_points(proxy.trials));
  lr = options.lr.value_or(lr), wd = options.wd.value_or(wd);

  sweeps::DriftOptions how;
  how.tolerance = tolerance_of(options, lowest_loss(target), options.target);
  how.lr_shift = options.lr_shift;
  how.wd_shift = options.wd_shift;
  how.fit = fit_options(options, target.name, how.tolerance);
  const auto judged = judge(target, std::log2(lr), std::log2(wd), optimum, how);
  const auto& report = judged.report;

  if (!options.charts.empty())
    write_drift_chart(options.charts, {options, proxy, target, optimum, lr, wd}, report, console);

  // A point that was no optimum of the proxy says nothing about a rule; one that was named stands for itself.
  const bool anchored = optimum.bracketed() || options.lr;
  if (format == Format::table)
    print(text_of_drift({options, proxy, target, optimum, lr, wd, anchored}, judged) + "\n");
  else
    print(format_table(table_of_drift({options, proxy, target, optimum, lr, wd, anchored}, judged.report),
                       format));
  return anchored ? sweeps::exit_code(judged.report.verdict) : static_cast<int>(kNoVerdict);
}

}  // namespace orchestrator
