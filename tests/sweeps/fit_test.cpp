#include "sweeps/fit.h"

#include <algorithm>
#include <cmath>

#include "tests/support/catch.h"
#include "tests/support/surfaces.h"

using namespace sweeps;

namespace {

/// Noise-free trials of a linex surface on a grid around (x0, y0).
std::vector<FitPoint> exact_grid(const SkewSurface& surface, double x0, double y0) {
  std::vector<FitPoint> points;
  for (int u = -3; u <= 3; ++u)
    for (int v = -2; v <= 2; ++v)
      points.push_back({.x = x0 + u, .y = y0 + v, .loss = value(surface, u - 0.3, v + 0.4)});
  return points;
}

FitOptions exact_options(double k) {
  FitOptions options;
  options.kappa = 0;
  options.k_grid = {k};
  return options;
}

constexpr SkewSurface kQuadratic{.k = 0, .c = 3, .b1 = 0, .b2 = 0, .hx = 0.016, .hxy = 0.005, .hy = 0.012};

Optimum fitted(const std::vector<FitPoint>& points, const FitOptions& options = {}) {
  const FitResult result = fit_optimum(points, options);
  REQUIRE(std::holds_alternative<Optimum>(result));
  return std::get<Optimum>(result);
}

std::vector<FitPoint> noisy_grid(const char* id, std::uint64_t seed) {
  Generator random(seed);
  return surfaces::grid_7x5(surfaces::place(surfaces::benchmark(id), 0.3, -0.2), random);
}

}  // namespace

TEST_CASE("a noise-free quadratic gives its optimum to the last digits", "[sweeps][fit]") {
  const auto fit = fitted(exact_grid(kQuadratic, -8, -3), exact_options(0));
  CHECK_THAT(fit.lr.estimate, WithinAbs(-7.7, 1e-9));
  CHECK_THAT(fit.wd.estimate, WithinAbs(-3.4, 1e-9));
  CHECK_THAT(fit.best_loss, WithinAbs(3.0, 1e-9));
}

TEST_CASE("a noise-free skewed surface is exact when its skew is known", "[sweeps][fit]") {
  for (const double k : {-0.3, 0.35, 0.7}) {
    SkewSurface surface = kQuadratic;
    surface.k = k;
    const auto fit = fitted(exact_grid(surface, -8, -3), exact_options(k));
    CHECK_THAT(fit.lr.estimate, WithinAbs(-7.7, 1e-6));
    CHECK_THAT(fit.wd.estimate, WithinAbs(-3.4, 1e-6));
    CHECK_THAT(fit.hx, WithinRel(0.016, 1e-6));
    CHECK_THAT(fit.hy, WithinRel(0.012, 1e-6));
  }
}

TEST_CASE("a thousandfold larger or smaller learning rate moves the optimum with it", "[sweeps][fit]") {
  const auto points = noisy_grid("S5", 3);
  auto moved = points;
  for (auto& point : moved) point.x += 9.97, point.y -= 4.3;
  const auto a = fitted(points), b = fitted(moved);
  CHECK_THAT(b.lr.estimate - 9.97, WithinAbs(a.lr.estimate, 1e-9));
  CHECK_THAT(b.lr.ci.lo - 9.97, WithinAbs(a.lr.ci.lo, 1e-9));
  CHECK_THAT(b.lr.ci.hi - 9.97, WithinAbs(a.lr.ci.hi, 1e-9));
  CHECK_THAT(b.wd.estimate + 4.3, WithinAbs(a.wd.estimate, 1e-9));
  CHECK_THAT(b.sigma, WithinAbs(a.sigma, 1e-9));
}

TEST_CASE("adding a constant to the loss changes the loss alone", "[sweeps][fit]") {
  const auto points = noisy_grid("S5", 3);
  auto moved = points;
  for (auto& point : moved) point.loss += 5.3;
  const auto a = fitted(points), b = fitted(moved);
  CHECK_THAT(b.lr.estimate, WithinAbs(a.lr.estimate, 1e-9));
  CHECK_THAT(b.wd.ci.hi, WithinAbs(a.wd.ci.hi, 1e-9));
  CHECK_THAT(b.best_loss - 5.3, WithinAbs(a.best_loss, 1e-9));
}

TEST_CASE("the order in which trials finish does not matter", "[sweeps][fit]") {
  auto points = noisy_grid("S7", 4);
  const auto a = fitted(points);
  std::ranges::reverse(points);
  std::swap(points[3], points[20]);
  const auto b = fitted(points);
  CHECK(a.lr.estimate == b.lr.estimate);
  CHECK(a.lr.ci.lo == b.lr.ci.lo);
  CHECK(a.wd.ci.hi == b.wd.ci.hi);
  CHECK(a.draws.size() == b.draws.size());
}

TEST_CASE("one learning rate level determines nothing", "[sweeps][fit]") {
  std::vector<FitPoint> points;
  for (int i = 0; i < 10; ++i) points.push_back({.x = -8, .y = -3.0 + i, .loss = 3 + 0.01 * i * i});
  const auto result = fit_optimum(points, {});
  REQUIRE(std::holds_alternative<RankDeficient>(result));
  CHECK_THAT(std::get<RankDeficient>(result).message, ContainsSubstring("1 LR level"));
}

TEST_CASE("trials along one line of LR and WD determine nothing", "[sweeps][fit]") {
  std::vector<FitPoint> points;
  for (int i = 0; i < 10; ++i)
    points.push_back({.x = -8.0 + i, .y = -3.0 - i, .loss = 3 + 0.01 * (i - 5) * (i - 5)});
  const auto result = fit_optimum(points, {});
  REQUIRE(std::holds_alternative<RankDeficient>(result));
  CHECK_THAT(std::get<RankDeficient>(result).message, ContainsSubstring("not varied independently"));
}

TEST_CASE("a sweep with nothing finished says so", "[sweeps][fit]") {
  CHECK(std::holds_alternative<TooFewTrials>(fit_optimum({}, {})));
  CHECK(std::holds_alternative<TooFewTrials>(fit_optimum({{.x = -8, .y = -3, .diverged = true}}, {})));
}
