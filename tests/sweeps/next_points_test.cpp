#include "sweeps/next_points.h"

#include <algorithm>
#include <cmath>

#include "tests/support/catch.h"
#include "tests/support/surfaces.h"

using namespace sweeps;

namespace {

constexpr NewPoint kStart[] = {{0, 0},   {-2, 0},   {-1, 0}, {1, 0}, {2, 0},
                               {0, 1.5}, {0, -1.5}, {-1, 1}, {1, -1}};

struct Sweep {
  surfaces::Placed placed;
  std::vector<FitPoint> points;
  Generator random;
  void run(const NewPoint& at) { points.push_back(surfaces::observe(placed, at.x, at.y, random)); }
  Optimum fit() const {
    const auto result = fit_optimum(points, {});
    REQUIRE(std::holds_alternative<Optimum>(result));
    return std::get<Optimum>(result);
  }
};

Sweep start(const char* id, std::uint64_t seed) {
  Generator random(seed, 31);
  const double x0 = random.uniform(-0.7, 0.7), y0 = random.uniform(-0.7, 0.7);
  Sweep sweep{surfaces::place(surfaces::benchmark(id), x0, y0), {}, random};
  for (const auto& at : kStart) sweep.run(at);
  const double lowest = lowest_loss(sweep.points);
  const auto lost =
      std::ranges::count_if(sweep.points, [&](const auto& p) { return has_diverged(p, lowest); });
  for (int i = 0; i < lost; ++i) sweep.run({-3.0 - i, 0});  // its mirror image on the safe side
  return sweep;
}

}  // namespace

TEST_CASE("the next points lie on the lattice, near the optimum and off what is trained", "[sweeps][next]") {
  const auto sweep = start("S2", 1);
  const auto fit = sweep.fit();
  const auto next = next_points(fit, sweep.points, {.count = 4});
  REQUIRE(next.size() == 4);
  for (const auto& at : next) {
    CHECK(std::abs(at.x * 4 - std::round(at.x * 4)) < 1e-12);
    CHECK(std::abs(at.y * 2 - std::round(at.y * 2)) < 1e-12);
    CHECK(std::abs(at.x - fit.lr.estimate) <= 2.5);
    for (const auto& point : sweep.points) CHECK(std::hypot(point.x - at.x, point.y - at.y) > 0.1);
  }
}

TEST_CASE("the next points keep half an octave below a divergence", "[sweeps][next]") {
  auto sweep = start("S2", 2);
  sweep.points.push_back({.x = 1.5, .y = 0, .diverged = true});
  const auto next = next_points(sweep.fit(), sweep.points, {.count = 12});
  CHECK(next.size() == 12);
  for (const auto& at : next) CHECK(at.x <= 1.0);
}

TEST_CASE("a sweep of one weight decay has no next points of this kind", "[sweeps][next]") {
  auto sweep = start("S2", 3);
  std::erase_if(sweep.points, [](const FitPoint& point) { return point.y != 0; });
  CHECK(next_points(sweep.fit(), sweep.points, {}).empty());
}

TEST_CASE("nine points and pairs of the best next ones equal the whole grid", "[sweeps][next][slow]") {
  constexpr int kReplicates = 60;
  double square = 0, regret = 0;
  int num_covered = 0;
  for (int i = 0; i < kReplicates; ++i) {
    auto sweep = start("S5", 100 + static_cast<std::uint64_t>(i));
    while (sweep.points.size() < 15) {
      auto next = extension_points(sweep.fit(), sweep.points);
      if (next.empty()) next = next_points(sweep.fit(), sweep.points, {});
      REQUIRE_FALSE(next.empty());
      for (const auto& at : next) sweep.run(at);
    }
    const auto fit = sweep.fit();
    square += std::pow(fit.lr.estimate - sweep.placed.true_x(), 2) / kReplicates;
    regret += sweep.placed.regret(fit.lr.estimate, fit.wd.estimate) / kReplicates;
    num_covered += fit.lr.ci.lo <= sweep.placed.true_x() && sweep.placed.true_x() <= fit.lr.ci.hi;
  }
  CHECK(std::sqrt(square) <= 0.10);  // octaves; the grid's 35 trials reach 0.073
  CHECK(regret <= 0.25e-3);
  CHECK(num_covered >= 0.95 * kReplicates);
}
