#include "orchestrator/chart_heat_map.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "orchestrator/chart_frame.h"

namespace orchestrator {
namespace {

using sweeps::TrialResult;
using sweeps::TrialState;

constexpr double kWidth = 860, kPlotHeight = 340;
constexpr ChartFrame::Margins kMargins{.left = 78, .right = 150, .top = 32, .bottom = 62};
constexpr double kSameLevel = 0.02;                  // octaves
constexpr double kChipWidth = 52, kChipHeight = 22;  // pixels, of a cell that is not part of a grid

/// All replicates of one (LR, WD) point.
struct Cell {
  double x = 0, y = 0;  // octaves
  double loss = 0;      // mean over complete replicates
  int complete = 0, diverged = 0, pruned = 0, failed = 0, open = 0;
  std::string label;
};

std::vector<Cell> cells(const std::vector<TrialResult>& trials) {
  std::map<std::pair<double, double>, Cell> by_point;
  for (const auto& trial : trials) {
    const auto& base = trial.spec.base;
    Cell& cell = by_point[{base.lr, base.wd}];
    cell.x = std::log2(base.lr);
    cell.y = std::log2(base.wd);
    cell.label = fmt::format("LR {}, WD {}", base.lr, base.wd);
    switch (trial.state) {
      case TrialState::complete:
        cell.loss += trial.loss.value_or(0);
        ++cell.complete;
        break;
      case TrialState::diverged: ++cell.diverged; break;
      case TrialState::failed: ++cell.failed; break;
      case TrialState::pruned: ++cell.pruned; break;
      default: ++cell.open;
    }
  }
  std::vector<Cell> result;
  for (auto& [point, cell] : by_point) {
    if (cell.complete > 0) cell.loss /= cell.complete;
    result.push_back(cell);
  }
  return result;
}

/// Rising values, each once.
std::vector<double> levels(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  std::vector<double> result;
  for (const double value : values)
    if (result.empty() || value - result.back() > kSameLevel) result.push_back(value);
  return result;
}

struct Span {
  double lo = 0, hi = 0;
};
/// From halfway to the level below to halfway to the level above; the ends reach as far out as in.
Span around(const std::vector<double>& all, double value) {
  const auto at = std::min_element(
      all.begin(), all.end(), [&](double a, double b) { return std::abs(a - value) < std::abs(b - value); });
  const bool first = at == all.begin(), last = at + 1 == all.end();
  if (first && last) return {*at - 0.5, *at + 0.5};
  const double below = first ? 0 : (*at - *(at - 1)) / 2;
  const double above = last ? 0 : (*(at + 1) - *at) / 2;
  return {*at - (first ? above : below), *at + (last ? below : above)};
}

/// A grid (extensions included) is tiled; scattered points are chips, or dots where chips would overlap.
struct Layout {
  std::vector<double> xs, ys;  // levels, octaves
  bool tiled = false;
  Span x, y;  // of the axes
};

Layout lay_out(const std::vector<Cell>& all, const sweeps::Optimum* fit) {
  std::vector<double> xs, ys;
  for (const auto& cell : all) {
    xs.push_back(cell.x);
    ys.push_back(cell.y);
  }
  Layout layout;
  layout.xs = levels(xs);
  layout.ys = levels(ys);
  layout.tiled = layout.xs.size() * layout.ys.size() <= 2 * all.size();
  const auto axis = [&](const std::vector<double>& on, std::optional<double> optimum) {
    const double pad = 0.4;
    Span span{on.front() - pad, on.back() + pad};
    if (layout.tiled) span = {around(on, on.front()).lo, around(on, on.back()).hi};
    if (optimum) span = {std::min(span.lo, *optimum - pad), std::max(span.hi, *optimum + pad)};
    return span;
  };
  layout.x = axis(layout.xs, fit ? std::optional(fit->lr.estimate) : std::nullopt);
  layout.y = axis(layout.ys, fit && fit->wd_fitted ? std::optional(fit->wd.estimate) : std::nullopt);
  return layout;
}

/// Excess loss at which the colours end: the bulk of the cells stays apart whatever the worst one cost.
double clip(const std::vector<Cell>& all, double lowest) {
  std::vector<double> excess;
  for (const auto& cell : all)
    if (cell.complete > 0) excess.push_back(cell.loss - lowest);
  if (excess.empty()) return 1;
  std::sort(excess.begin(), excess.end());
  return std::max(excess[excess.size() * 3 / 4], 1e-3);
}

double lowest_loss(const std::vector<Cell>& all) {
  double lowest = std::numeric_limits<double>::infinity();
  for (const auto& cell : all)
    if (cell.complete > 0) lowest = std::min(lowest, cell.loss);
  return lowest;
}

std::string tooltip(const Cell& cell, double lowest) {
  std::string text = cell.label;
  if (cell.complete > 0)
    text += fmt::format(": loss {:.5f}, {:.5f} above the lowest", cell.loss, cell.loss - lowest);
  if (cell.complete > 1) text += fmt::format(" (mean of {})", cell.complete);
  if (cell.diverged > 0) text += fmt::format("; {} diverged", cell.diverged);
  if (cell.pruned > 0) text += fmt::format("; {} pruned", cell.pruned);
  if (cell.failed > 0) text += fmt::format("; {} failed", cell.failed);
  if (cell.open > 0) text += fmt::format("; {} to be trained", cell.open);
  return text;
}

class HeatMap {
 public:
  HeatMap(const std::vector<TrialResult>& trials, const sweeps::Optimum* fit)
      : cells_(cells(trials)),
        fit_(fit),
        loss_unit_(sweeps::loss_unit(trials.front().spec.run.shape)),
        layout_(lay_out(cells_, fit)),
        lowest_(lowest_loss(cells_)),
        clip_(clip(cells_, lowest_)),
        frame_(kWidth, kPlotHeight + kMargins.top + kMargins.bottom, "Held-out loss over LR and WD",
               {layout_.x.lo, layout_.x.hi, "log2 LR (value beneath)",
                octave_ticks(layout_.x.lo, layout_.x.hi, 8)},
               {layout_.y.lo, layout_.y.hi, "log2 WD (value beneath)",
                octave_ticks(layout_.y.lo, layout_.y.hi, 9)},
               kMargins) {}

