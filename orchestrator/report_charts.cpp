#include "orchestrator/report_charts.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "orchestrator/chart_heat_map.h"
#include "orchestrator/chart_lines.h"
#include "orchestrator/chart_lr.h"
#include "orchestrator/chart_transfer.h"
#include "orchestrator/svg.h"

namespace orchestrator {
namespace {

using sweeps::TrialResult;

constexpr std::size_t kCurvePoints = 240;
constexpr int kTargetColours = 6;  // .t0 ... in the page's style

std::string note(std::string_view text) { return fmt::format("<p class=\"note\">{}</p>\n", escape(text)); }
std::string figure(const std::string& pictures, std::string_view caption) {
  return fmt::format("<figure>{}<figcaption>{}</figcaption></figure>\n", pictures, escape(caption));
}

const sweeps::Optimum* fit_of(const sweeps::Analysis& analysis) {
  return analysis.fit ? std::get_if<sweeps::Optimum>(&*analysis.fit) : nullptr;
}

struct Range {
  double lo = std::numeric_limits<double>::infinity(), hi = -lo;
};
Range lr_range(const sweeps::Analysis& analysis) {
  Range range;
  const auto cover = [&](const TrialResult& trial) {
    const double x = std::log2(trial.spec.base.lr);
    range = {std::min(range.lo, x), std::max(range.hi, x)};
  };
  for (const auto& trial : analysis.sweep) cover(trial);
  for (const auto& target : analysis.targets)
    for (const auto& trial : target.around) cover(trial);
  return {range.lo - 0.4, range.hi + 0.4};
}

std::string loss_unit(const sweeps::Analysis& analysis) {
  return analysis.sweep.empty() ? "nats" : std::string(sweeps::loss_unit(analysis.sweep.front().spec.run.shape));
}

LrChart target_chart(const sweeps::TargetAnalysis& target) {
  LrChart chart;
  chart.title = target.spec.name;
  chart.loss_unit = sweeps::loss_unit(target.spec.run.shape);
  chart.trials = target.around;
  if (target.drift && target.drift->fit) chart.fit = &*target.drift->fit;
  if (target.transferred) chart.transferred = &*target.transferred;
  if (target.baseline) chart.baseline = &*target.baseline;
  chart.transferred_lr = std::log2(target.config.base.lr);
  return chart;
}

using Points = std::vector<std::pair<double, double>>;

Points curve(const Curves& curves, const sweeps::TrialKey& key, std::string_view metric) {
  const auto found = curves.find(key);
  if (found == curves.end()) return {};
  for (const auto& series : found->second) {
    if (series.metric != metric) continue;
    Points points;
    for (std::size_t i = 0; i < std::min(series.steps.size(), series.values.size()); ++i)
      points.emplace_back(static_cast<double>(series.steps[i]), series.values[i]);
    return thinned(points, kCurvePoints);
  }
  return {};
}

const TrialResult* best_of(const std::vector<TrialResult>& trials) {
  const TrialResult* best = nullptr;
  for (const auto& trial : trials)
    if (trial.loss && (!best || *trial.loss < *best->loss)) best = &trial;
  return best;
}

LineChart curve_chart(std::string title, const sweeps::Analysis& analysis) {
  LineChart chart;
  chart.title = std::move(title);
  chart.x_title = "step";
  chart.y_title = fmt::format("loss, {}", loss_unit(analysis));
  chart.y_clip = 0.95;
  return chart;
}

std::string proxy_curves(const sweeps::Analysis& analysis, const Curves& curves) {
  LineChart chart = curve_chart("Proxy", analysis);
  const auto* best = best_of(analysis.sweep);
  bool named = false;
  for (const auto& trial : analysis.sweep) {
    if (&trial == best) continue;
    const auto points = curve(curves, trial.key, "train_loss");
    if (points.empty()) continue;
    chart.lines.push_back({named ? "" : "training loss of the other cells", "line faint", points});
    named = true;
  }
  if (best) {
    const std::string who = fmt::format("LR {}, WD {}", best->spec.base.lr, best->spec.base.wd);
    chart.lines.push_back(
        {"training loss of the best cell, " + who, "line best", curve(curves, best->key, "train_loss")});
    chart.lines.push_back({"its held-out loss", "line eval", curve(curves, best->key, "eval_loss"), true});
  }
  std::erase_if(chart.lines, [](const auto& line) { return line.points.empty(); });
  return line_chart(chart);
}

std::string target_curves(const sweeps::Analysis& analysis, const Curves& curves) {
  LineChart chart = curve_chart("Targets", analysis);
  int colour = 0;
  for (const auto& target : analysis.targets) {
    const std::string style = fmt::format("line t{}", colour++ % kTargetColours);
    if (target.transferred)
      chart.lines.push_back({target.spec.name, style, curve(curves, target.transferred->key, "train_loss")});
    if (target.baseline)
      chart.lines.push_back({target.spec.name + " under SP", style + " dashed",
                             curve(curves, target.baseline->key, "train_loss")});
  }
  std::erase_if(chart.lines, [](const auto& line) { return line.points.empty(); });
  return line_chart(chart);
}

}  // namespace

std::string heat_map_section(const sweeps::Analysis& analysis) {
  const auto map = heat_map(analysis.sweep, fit_of(analysis));
  if (!map) return note("The sweep has not begun.");
  return figure(
      map->str(),
      "Each cell is one (LR, WD) point of the proxy, with its held-out loss. Cells outside the grid "
      "were added where the optimum lay on an edge.");
}

std::optional<Svg> transfer_picture(const sweeps::Analysis& analysis) {
  std::vector<LrPanel> panels;
  for (const auto& target : analysis.targets) {
    if (target.around.empty()) continue;
    const auto rule = std::string(models::name(target.spec.rule.rule));
    auto panel = std::find_if(panels.begin(), panels.end(), [&](const auto& p) { return p.title == rule; });
    if (panel == panels.end()) {
      panels.push_back({rule, {{"proxy", analysis.sweep, fit_of(analysis)}}, std::log2(target.config.base.lr)});
      panel = panels.end() - 1;
    }
    const bool fitted = target.drift && target.drift->fit;
    panel->series.push_back({target.spec.name, target.around, fitted ? &*target.drift->fit : nullptr});
  }
  return panels.empty() ? std::nullopt : transfer_chart(panels);
}

std::string lr_section(const sweeps::Analysis& analysis) {
  if (analysis.sweep.empty()) return note("The sweep has not begun.");
  const auto range = lr_range(analysis);
  LrChart proxy;
  proxy.title = "proxy";
  proxy.loss_unit = loss_unit(analysis);
  proxy.trials = analysis.sweep;
  proxy.fit = fit_of(analysis);
  std::string together;
  if (const auto picture = transfer_picture(analysis))
    together = figure(picture->str(),
                      "The fitted curves of all models on common axes, by the rule that transferred them; under a "
                      "rule that holds, the optima lie above each other. Thick bar: 95 % interval of the optimum. "
                      "Dashed line: the transferred LR.");
  std::string pictures = lr_chart(proxy, range.lo, range.hi).str();
  for (const auto& target : analysis.targets)
    pictures += lr_chart(target_chart(target), range.lo, range.hi).str();
  return together + figure(
      "<div class=\"row\">" + pictures + "</div>",
      "LR in rule coordinates: a target whose optimum did not move has it where the proxy has it. Curve: "
      "the fit at its optimum WD. Solid line and band: fitted optimum and its 95 % interval. Dashed line "
      "and ring: the transferred point. Square: the same shape under SP. Filled points lie at the "
      "WD nearest the optimum, faint ones elsewhere; ↑ above the picture, × diverged.");
}

std::string scan_section(const sweeps::Study& study, const sweeps::Analysis& analysis) {
  if (analysis.scan.empty())
    return note(
        fmt::format("Not scanned: the study gives {} for the proxy's matrices.", study.base.init_std));
  LineChart chart;
  chart.title = "Held-out loss over the initial std";
  chart.x_title = "log2 initial std (value beneath)";
  chart.y_title = fmt::format("held-out loss, {}", sweeps::loss_unit(study.proxy.shape));
  chart.octaves = true;
  const std::size_t num_lr = analysis.scan.front().trials.size();
  for (std::size_t i = 0; i < num_lr; ++i) {
    Line line{.name = fmt::format("LR {}", analysis.scan.front().trials[i].spec.base.lr),
              .style = fmt::format("line t{}", i % kTargetColours),
              .points = {},
              .marked = true};
    for (const auto& row : analysis.scan)
      if (row.trials[i].loss) line.points.emplace_back(std::log2(row.init_std), *row.trials[i].loss);
    chart.lines.push_back(line);
  }
  const std::string picture = line_chart(chart);
  if (picture.empty()) return note("No trial of the scan has finished.");
  return figure(picture,
                fmt::format("The sweep uses {}, the std with the lowest loss at any of the three LRs.",
                            analysis.init_std));
}

std::string curves_section(const sweeps::Analysis& analysis, const Curves& curves) {
  const std::string pictures = proxy_curves(analysis, curves) + target_curves(analysis, curves);
  if (pictures.empty()) return note("No curve has been recorded.");
  return figure("<div class=\"row\">" + pictures + "</div>",
                "Means over equal stretches of the run; the first steps may lie above the picture.");
}

}  // namespace orchestrator
