#include "orchestrator/chart_transfer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "orchestrator/chart_frame.h"

namespace orchestrator {
namespace {

constexpr double kPanelWidth = 388, kPanelHeight = 340, kLegendRow = 18, kLegendColumn = 190;
constexpr int kColours = 6;      // .t0 ... in the page's style
constexpr double kSameWd = 0.3;  // octaves
constexpr double kReach = 1.5;   // octaves either side of an optimum that the loss axis holds

struct Span {
  double lo = std::numeric_limits<double>::infinity(), hi = -lo;
  void cover(double value) {
    lo = std::min(lo, value);
    hi = std::max(hi, value);
  }
  bool empty() const { return lo > hi; }
};

std::string colour(std::size_t index) { return fmt::format("t{}", index % kColours); }

double fitted_wd(const sweeps::Optimum& fit) { return fit.wd_fitted ? fit.wd.estimate : fit.best_observed.y; }

/// (log2 LR, loss) of the complete trials on the line of WD that is nearest the fit's; all without a fit.
std::vector<std::pair<double, double>> line_points(const LrSeries& series) {
  const auto distance = [&](const sweeps::TrialResult& trial) {
    return series.fit ? std::abs(std::log2(trial.spec.base.wd) - fitted_wd(*series.fit)) : 0.0;
  };
  double nearest = std::numeric_limits<double>::infinity();
  for (const auto& trial : series.trials)
    if (trial.loss) nearest = std::min(nearest, distance(trial));
  std::vector<std::pair<double, double>> points;
  for (const auto& trial : series.trials)
    if (trial.loss && distance(trial) <= nearest + kSameWd)
      points.emplace_back(std::log2(trial.spec.base.lr), *trial.loss);
  return points;
}

struct Axes {
  Span x, y;
};
Axes axes(const std::vector<LrPanel>& panels) {
  Axes axes;
  for (const auto& panel : panels)
    for (const auto& series : panel.series) {
      const auto points = line_points(series);
      for (const auto& [x, y] : points) axes.x.cover(x);
      const auto best = std::min_element(points.begin(), points.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
      for (const auto& [x, y] : points)
        if (std::abs(x - best->first) <= kReach) axes.y.cover(y);
      if (series.fit) axes.y.cover(series.fit->best_loss);
    }
  return axes;
}

void draw_series(ChartFrame& frame, const LrSeries& series, const std::string& style) {
  const auto points = line_points(series);
  if (series.fit && !points.empty()) {
    const auto& fit = *series.fit;
    Span explored;  // at any WD: the surface was fitted to all of them
    for (const auto& trial : series.trials)
      if (trial.loss) explored.cover(std::log2(trial.spec.base.lr));
    const double from = std::max(explored.lo, frame.x.lo), to = std::min(explored.hi, frame.x.hi);
    std::vector<std::pair<double, double>> curve;
    constexpr int kSteps = 120;
    for (int i = 0; i <= kSteps; ++i) {
      const double x = from + (to - from) * i / kSteps;
      curve.emplace_back(x, sweeps::evaluate(fit, fit.mean, x, fitted_wd(fit)));
    }
    frame.curve(curve, "line " + style);
    if (frame.y.contains(fit.best_loss)) {
      const double lo = std::clamp(fit.lr.ci.lo, frame.x.lo, frame.x.hi);
      const double hi = std::clamp(fit.lr.ci.hi, frame.x.lo, frame.x.hi);
      frame.svg.line(frame.at(lo, fit.best_loss), frame.at(hi, fit.best_loss), "interval " + style);
    }
  }
  for (const auto& [x, y] : points)
    if (frame.y.contains(y))
      frame.svg.circle(frame.at(x, y), 3.2, "line marker " + style, "",
                       fmt::format("{}: LR {:.3g}, {:.4f}", series.name, std::exp2(x), y));
}

}  // namespace

std::optional<Svg> transfer_chart(const std::vector<LrPanel>& panels) {
  auto [x, y] = axes(panels);
  if (x.empty() || y.empty()) return std::nullopt;
  x = {x.lo - 0.3, x.hi + 0.3};
  const double pad = std::max((y.hi - y.lo) * 0.06, 2e-3);
  y = {y.lo - pad, y.hi + pad};

  // Legend: every name once, by place in its panel, in as many columns as fit.
  const auto longest = std::max_element(panels.begin(), panels.end(), [](const auto& a, const auto& b) {
    return a.series.size() < b.series.size();
  });
  const double width = kPanelWidth * static_cast<double>(panels.size());
  const auto columns = static_cast<std::size_t>(std::max(1.0, std::floor((width - 72) / kLegendColumn)));
  const auto rows = (longest->series.size() + columns - 1) / columns;
  Svg picture(width, kPanelHeight + kLegendRow * static_cast<double>(rows) + 8,
              "Loss against learning rate, by rule");
  for (std::size_t i = 0; i < panels.size(); ++i) {
    ChartFrame frame(kPanelWidth, kPanelHeight, panels[i].title,
                     {x.lo, x.hi, "log2 LR of the proxy (value beneath)", octave_ticks(x.lo, x.hi, 7)},
                     {y.lo, y.hi, i == 0 ? "held-out loss" : "", round_ticks(y.lo, y.hi, 6)},
                     {.left = 72, .right = 14, .top = 30, .bottom = 60});
    if (panels[i].transferred_lr) frame.vertical(*panels[i].transferred_lr, "transferred");
    for (std::size_t j = 0; j < panels[i].series.size(); ++j)
      draw_series(frame, panels[i].series[j], colour(j));
    picture.place({kPanelWidth * static_cast<double>(i), 0}, frame.svg);
  }
  for (std::size_t j = 0; j < longest->series.size(); ++j) {
    const auto column = j % columns, row = j / columns;
    const Pixel at{72 + kLegendColumn * static_cast<double>(column),
                   kPanelHeight + 10 + kLegendRow * static_cast<double>(row)};
    picture.line(at, {at.first + 24, at.second}, "line " + colour(j));
    picture.text({at.first + 32, at.second + 4}, Anchor::start, longest->series[j].name, "tick");
  }
  return picture;
}

}  // namespace orchestrator
