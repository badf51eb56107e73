#include "orchestrator/chart_lr.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "orchestrator/chart_frame.h"

namespace orchestrator {
namespace {

using sweeps::TrialResult;
using sweeps::TrialState;

constexpr double kWidth = 374, kHeight = 300;
constexpr ChartFrame::Margins kMargins{.left = 72, .right = 14, .top = 30, .bottom = 60};
constexpr double kSameWd = 0.3;  // octaves

bool is_complete(const TrialResult* trial) {
  return trial && trial->state == TrialState::complete && trial->loss;
}

struct Span {
  double lo = std::numeric_limits<double>::infinity(), hi = -lo;
  void cover(double value) {
    lo = std::min(lo, value);
    hi = std::max(hi, value);
  }
};

/// Losses worth showing: the far arms of a bowl would flatten its bottom, so the axis ends at the loss that
/// two thirds of the trials keep below, and the rest is marked at the upper edge.
Span loss_span(const LrChart& chart) {
  std::vector<double> losses;
  for (const auto& trial : chart.trials)
    if (is_complete(&trial)) losses.push_back(*trial.loss);
  std::sort(losses.begin(), losses.end());
  Span span;
  if (!losses.empty()) {
    span.cover(losses.front());
    span.cover(losses[(losses.size() - 1) * 2 / 3]);
  }
  for (const auto* trial : {chart.transferred, chart.baseline})
    if (is_complete(trial)) span.cover(*trial->loss);
  if (chart.fit) span.cover(chart.fit->best_loss);
  if (!std::isfinite(span.lo)) return {0, 1};
  const double pad = std::max((span.hi - span.lo) * 0.12, 4e-3);
  return {span.lo - pad, span.hi + pad};
}

void draw_trial(ChartFrame& frame, const TrialResult& trial, bool near) {
  const double x = std::log2(trial.spec.base.lr);
  const std::string tooltip = fmt::format("LR {}, WD {}", trial.spec.base.lr, trial.spec.base.wd);
  if (trial.state == TrialState::diverged) {
    frame.svg.text({frame.x(x), frame.y.to + 12}, Anchor::middle, "×", "mark-diverged");
    return;
  }
  if (!is_complete(&trial)) return;
  if (*trial.loss > frame.y.hi) {
    frame.svg.text({frame.x(x), frame.y.to + 11}, Anchor::middle, "↑", near ? "mark" : "mark faint");
    return;
  }
  frame.svg.circle(frame.at(x, *trial.loss), near ? 4 : 3, near ? "point" : "point faint", "",
                   fmt::format("{}: {:.5f}", tooltip, *trial.loss));
}

double optimum_wd(const sweeps::Optimum& fit) {
  return fit.wd_fitted ? fit.wd.estimate : fit.best_observed.y;
}
double wd_distance(const TrialResult& trial, const sweeps::Optimum& fit) {
  return std::abs(std::log2(trial.spec.base.wd) - optimum_wd(fit));
}
/// Octaves from the optimum's WD to the nearest one that was trained: those trials are drawn in full.
double wd_distance(const LrChart& chart) {
  double nearest = std::numeric_limits<double>::infinity();
  for (const auto& trial : chart.trials) nearest = std::min(nearest, wd_distance(trial, *chart.fit));
  return nearest;
}

void draw_fit(ChartFrame& frame, const sweeps::Optimum& fit) {
  frame.band(fit.lr.ci.lo, fit.lr.ci.hi, "ci");
  frame.vertical(fit.lr.estimate, "optimum");
  const double wd = optimum_wd(fit);
  std::vector<std::pair<double, double>> curve;
  constexpr int kSteps = 160;
  for (int i = 0; i <= kSteps; ++i) {
    const double x = frame.x.lo + (frame.x.hi - frame.x.lo) * i / kSteps;
    curve.emplace_back(x, sweeps::evaluate(fit, fit.mean, x, wd));
  }
  frame.curve(curve, "fit");
}

}  // namespace

Svg lr_chart(const LrChart& chart, double lo, double hi) {
  const auto span = loss_span(chart);
  ChartFrame frame(kWidth, kHeight, chart.title, {lo, hi, "log2 LR (value beneath)", octave_ticks(lo, hi, 6)},
                   {span.lo, span.hi, fmt::format("held-out loss, {}", chart.loss_unit), round_ticks(span.lo, span.hi, 5)}, kMargins);
  if (chart.fit) draw_fit(frame, *chart.fit);
  if (chart.transferred_lr) frame.vertical(*chart.transferred_lr, "transferred");
  const double far = chart.fit ? wd_distance(chart) + kSameWd : 0;
  for (const auto& trial : chart.trials)
    draw_trial(frame, trial, !chart.fit || wd_distance(trial, *chart.fit) <= far);
  if (is_complete(chart.baseline))
    frame.svg.rect({frame.x(std::log2(chart.baseline->spec.base.lr)) - 4, frame.y(*chart.baseline->loss) - 4},
                   8, 8, "baseline", "", fmt::format("under SP: {:.5f}", *chart.baseline->loss));
  if (is_complete(chart.transferred))
    frame.svg.circle(frame.at(std::log2(chart.transferred->spec.base.lr), *chart.transferred->loss), 7,
                     "ring", "", fmt::format("transferred: {:.5f}", *chart.transferred->loss));
  return frame.svg;
}

}  // namespace orchestrator
