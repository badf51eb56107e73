#include <algorithm>
#include <cmath>

#include "sweeps/fit.h"
#include "tests/support/catch.h"
#include "tests/support/surfaces.h"

using namespace sweeps;

namespace {

struct Sweep {
  surfaces::Placed placed;
  std::vector<FitPoint> points;
  Optimum fit() const {
    const auto result = fit_optimum(points, {});
    REQUIRE(std::holds_alternative<Optimum>(result));
    return std::get<Optimum>(result);
  }
};

Sweep sweep(const char* id, double x0, double y0, std::uint64_t seed = 21) {
  Generator random(seed);
  Sweep sweep{surfaces::place(surfaces::benchmark(id), x0, y0), {}};
  sweep.points = surfaces::grid_7x5(sweep.placed, random);
  return sweep;
}

}  // namespace

TEST_CASE("a bracketed optimum asks for nothing", "[sweeps][extension]") {
  const auto s = sweep("S5", 0.2, 0.1);
  CHECK(extension_points(s.fit(), s.points).empty());
}

TEST_CASE("an optimum above the grid asks for two WD levels one octave up", "[sweeps][extension]") {
  const auto s = sweep("S2", 4.5, 0);
  const auto added = extension_points(s.fit(), s.points);
  REQUIRE(added.size() == 2);
  CHECK(added[0].x == 4);
  CHECK(added[1].x == 4);
  CHECK(added[0].y != added[1].y);
}

TEST_CASE("an optimum below the grid asks one octave down", "[sweeps][extension]") {
  const auto s = sweep("S2", -4.5, 0);
  const auto added = extension_points(s.fit(), s.points);
  REQUIRE(added.size() == 2);
  CHECK(added[0].x == -4);
}

TEST_CASE("no trial is asked for within half an octave of a divergence", "[sweeps][extension]") {
  auto s = sweep("S2", 4.5, 0);
  s.points.push_back({.x = 4, .y = 0, .diverged = true});
  for (const auto& point : extension_points(s.fit(), s.points)) CHECK(point.x <= 3.5);
  s.points.push_back({.x = 3.5, .y = 0, .diverged = true});
  CHECK(extension_points(s.fit(), s.points).empty());
}

TEST_CASE("extensions bracket an optimum that lay two octaves outside", "[sweeps][extension]") {
  auto s = sweep("S2", 5, 0);
  Generator random(22);
  int rounds = 0;
  while (!s.fit().bracketed() && rounds < 5) {
    ++rounds;
    for (const auto& point : extension_points(s.fit(), s.points))
      s.points.push_back(surfaces::observe(s.placed, point.x, point.y, random));
  }
  CHECK(rounds >= 2);
  const auto fit = s.fit();
  CHECK(fit.bracketed());
  CHECK_THAT(fit.lr.estimate, WithinAbs(s.placed.true_x(), 0.5));
}

TEST_CASE("weight decay is extended where its optimum lies outside, not where it is merely flat",
          "[sweeps][extension]") {
  const auto outside = sweep("S2", 0, 4);
  const auto added = extension_points(outside.fit(), outside.points);
  REQUIRE_FALSE(added.empty());
  for (const auto& point : added) CHECK(point.y == 3);

  surfaces::Surface flat = surfaces::benchmark("S5");
  flat.shape = surfaces::Shape::wd_monotone;
  Generator random(23);
  const auto points = surfaces::grid_7x5(surfaces::place(flat, 0, 0), random);
  const auto fit = std::get<Optimum>(fit_optimum(points, {}));
  CHECK_FALSE(fit.wd.bracketed);
  CHECK(extension_points(fit, points).empty());
}

TEST_CASE("a sweep of one weight decay is extended along it", "[sweeps][extension]") {
  auto s = sweep("S2", 4.5, 0);
  std::erase_if(s.points, [](const FitPoint& point) { return point.y != 0; });
  const auto added = extension_points(s.fit(), s.points);
  REQUIRE(added.size() == 1);
  CHECK(added[0].x == 4);
  CHECK(added[0].y == 0);
}
