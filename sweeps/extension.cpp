#include <algorithm>
#include <cmath>
#include <set>

#include "sweeps/fit.h"

// fit-and-drift 2.2: where a sweep grows when its optimum lies on an edge.
namespace sweeps {
namespace {

constexpr double kUnbracketed = 0.025;  // share of draws on one side of the box
constexpr double kBarrier = 0.5;        // octaves to keep below a diverged LR

struct Explored {
  std::set<double> x, y;  // levels that finished
};

Explored explored(const std::vector<FitPoint>& points) {
  Explored levels;
  const double lowest = lowest_loss(points);
  for (const FitPoint& point : points) {
    if (has_diverged(point, lowest)) continue;
    levels.x.insert(point.x);
    levels.y.insert(point.y);
  }
  return levels;
}

double nearest(const std::set<double>& levels, double value) {
  return *std::ranges::min_element(levels, {}, [&](double level) { return std::abs(level - value); });
}

/// WD where the mean surface is lowest at this LR.
double profile_wd(const Optimum& fit, double x) {
  const Optimum::Draw& s = fit.mean;
  if (!(s.hy > 0)) return fit.wd.estimate;
  return fit.centre_y - (s.b2 + s.hxy * (x - fit.centre_x)) / s.hy;
}

/// -1, 0 or 1: the side of LR where the optimum may lie outside.
int open_side(const Optimum& fit, const Explored& levels) {
  if (fit.bracketed()) return 0;
  if (fit.best_observed.x <= *levels.x.begin()) return -1;
  if (fit.best_observed.x >= *levels.x.rbegin()) return 1;
  if (std::max(fit.lr.edge_low, fit.lr.edge_high) < kUnbracketed) return 0;
  return fit.lr.edge_low > fit.lr.edge_high ? -1 : 1;
}

/// The same for WD, where an open side is often a result ("any smaller WD is as good") and costs no trials:
/// only when the optimum itself lies beyond the edge and one octave more would gain more than the noise.
int open_wd_side(const Optimum& fit, const Explored& levels) {
  if (!fit.wd_fitted || fit.wd.bracketed) return 0;
  const double lo = *levels.y.begin(), hi = *levels.y.rbegin();
  const auto gain = [&](double edge, double beyond) {
    return evaluate(fit, fit.mean, fit.lr.estimate, edge) - evaluate(fit, fit.mean, fit.lr.estimate, beyond);
  };
  if (fit.wd.estimate < lo && gain(lo, lo - 1) > fit.sigma) return -1;
  if (fit.wd.estimate > hi && gain(hi, hi + 1) > fit.sigma) return 1;
  return 0;
}

}  // namespace

std::vector<NewPoint> extension_points(const Optimum& fit, const std::vector<FitPoint>& points) {
  const Explored levels = explored(points);
  if (levels.x.empty()) return {};
  std::vector<NewPoint> added;
  if (const int side = open_side(fit, levels); side != 0) {
    double x = side < 0 ? *levels.x.begin() - 1 : *levels.x.rbegin() + 1;
    if (fit.diverged_at) x = std::min(x, *fit.diverged_at - kBarrier);
    constexpr double kNew = 0.1;  // octaves: closer to a trained level a trial would teach nothing
    if (std::abs(x - nearest(levels.x, x)) >= kNew) {
      const double y = nearest(levels.y, profile_wd(fit, x));
      added.push_back({x, y});
      const auto at = levels.y.find(y);  // the partner keeps LR and WD apart at the new level
      if (std::next(at) != levels.y.end())
        added.push_back({x, *std::next(at)});
      else if (at != levels.y.begin())
        added.push_back({x, *std::prev(at)});
    }
  }
  if (const int side = open_wd_side(fit, levels); side != 0) {
    const double y = side < 0 ? *levels.y.begin() - 1 : *levels.y.rbegin() + 1;
    const double x = nearest(levels.x, fit.lr.estimate);
    added.push_back({x, y});
    const auto at = levels.x.find(x);  // towards small LR, away from the cliff
    if (at != levels.x.begin()) added.push_back({*std::prev(at), y});
  }
  return added;
}

}  // namespace sweeps
