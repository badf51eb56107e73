#include "sweeps/fit_design.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

namespace sweeps {
namespace {

constexpr int kTwoDFrom = 8;  // trials and prior rows

std::vector<SkewDesign::PriorRow> prior_rows(const std::optional<ShapePrior>& prior, bool two_d) {
  std::vector<SkewDesign::PriorRow> rows;
  if (!prior) return rows;
  rows.push_back({3, prior->hx, prior->hx_sd() * prior->widen});
  if (!two_d || !prior->wd) return rows;
  rows.push_back({4, prior->hxy, prior->hxy_sd() * prior->widen});
  rows.push_back({5, prior->hy, prior->hy_sd() * prior->widen});
  return rows;
}

}  // namespace

std::optional<FinishedTrials> sort_trials(const std::vector<FitPoint>& points) {
  FinishedTrials trials;
  const double lowest = lowest_loss(points);
  for (const FitPoint& point : points) {
    if (!has_diverged(point, lowest)) {
      trials.points.push_back(point);
      continue;
    }
    ++trials.num_diverged;
  }
  if (trials.points.empty()) return std::nullopt;
  std::ranges::sort(trials.points, [](const FitPoint& a, const FitPoint& b) {
    return std::tie(a.x, a.y, a.seed_block, a.loss) < std::tie(b.x, b.y, b.seed_block, b.loss);
  });
  trials.best = *std::ranges::min_element(trials.points, {}, &FitPoint::loss);
  for (const FitPoint& point :
       points)  // a LR so small that it learnt nothing is left out too, and bounds nothing
    if (has_diverged(point, lowest) && point.x > trials.best.x)
      trials.diverged_at = std::min(trials.diverged_at.value_or(INFINITY), point.x);
  const auto [x_lo, x_hi] = std::ranges::minmax(trials.points, {}, &FitPoint::x);
  const auto [y_lo, y_hi] = std::ranges::minmax(trials.points, {}, &FitPoint::y);
  trials.x_lo = x_lo.x, trials.x_hi = x_hi.x, trials.y_lo = y_lo.y, trials.y_hi = y_hi.y;
  return trials;
}

int num_levels(const std::vector<FitPoint>& points, double FitPoint::*axis) {
  std::set<double> levels;
  for (const FitPoint& point : points) levels.insert(point.*axis);
  return static_cast<int>(levels.size());
}

SkewDesign make_design(const FinishedTrials& trials, const FitOptions& options) {
  SkewDesign design;
  const int n = static_cast<int>(trials.points.size());
  const bool wd_varies = num_levels(trials.points, &FitPoint::y) > 1;
  const int num_rows = n + static_cast<int>(prior_rows(options.prior, true).size());
  design.two_d = wd_varies && num_rows >= kTwoDFrom;
  design.prior = prior_rows(options.prior, design.two_d);
  design.x.resize(n), design.y.resize(n), design.loss.resize(n);
  std::map<std::pair<int, double>, int> blocks;
  for (const FitPoint& point : trials.points) blocks[{point.seed_block, design.two_d ? 0 : point.y}] = 0;
  for (int next = 0; auto& [key, block] : blocks) block = next++;
  design.num_blocks = static_cast<int>(blocks.size());
  for (int i = 0; i < n; ++i) {
    const FitPoint& point = trials.points[i];
    design.x[i] = point.x, design.y[i] = point.y;
    design.loss[i] = point.loss - trials.best.loss;  // small numbers, and the level of the loss drops out
    design.block.push_back(blocks[{point.seed_block, design.two_d ? 0 : point.y}]);
  }
  return design;
}

}  // namespace sweeps