  Svg draw() {
    const bool dots = !layout_.tiled && chips_overlap();
    for (const auto& cell : cells_) dots ? dot(cell) : tile(cell);
    if (fit_) optimum();
    legend();
    return frame_.svg;
  }

 private:
  struct Box {
    double left = 0, top = 0, width = 0, height = 0;
  };
  Box box(const Cell& cell) const {
    if (!layout_.tiled) {
      const auto [x, y] = frame_.at(cell.x, cell.y);
      return {x - kChipWidth / 2, y - kChipHeight / 2, kChipWidth, kChipHeight};
    }
    const Span x = around(layout_.xs, cell.x), y = around(layout_.ys, cell.y);
    const double left = frame_.x(x.lo) + 1, top = frame_.y(y.hi) + 1;
    return {left, top, frame_.x(x.hi) - 1 - left, frame_.y(y.lo) - 1 - top};
  }

  bool chips_overlap() const {
    for (std::size_t i = 0; i < cells_.size(); ++i)
      for (std::size_t j = i + 1; j < cells_.size(); ++j) {
        const Box a = box(cells_[i]), b = box(cells_[j]);
        if (std::abs(a.left - b.left) < a.width && std::abs(a.top - b.top) < a.height) return true;
      }
    return false;
  }

  void tile(const Cell& cell) {
    const auto [left, top, width, height] = box(cell);
    const Pixel corner{left, top};
    const auto colour = cell_colour((cell.loss - lowest_) / clip_);
    if (cell.complete > 0)
      frame_.svg.rect(corner, width, height, "cell", colour.fill, tooltip(cell, lowest_));
    else
      frame_.svg.rect(corner, width, height, cell.diverged > 0 ? "cell diverged" : "cell open", "",
                      tooltip(cell, lowest_));
    if (cell.diverged > 0) frame_.svg.hatch(corner, width, height, "hatch");
    if (width < 36) return;
    const Pixel middle{left + width / 2, top + height / 2 + 4 + text_shift(box(cell))};
    if (cell.complete > 0)
      frame_.svg.text(middle, Anchor::middle, fmt::format("{:.{}f}", cell.loss, width >= kChipWidth ? 4 : 3),
                      "number", colour.text);
    else
      frame_.svg.text(middle, Anchor::middle,
                      cell.diverged > 0 ? "diverged"
                      : cell.pruned > 0 ? "pruned"
                      : cell.failed > 0 ? "failed"
                                        : "waiting",
                      "state");
  }

