#include "orchestrator/chart_lines.h"

#include <algorithm>
#include <cmath>

#include "orchestrator/chart_frame.h"

namespace orchestrator {
namespace {

constexpr double kLegendRow = 18;

std::size_t legend_rows(const LineChart& chart) {
  return static_cast<std::size_t>(std::count_if(chart.lines.begin(), chart.lines.end(),
                                                [](const auto& line) { return !line.name.empty(); }));
}

void legend(ChartFrame& frame, const LineChart& chart) {
  double top = frame.y.from + 68;
  for (const auto& line : chart.lines) {
    if (line.name.empty()) continue;
    frame.svg.line({frame.x.from, top}, {frame.x.from + 24, top}, line.style);
    frame.svg.text({frame.x.from + 32, top + 4}, Anchor::start, line.name, "tick");
    top += kLegendRow;
  }
}

}  // namespace

std::vector<std::pair<double, double>> thinned(const std::vector<std::pair<double, double>>& points,
                                               std::size_t count) {
  if (points.size() <= count) return points;
  std::vector<std::pair<double, double>> result;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t begin = i * points.size() / count, end = (i + 1) * points.size() / count;
    std::pair<double, double> mean{0, 0};
    for (std::size_t j = begin; j < end; ++j) {
      mean.first += points[j].first / static_cast<double>(end - begin);
      mean.second += points[j].second / static_cast<double>(end - begin);
    }
    result.push_back(mean);
  }
  return result;
}

std::string line_chart(const LineChart& chart) {
  std::vector<double> xs, ys;
  for (const auto& line : chart.lines)
    for (const auto& [x, y] : line.points)
      if (std::isfinite(x) && std::isfinite(y)) xs.push_back(x), ys.push_back(y);
  if (xs.empty()) return "";
  std::sort(xs.begin(), xs.end());
  std::sort(ys.begin(), ys.end());
  const double y_top = ys[static_cast<std::size_t>(static_cast<double>(ys.size() - 1) * chart.y_clip)];
  const double pad_y = std::max((y_top - ys.front()) * 0.08, 1e-3);
  const double pad_x = chart.octaves ? 0.25 : std::max((xs.back() - xs.front()) * 0.01, 1e-3);
  const double x_lo = chart.octaves ? xs.front() - pad_x : std::min(0.0, xs.front());
  const double x_hi = xs.back() + pad_x;
  const double y_lo = ys.front() - pad_y, y_hi = y_top + pad_y;
  const double rows = static_cast<double>(legend_rows(chart));
  ChartFrame frame(chart.width, chart.height + rows * kLegendRow, chart.title,
                   {x_lo, x_hi, "", chart.octaves ? octave_ticks(x_lo, x_hi, 9) : round_ticks(x_lo, x_hi, 6)},
                   {y_lo, y_hi, chart.y_title, round_ticks(y_lo, y_hi, 6)},
                   {.left = 72, .right = 16, .top = 30, .bottom = 68 + rows * kLegendRow});
  frame.svg.text({(frame.x.from + frame.x.to) / 2, frame.y.from + (chart.octaves ? 46 : 38)}, Anchor::middle,
                 chart.x_title, "axis");
  for (const auto& line : chart.lines) {
    frame.curve(line.points, line.style);
    if (!line.marked) continue;
    for (const auto& [x, y] : line.points)
      if (frame.y.contains(y)) frame.svg.circle(frame.at(x, y), 3.5, line.style + " marker");
  }
  legend(frame, chart);
  return frame.svg.str();
}

}  // namespace orchestrator
