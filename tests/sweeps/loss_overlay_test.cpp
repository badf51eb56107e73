#include "sweeps/loss_overlay.h"

#include <cmath>

#include "tests/support/catch.h"

using namespace sweeps;

namespace {

/// Falling losses of 4 seeds, 0.02 nats apart, plus `extra(step)`.
std::vector<std::vector<double>> losses(double (*extra)(double)) {
  std::vector<std::vector<double>> seeds;
  for (int s = 0; s < 4; ++s) {
    std::vector<double> one;
    for (int t = 0; t <= 100; ++t)
      one.push_back(5 * std::exp(-t / 60.0) + 0.02 * s + extra(t) * (1 + 0.05 * s));
    seeds.push_back(one);
  }
  return seeds;
}
double nothing(double) { return 0; }

}  // namespace

TEST_CASE("a target that follows the proxy passes the overlay", "[sweeps][loss_overlay]") {
  const auto overlay = overlay_losses(losses(nothing), losses([](double) { return 0.03; }));
  CHECK(overlay.pass);
  CHECK_THAT(overlay.largest_gap, WithinAbs(0.03 * 1.075, 1e-9));
}

TEST_CASE("a gap that grows fails the overlay, however small", "[sweeps][loss_overlay]") {
  const auto overlay = overlay_losses(losses(nothing), losses([](double t) { return 0.0005 * t; }));
  CHECK_FALSE(overlay.pass);
  CHECK(overlay.largest_gap < overlay.limit);
  CHECK(overlay.slope_lower > 0);
}

TEST_CASE("a gap above the limit fails the overlay", "[sweeps][loss_overlay]") {
  CHECK_FALSE(overlay_losses(losses(nothing), losses([](double t) { return 0.5 - 0.001 * t; })).pass);
}

TEST_CASE("a target that learns faster passes the overlay", "[sweeps][loss_overlay]") {
  const auto overlay = overlay_losses(losses(nothing), losses([](double t) { return -0.005 * t; }));
  CHECK(overlay.pass);
  CHECK(overlay.largest_lead > overlay.limit);
}

TEST_CASE("the overlay refuses runs that ended early", "[sweeps][loss_overlay]") {
  auto broken = losses(nothing);
  broken[2].resize(40);
  CHECK_THROWS_WITH(overlay_losses(losses(nothing), broken), ContainsSubstring("shorter"));
}