  Pixel optimum_pixel() const {
    return frame_.at(fit_->lr.estimate, fit_->wd_fitted ? fit_->wd.estimate : fit_->best_observed.y);
  }

  /// Where a cell's number goes when the optimum's cross would cover it: to the far end of the cell.
  double text_shift(const Box& cell) const {
    constexpr double kArm = 13;
    if (!fit_ || cell.height < 40) return 0;
    const auto [x, y] = optimum_pixel();
    const bool inside = x > cell.left - kArm && x < cell.left + cell.width + kArm && y > cell.top &&
                        y < cell.top + cell.height;
    if (!inside) return 0;
    return (y > cell.top + cell.height / 2 ? -1 : 1) * (cell.height / 2 - 14);
  }

  void dot(const Cell& cell) {
    const auto centre = frame_.at(cell.x, cell.y);
    if (cell.complete > 0) {
      const auto colour = cell_colour((cell.loss - lowest_) / clip_);
      frame_.svg.circle(centre, 8, "dot", colour.fill, tooltip(cell, lowest_));
      return;
    }
    frame_.svg.circle(centre, 8, cell.diverged > 0 ? "dot diverged" : "dot open", "", tooltip(cell, lowest_));
    if (cell.diverged > 0) frame_.svg.hatch({centre.first - 6, centre.second - 6}, 12, 12, "hatch");
  }

  void optimum() {
    std::vector<Pixel> outline;
    for (const auto& [x, y] : optimum_region(*fit_))
      outline.push_back(
          frame_.at(std::clamp(x, layout_.x.lo, layout_.x.hi), std::clamp(y, layout_.y.lo, layout_.y.hi)));
    frame_.svg.polygon(outline, "region-halo");
    frame_.svg.polygon(outline, "region");
    if (!fit_->wd_fitted) frame_.band(fit_->lr.ci.lo, fit_->lr.ci.hi, "region");
    frame_.svg.cross(optimum_pixel(), 11, "cross-halo");
    frame_.svg.cross(optimum_pixel(), 10, "cross");
  }

  void legend() {
    const double left = kWidth - kMargins.right + 18;
    double top = kMargins.top + 6;
    frame_.svg.text({left, top + 4}, Anchor::start, "above the lowest", "small");
    frame_.svg.text({left, top + 18}, Anchor::start, fmt::format("loss, {}", loss_unit_), "small");
    top += 28;
    constexpr int kSteps = 24;
    constexpr double kStep = 5;
    for (int i = 0; i < kSteps; ++i)
      frame_.svg.rect({left, top + i * kStep}, 18, kStep + 0.5, "ramp",
                      cell_colour(static_cast<double>(i) / (kSteps - 1)).fill);
    frame_.svg.text({left + 25, top + 9}, Anchor::start, "0", "tick");
    frame_.svg.text({left + 25, top + kSteps * kStep}, Anchor::start, "≥ " + short_number(clip_), "tick");
    top += kSteps * kStep + 22;
    frame_.svg.rect({left, top}, 18, 14, "cell diverged");
    frame_.svg.hatch({left, top}, 18, 14, "hatch");
    frame_.svg.text({left + 25, top + 11}, Anchor::start, "diverged", "tick");
    if (!fit_) return;
    top += 28;
    frame_.svg.cross({left + 9, top + 4}, 8, "cross-halo");
    frame_.svg.cross({left + 9, top + 4}, 7, "cross");
    frame_.svg.text({left + 25, top + 8}, Anchor::start, "fitted optimum", "tick");
    top += 20;
    frame_.svg.rect({left, top}, 18, 12, "region-halo");
    frame_.svg.rect({left, top}, 18, 12, "region");
    frame_.svg.text({left + 25, top + 10}, Anchor::start, "95 % region", "tick");
  }

