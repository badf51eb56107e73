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

TEST_CASE("a noise-free quadratic gives its optimum to the last digits", "[sweeps][fit][gates]") {
  const auto fit = fitted(exact_grid(kQuadratic, -8, -3), exact_options(0));
  CHECK_THAT(fit.lr.estimate, WithinAbs(-7.7, 1e-9));
  CHECK_THAT(fit.wd.estimate, WithinAbs(-3.4, 1e-9));
  CHECK_THAT(fit.best_loss, WithinAbs(3.0, 1e-9));
}

TEST_CASE("a noise-free skewed surface is exact when its skew is known", "[sweeps][fit][gates]") {
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

TEST_CASE("trials along one line of LR and WD determine nothing, rounded or not", "[sweeps][fit]") {
  for (const double rounding : {0.0, 1e-3}) {
    std::vector<FitPoint> points;
    for (int i = 0; i < 10; ++i)
      points.push_back(
          {.x = -8.0 + i, .y = -3.0 - i + rounding * (i % 3), .loss = 3 + 0.01 * (i - 5) * (i - 5)});
    const auto result = fit_optimum(points, {});
    REQUIRE(std::holds_alternative<RankDeficient>(result));
    CHECK_THAT(std::get<RankDeficient>(result).message, ContainsSubstring("not varied independently"));
  }
}

TEST_CASE("a sweep with nothing finished says so", "[sweeps][fit]") {
  CHECK(std::holds_alternative<TooFewTrials>(fit_optimum({}, {})));
  CHECK(std::holds_alternative<TooFewTrials>(fit_optimum({{.x = -8, .y = -3, .diverged = true}}, {})));
}

TEST_CASE("a sweep of which all but two levels diverge says to start lower", "[sweeps][fit]") {
  std::vector<FitPoint> points;
  for (int u = -3; u <= 3; ++u)
    for (int v = -1; v <= 1; ++v)
      points.push_back({.x = u - 8.0, .y = v - 3.0, .loss = 3 + 0.01 * v * v, .diverged = u > -2});
  const auto result = fit_optimum(points, {});
  REQUIRE(std::holds_alternative<RankDeficient>(result));
  CHECK_THAT(std::get<RankDeficient>(result).message, ContainsSubstring("start lower"));
}

TEST_CASE("diverged trials are barriers, not data", "[sweeps][fit]") {
  auto points = noisy_grid("S2", 5);
  const auto before = fitted(points);
  points.push_back({.x = 4, .y = 0, .loss = NAN, .diverged = true});
  points.push_back({.x = 4, .y = 1, .loss = NAN});  // not finite
  points.push_back({.x = 5, .y = 1, .loss = 7.2});  // finite, and more than a nat above the best
  const auto after = fitted(points);
  CHECK(after.num_diverged == 3);
  CHECK(after.num_points == 35);
  CHECK(after.diverged_at == 4);
  CHECK(after.lr.estimate == before.lr.estimate);
  CHECK(after.sigma == before.sigma);
}

TEST_CASE("a learning rate so small that it learnt nothing is no barrier", "[sweeps][fit]") {
  auto points = noisy_grid("S2", 5);
  points.push_back({.x = -6, .y = 0, .loss = 7.2});
  const auto fit = fitted(points);
  CHECK(fit.num_diverged == 1);
  CHECK_FALSE(fit.diverged_at);
  CHECK_THAT(describe(fit, "proxy", 1000), ContainsSubstring("1 diverged, sigma"));
}

// The shape of real sweeps of short runs: the octave below the optimum costs several times the octave above.
TEST_CASE("the lopsided curve of a short run is not taken for noise", "[sweeps][fit]") {
  std::vector<FitPoint> points;
  for (const double wd : {-3.0, -1.0, 1.0})
    for (const auto& [x, loss] :
         {std::pair(-11.0, 1.93), {-10.0, 1.80}, {-9.0, 1.772}, {-8.0, 1.787}, {-7.0, 1.812}})
      points.push_back(
          {.x = x, .y = wd, .loss = loss + 0.002 * (wd + 1) * (wd + 1) + 0.001 * std::sin(40 * x + 7 * wd)});
  const auto fit = fitted(points);
  CHECK(fit.k < -0.5);
  CHECK(fit.sigma < 0.006);
  CHECK_THAT(fit.lr.estimate, WithinAbs(-8.9, 0.4));
}

TEST_CASE("a bad seed is trimmed and noted", "[sweeps][fit]") {
  auto points = noisy_grid("S2", 6);
  const auto before = fitted(points);
  points[17].loss += 0.2;
  const auto after = fitted(points);
  CHECK_THAT(after.lr.estimate, WithinAbs(before.lr.estimate, 0.1));
  REQUIRE(after.notes.size() == 1);
  CHECK_THAT(after.notes.front(), ContainsSubstring("outlier"));
}

TEST_CASE("the best run is never deleted", "[sweeps][fit]") {
  auto points = noisy_grid("S2", 6);
  const auto best = std::ranges::min_element(points, {}, &FitPoint::loss);
  best->loss -= 0.02;
  CHECK(fitted(points).best_observed.loss == best->loss);
}

TEST_CASE("seeds that differ in level only change nothing but the level", "[sweeps][fit]") {
  auto points = exact_grid(kQuadratic, -8, -3);
  for (std::size_t i = 0; i < points.size(); ++i)
    if (i % 3 == 0) points[i].seed_block = 1, points[i].loss += 0.05;
  const auto fit = fitted(points, exact_options(0));
  CHECK_THAT(fit.lr.estimate, WithinAbs(-7.7, 1e-9));
  CHECK_THAT(fit.wd.estimate, WithinAbs(-3.4, 1e-9));
}

TEST_CASE("noise known from seeds is pooled with the residuals", "[sweeps][fit]") {
  const auto points = noisy_grid("S2", 7);
  const auto alone = fitted(points);
  FitOptions options;
  options.sigma0 = 0.01, options.nu0 = 50;
  const auto pooled = fitted(points, options);
  CHECK(pooled.sigma > 2 * alone.sigma);
  CHECK(pooled.sigma < 0.01);
  CHECK(pooled.df > 50);
}

TEST_CASE("one weight decay level gives LR alone and says so", "[sweeps][fit]") {
  std::vector<FitPoint> points;
  SkewSurface surface = kQuadratic;
  surface.k = 0.35;
  for (int u = -3; u <= 3; ++u) points.push_back({.x = u - 8.0, .y = -3, .loss = value(surface, u - 0.3, 0)});
  const auto fit = fitted(points, exact_options(0.35));
  CHECK_FALSE(fit.wd_fitted);
  CHECK_THAT(fit.lr.estimate, WithinAbs(-7.7, 1e-6));
  CHECK(fit.wd.estimate == -3);
  CHECK(fit.lr.bracketed);
  CHECK_THAT(describe(fit, "proxy", 1000), ContainsSubstring("was not fitted"));
  CHECK_THAT(evaluate(fit, fit.mean, -7.7, 5), WithinAbs(fit.best_loss, 1e-9));
}

TEST_CASE("too few trials for two dimensions still place LR, each WD level with its own height",
          "[sweeps][fit]") {
  std::vector<FitPoint> points;
  for (const double u : {-2.0, 0.0, 2.0})
    for (const double v : {0.0, 1.0})
      points.push_back({.x = u - 8, .y = v - 3, .loss = 3 + 0.008 * u * u + 0.3 * v});
  const auto fit = fitted(points, exact_options(0));
  CHECK_FALSE(fit.wd_fitted);
  CHECK_THAT(fit.lr.estimate, WithinAbs(-8, 1e-9));
}

TEST_CASE("the near-optimal box holds at its corners", "[sweeps][fit]") {
  const auto fit = fitted(noisy_grid("S5", 8));
  CHECK(fit.near_lr.lo < fit.lr.estimate);
  CHECK(fit.near_lr.hi > fit.lr.estimate);
  CHECK(fit.near_wd.hi - fit.near_wd.lo > 0.1);
  const auto placed = surfaces::place(surfaces::benchmark("S5"), 0.3, -0.2);
  for (const double x : {fit.near_lr.lo, fit.near_lr.hi})
    for (const double y : {fit.near_wd.lo, fit.near_wd.hi})
      CHECK(placed.regret(x, y) <= fit.regret_tolerance);
}

TEST_CASE("one octave costs what the surface says on either side", "[sweeps][fit]") {
  SkewSurface surface = kQuadratic;
  surface.k = 0.7;
  const auto fit = fitted(exact_grid(surface, -8, -3), exact_options(0.7));
  CHECK_THAT(fit.one_octave_low, WithinRel(0.016 * skew_term(0.7, -1), 1e-6));
  CHECK_THAT(fit.one_octave_high, WithinRel(0.016 * skew_term(0.7, 1), 1e-6));
}

TEST_CASE("the same sweep and seed print the same text", "[sweeps][fit]") {
  const auto text = describe(fitted(noisy_grid("S5", 3)), "proxy dense-d128", 1000);
  CHECK(text == describe(fitted(noisy_grid("S5", 3)), "proxy dense-d128", 1000));
  for (const char* part :
       {"proxy dense-d128  n=", "diverged (LR>=", "sigma=", "LR*", "WD*", "tau*/steps", "best loss",
        "near-optimal box", "1 octave LR error costs", "bracketed", "no outliers, no edge"})
    CHECK_THAT(text, ContainsSubstring(part));
  CHECK(text.back() != '\n');
}

TEST_CASE("options that make no sense are refused", "[sweeps][fit]") {
  FitOptions options;
  options.draws = 10;
  CHECK_THROWS_AS(fit_optimum({}, options), std::invalid_argument);
  options = {};
  options.k_grid.clear();
  CHECK_THROWS_AS(fit_optimum({}, options), std::invalid_argument);
}
