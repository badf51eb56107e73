#include "sweeps/adaptive.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>

namespace sweeps {
namespace {

constexpr NewPoint kStart[] = {{0, 0},   {-2, 0},   {-1, 0}, {1, 0}, {2, 0},
                               {0, 1.5}, {0, -1.5}, {-1, 1}, {1, -1}};
constexpr double kNew = 0.1;  // octaves: closer to a tried point a trial would teach nothing

int num_points(const std::vector<FitPoint>& points) {
  std::set<std::pair<double, double>> places;
  for (const FitPoint& point : points) places.emplace(point.x, point.y);
  return static_cast<int>(places.size());
}

std::vector<FitPoint> finished(const std::vector<FitPoint>& points) {
  std::vector<FitPoint> result;
  const double lowest = lowest_loss(points);
  for (const FitPoint& point : points)
    if (!has_diverged(point, lowest)) result.push_back(point);
  return result;
}

bool is_new(const NewPoint& at, const std::vector<FitPoint>& points) {
  return std::ranges::none_of(
      points, [&](const FitPoint& point) { return std::hypot(point.x - at.x, point.y - at.y) < kNew; });
}

/// Each point moved onto the bounds where it lies outside; those that then lie on a tried one fall away.
std::vector<NewPoint> within_bounds(const std::vector<NewPoint>& wanted, const std::vector<FitPoint>& points,
                                    const AdaptiveOptions& options) {
  std::vector<FitPoint> taken = points;
  std::vector<NewPoint> kept;
  for (const NewPoint& point : wanted) {
    const NewPoint at{std::clamp(point.x, options.x.lo, options.x.hi),
                      std::clamp(point.y, options.y.lo, options.y.hi)};
    if (!is_new(at, taken)) continue;
    kept.push_back(at);
    taken.push_back({.x = at.x, .y = at.y});
  }
  return kept;
}

/// The stop rule, in words; empty while it does not hold.
std::string why_settled(const Optimum& fit, const AdaptiveOptions& options) {
  if (!fit.bracketed()) return "";
  if (options.stop == StopRule::tune) {
    const double bound = regret_bound(fit, fit.lr.estimate, fit.wd.estimate);
    if (bound > options.tolerance / 3) return "";
    return fmt::format("the fitted optimum costs at most {:.2g} {}, a third of the tolerance", bound, fit.loss_unit);
  }
  const double half_width = (fit.lr.ci.hi - fit.lr.ci.lo) / 2;
  if (half_width > options.lr_half_width) return "";
  return fmt::format("LR* is known to {:.2f} octaves", half_width);
}

}  // namespace

std::vector<NewPoint> adaptive_start(const AdaptiveOptions& options) {
  std::vector<NewPoint> points;
  for (const NewPoint& at : kStart) points.push_back({options.start_x + at.x, options.start_y + at.y});
  return points;
}

AdaptiveStep adaptive_step(const std::vector<FitPoint>& points, const FitResult& result,
                           const AdaptiveOptions& options) {
  const int left = options.max_points - num_points(points);
  const int num_finished = num_points(finished(points));
  const auto ask = [&](std::vector<NewPoint> next) -> AdaptiveStep {
    next.resize(std::min(next.size(), static_cast<std::size_t>(std::max(left, 0))));
    return {.next = std::move(next)};
  };
  const auto* fit = std::get_if<Optimum>(&result);
  if (fit && num_finished >= kFewestAdaptive)
    if (const std::string why = why_settled(*fit, options); !why.empty())
      return {.next = {}, .settled = true, .reason = why};
  if (left <= 0) return {.reason = fmt::format("max_trials = {} points were tried", options.max_points)};

  constexpr int kStartPoints = static_cast<int>(std::size(kStart));
  if (num_finished < kStartPoints) {
    auto mirrors = within_bounds(mirrored_points(points, options.start_x), points, options);
    mirrors.resize(std::min(mirrors.size(), static_cast<std::size_t>(kStartPoints - num_finished)));
    if (!mirrors.empty()) return ask(std::move(mirrors));
  }
  if (!fit) return {.reason = "the finished points determine no optimum"};
  if (auto edge = within_bounds(extension_points(*fit, points), points, options); !edge.empty())
    return ask(std::move(edge));
  const bool at_bound =
      fit->best_observed.x <= options.x.lo + kNew || fit->best_observed.x >= options.x.hi - kNew;
  if (!fit->bracketed() && at_bound) return {.reason = "the best LR lies on the edge of [space] lr"};
  auto next = next_points(*fit, points,
                          {.count = options.batch,
                           .anchor_x = options.start_x,
                           .anchor_y = options.start_y,
                           .x = options.x,
                           .y = options.y});
  if (next.empty()) return {.reason = "no point within reach is left to try"};
  return ask(std::move(next));
}

}  // namespace sweeps
