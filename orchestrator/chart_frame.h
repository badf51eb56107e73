#pragma once

#include <string>
#include <vector>

#include "orchestrator/svg.h"

namespace orchestrator {

/// Numbers lo..hi laid on pixels from..to.
struct Scale {
  double lo = 0, hi = 1;
  double from = 0, to = 1;
  double operator()(double value) const { return from + (value - lo) / (hi - lo) * (to - from); }
  bool contains(double value) const { return value >= lo && value <= hi; }
};

struct Tick {
  double value = 0;
  std::string label;
  std::string second;  // a line beneath the label
};

/// About `count` round numbers from lo to hi, all with the digits that tell them apart.
std::vector<Tick> round_ticks(double lo, double hi, int count);
/// Octaves a half, 1, 2, 4 ... apart, at most `most` of them; labelled by exponent with the value beneath.
std::vector<Tick> octave_ticks(double lo, double hi, int most);

/// Two digits, in the shorter of the forms "0.0039" and "9.8e-4".
std::string short_number(double value);

/// A plot area with grid lines, tick labels and axis titles.
class ChartFrame {
 public:
  struct Axis {
    double lo = 0, hi = 1;
    std::string title;
    std::vector<Tick> ticks;
  };
  struct Margins {
    double left = 64, right = 16, top = 28, bottom = 56;
  };
  ChartFrame(double width, double height, const std::string& title, const Axis& x, const Axis& y,
             const Margins& margins);

  Pixel at(double x_value, double y_value) const { return {x(x_value), y(y_value)}; }
  /// The part of a curve inside the frame; leaves out what lies outside, joining nothing across a gap.
  void curve(const std::vector<std::pair<double, double>>& values, std::string_view style);
  void vertical(double x_value, std::string_view style);
  /// A band over an interval of x, cut at the frame.
  void band(double lo, double hi, std::string_view style);

  Svg svg;
  Scale x, y;
};

}  // namespace orchestrator
