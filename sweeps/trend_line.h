#pragma once

#include <vector>

namespace sweeps {

/// A straight line by weighted least squares.
struct TrendLine {
  double slope = 0, level = 0;  // y = level + slope x
};

/// REQUIRES: at least two different x, weights above 0, all three of one length.
inline TrendLine fit_line(const std::vector<double>& x, const std::vector<double>& y,
                          const std::vector<double>& weights) {
  double sum = 0, mean_x = 0, mean_y = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    sum += weights[i];
    mean_x += weights[i] * x[i];
    mean_y += weights[i] * y[i];
  }
  mean_x /= sum;
  mean_y /= sum;
  double xx = 0, xy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xx += weights[i] * (x[i] - mean_x) * (x[i] - mean_x);
    xy += weights[i] * (x[i] - mean_x) * (y[i] - mean_y);
  }
  return {.slope = xy / xx, .level = mean_y - xy / xx * mean_x};
}

}  // namespace sweeps
