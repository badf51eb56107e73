#pragma once

#include <string>
#include <utility>
#include <vector>

namespace orchestrator {

/// One line of a chart: its points, how it is drawn (a CSS class), and its name in the legend (none: no
/// entry).
struct Line {
  std::string name;
  std::string style;
  std::vector<std::pair<double, double>> points;
  bool marked = false;  // a dot at each point
};

struct LineChart {
  std::string title;
  std::string x_title, y_title;
  bool octaves = false;  // x is log2 of a value
  std::vector<Line> lines;
  double y_clip = 1;  // share of the points that the y axis must hold; the highest ones may lie outside
  double width = 560, height = 320;
};

/// Empty when there is no point to draw.
std::string line_chart(const LineChart& chart);

/// At most `count` points: means over equal stretches.
std::vector<std::pair<double, double>> thinned(const std::vector<std::pair<double, double>>& points,
                                               std::size_t count);

}  // namespace orchestrator