  std::vector<Cell> cells_;
  const sweeps::Optimum* fit_;
  std::string_view loss_unit_;
  Layout layout_;
  double lowest_, clip_;
  ChartFrame frame_;
};

using Point = std::pair<double, double>;

double turn(const Point& a, const Point& b, const Point& c) {
  return (b.first - a.first) * (c.second - a.second) - (b.second - a.second) * (c.first - a.first);
}

/// Convex hull by Andrew's monotone chain, counter-clockwise.
std::vector<Point> hull(std::vector<Point> points) {
  std::sort(points.begin(), points.end());
  points.erase(std::unique(points.begin(), points.end()), points.end());
  if (points.size() < 3) return points;
  std::vector<Point> result;
  const auto sweep = [&](auto begin, auto end) {
    const std::size_t start = result.size();
    for (auto point = begin; point != end; ++point) {
      while (result.size() >= start + 2 && turn(result[result.size() - 2], result.back(), *point) <= 0)
        result.pop_back();
      result.push_back(*point);
    }
    result.pop_back();
  };
  sweep(points.begin(), points.end());
  sweep(points.rbegin(), points.rend());
  return result;
}

}  // namespace

std::vector<Point> optimum_region(const sweeps::Optimum& fit) {
  if (!fit.wd_fitted || fit.draws.size() < 20) return {};
  const double n = static_cast<double>(fit.draws.size());
  double mx = 0, my = 0;
  for (const auto& draw : fit.draws) mx += draw.x / n, my += draw.y / n;
  double xx = 1e-9, xy = 0, yy = 1e-9;  // all draws on one side of the box have no spread along it
  for (const auto& draw : fit.draws) {
    xx += (draw.x - mx) * (draw.x - mx) / n;
    xy += (draw.x - mx) * (draw.y - my) / n;
    yy += (draw.y - my) * (draw.y - my) / n;
  }
  const double determinant = std::max(xx * yy - xy * xy, 1e-18);
  std::vector<std::pair<double, Point>> by_distance;
  for (const auto& draw : fit.draws) {
    const double dx = draw.x - mx, dy = draw.y - my;
    by_distance.push_back({(yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / determinant, {draw.x, draw.y}});
  }
  std::sort(by_distance.begin(), by_distance.end());
  by_distance.resize(by_distance.size() * 95 / 100);
  std::vector<Point> nearest;
  for (const auto& [distance, point] : by_distance) nearest.push_back(point);
  return hull(std::move(nearest));
}

CellColour cell_colour(double share) {
  // Equal steps in lightness, dark to light; readable without colour vision.
  static constexpr std::array<std::array<double, 3>, 5> kStops = {
      {{27, 53, 112}, {36, 109, 148}, {62, 160, 145}, {148, 202, 122}, {247, 230, 140}}};
  if (!std::isfinite(share)) share = 1;
  const double position = std::clamp(share, 0.0, 1.0) * (kStops.size() - 1);
  const auto low = std::min<std::size_t>(static_cast<std::size_t>(position), kStops.size() - 2);
  const double part = position - static_cast<double>(low);
  std::array<int, 3> rgb;
  for (std::size_t i = 0; i < 3; ++i)
    rgb[i] = static_cast<int>(std::lround(kStops[low][i] + part * (kStops[low + 1][i] - kStops[low][i])));
  const double lightness = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
  return {fmt::format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]),
          lightness > 125 ? "#10202c" : "#ffffff"};
}

std::optional<Svg> heat_map(const std::vector<TrialResult>& trials, const sweeps::Optimum* fit) {
  if (trials.empty()) return std::nullopt;
  return HeatMap(trials, fit).draw();
}

}  // namespace orchestrator
