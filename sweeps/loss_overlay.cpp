#include "sweeps/loss_overlay.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include <boost/math/distributions/students_t.hpp>

#include "sweeps/coord_check.h"

namespace sweeps {
namespace {

constexpr std::size_t kSmoothing = 10;

/// Mean over the last kSmoothing values (fewer at the start).
std::vector<double> smoothed(const std::vector<double>& values) {
  std::vector<double> result;
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    sum += values[i];
    if (i >= kSmoothing) sum -= values[i - kSmoothing];
    result.push_back(sum / static_cast<double>(std::min(i + 1, kSmoothing)));
  }
  return result;
}

std::pair<double, double> mean_and_deviation(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double mean = 0, square = 0;
  for (const double value : values) mean += value / n;
  for (const double value : values) square += (value - mean) * (value - mean);
  return {mean, std::sqrt(square / (n - 1))};
}

}  // namespace

LossOverlay overlay_losses(const std::vector<std::vector<double>>& proxy,
                           const std::vector<std::vector<double>>& target, std::size_t first) {
  const std::size_t seeds = proxy.size();
  if (seeds < 2 || target.size() != seeds) throw std::invalid_argument("the overlay needs at least 2 seeds");
  const std::size_t steps = proxy[0].size();
  std::vector<std::vector<double>> level, gap;
  for (std::size_t s = 0; s < seeds; ++s) {
    if (proxy[s].size() != steps || target[s].size() != steps || steps <= first + kSmoothing)
      throw std::invalid_argument("the overlay needs more than " + std::to_string(first + kSmoothing) +
                                  " steps of every run; one is shorter, or was not finite");
    std::vector<double> difference(steps);
    for (std::size_t t = 0; t < steps; ++t) difference[t] = target[s][t] - proxy[s][t];
    level.push_back(smoothed(proxy[s]));
    gap.push_back(smoothed(difference));
  }

  LossOverlay result;
  std::vector<double> slopes;
  for (const auto& one : gap) {
    std::vector<std::pair<double, double>> points;
    for (std::size_t t = first; t < steps; ++t) points.emplace_back(static_cast<double>(t), one[t]);
    slopes.push_back(slope_of(points).first);
  }
  const auto [mean, deviation] = mean_and_deviation(slopes);
  const boost::math::students_t student(static_cast<double>(seeds - 1));
  result.slope = mean;
  result.slope_lower =
      mean - boost::math::quantile(student, 0.95) * deviation / std::sqrt(static_cast<double>(seeds));
  for (std::size_t t = 0; t < steps; ++t) {
    std::vector<double> gaps, levels;
    for (std::size_t s = 0; s < seeds; ++s) gaps.push_back(gap[s][t]), levels.push_back(level[s][t]);
    result.gap.push_back(mean_and_deviation(gaps).first);
    if (t < first) continue;
    result.largest_gap = std::max(result.largest_gap, result.gap.back());
    result.largest_lead = std::max(result.largest_lead, -result.gap.back());
    result.spread += mean_and_deviation(levels).second / static_cast<double>(steps - first);
  }
  result.limit = 3 * result.spread + 0.05;
  const bool grows = result.slope_lower > 0 && result.gap.back() > 0;
  result.pass = !grows && result.largest_gap <= result.limit;
  return result;
}

}  // namespace sweeps
