#include "orchestrator/chart_frame.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace orchestrator {

std::string short_number(double value) {
  const std::string plain = fmt::format("{:.2g}", value);
  std::string scientific = fmt::format("{:.1e}", value);
  const auto e = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(e + 1));
  scientific = fmt::format("{}e{}", scientific.substr(0, e), exponent);
  const bool has_exponent = plain.find('e') != std::string::npos;
  return has_exponent || scientific.size() < plain.size() ? scientific : plain;
}

std::vector<Tick> round_ticks(double lo, double hi, int count) {
  const double power = std::pow(10, std::floor(std::log10(hi - lo)));
  double step = power;
  for (const double factor : {1.0, 0.5, 0.2, 0.1, 0.05}) {
    step = factor * power;
    if ((hi - lo) / step >= 0.7 * count) break;
  }
  const int digits = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  std::vector<Tick> ticks;
  for (double i = std::ceil(lo / step - 1e-9); i * step <= hi + 1e-9 * step; ++i)
    ticks.push_back({i * step, fmt::format("{:.{}f}", i * step + 0.0, digits), ""});
  return ticks;
}

std::vector<Tick> octave_ticks(double lo, double hi, int most) {
  double step = 0.5;
  while ((hi - lo) / step > most) step *= 2;
  std::vector<Tick> ticks;
  for (double octave = std::ceil(lo / step) * step; octave <= hi; octave += step)
    ticks.push_back({octave, fmt::format("{:g}", octave), short_number(std::exp2(octave))});
  return ticks;
}

ChartFrame::ChartFrame(double width, double height, const std::string& title, const Axis& x_axis,
                       const Axis& y_axis, const Margins& margins)
    : svg(width, height, title),
      x{x_axis.lo, x_axis.hi, margins.left, width - margins.right},
      y{y_axis.lo, y_axis.hi, height - margins.bottom, margins.top} {
  svg.text({margins.left, 17}, Anchor::start, title, "title");
  for (const auto& tick : y_axis.ticks) {
    svg.line({x.from, y(tick.value)}, {x.to, y(tick.value)}, "grid");
    svg.text({x.from - 7, y(tick.value) + (tick.second.empty() ? 4 : -1)}, Anchor::end, tick.label, "tick");
    if (!tick.second.empty()) svg.text({x.from - 7, y(tick.value) + 11}, Anchor::end, tick.second, "small");
  }
  for (const auto& tick : x_axis.ticks) {
    svg.line({x(tick.value), y.from}, {x(tick.value), y.to}, "grid");
    svg.text({x(tick.value), y.from + 16}, Anchor::middle, tick.label, "tick");
    if (!tick.second.empty()) svg.text({x(tick.value), y.from + 29}, Anchor::middle, tick.second, "small");
  }
  svg.text({(x.from + x.to) / 2, height - 8}, Anchor::middle, x_axis.title, "axis");
  svg.vertical_text({14, (y.from + y.to) / 2}, y_axis.title, "axis");
}

void ChartFrame::curve(const std::vector<std::pair<double, double>>& values, std::string_view style) {
  std::vector<Pixel> run;
  for (const auto& [vx, vy] : values) {
    if (x.contains(vx) && y.contains(vy)) {
      run.push_back(at(vx, vy));
      continue;
    }
    svg.polyline(run, style);
    run.clear();
  }
  svg.polyline(run, style);
}

void ChartFrame::vertical(double value, std::string_view style) {
  if (x.contains(value)) svg.line({x(value), y.from}, {x(value), y.to}, style);
}

void ChartFrame::band(double lo, double hi, std::string_view style) {
  const double left = x(std::clamp(lo, x.lo, x.hi));
  const double right = x(std::clamp(hi, x.lo, x.hi));
  svg.rect({left, y.to}, right - left, y.from - y.to, style);
}

}  // namespace orchestrator
