#include "sweeps/skew_model.h"

#include <cmath>

#include <Eigen/LU>

#include "sweeps/generator.h"
#include "tests/support/catch.h"

using namespace sweeps;

namespace {

SkewSurface random_surface(Generator& random) {
  SkewSurface s;
  s.k = random.uniform(-0.4, 1);
  s.b1 = random.uniform(-0.02, 0.02), s.b2 = random.uniform(-0.02, 0.02);
  s.hx = random.uniform(-0.004, 0.03), s.hy = random.uniform(-0.004, 0.03);
  s.hxy = random.uniform(-0.012, 0.012);
  return s;
}

/// The lowest of a fine net over the box.
double net_minimum(const SkewSurface& s, const Box& box) {
  constexpr int kCells = 200;
  double lowest = INFINITY;
  for (int i = 0; i <= kCells; ++i)
    for (int j = 0; j <= kCells; ++j)
      lowest = std::min(lowest, value(s, std::lerp(box.u_lo, box.u_hi, double(i) / kCells),
                                      std::lerp(box.v_lo, box.v_hi, double(j) / kCells)));
  return lowest;
}

}  // namespace

TEST_CASE("the skewed term goes over into the quadratic", "[sweeps][skew]") {
  CHECK_THAT(skew_term(0, 1.7), WithinAbs(1.7 * 1.7 / 2, 1e-15));
  CHECK_THAT(skew_term(1e-9, 1.7), WithinAbs(skew_term(0, 1.7), 1e-8));
  CHECK_THAT(skew_term(0.000999 / 1.7, 1.7), WithinAbs(skew_term(0.001001 / 1.7, 1.7), 2e-6));
  CHECK_THAT(skew_term(1, 1), WithinAbs(std::exp(1.0) - 2, 1e-15));
  CHECK_THAT(skew_slope(0, 1.7), WithinAbs(1.7, 1e-15));
  CHECK_THAT(skew_slope(1, 1), WithinAbs(std::exp(1.0) - 1, 1e-15));
}

TEST_CASE("gradients of the basis are those of the surface", "[sweeps][skew]") {
  Generator random(5);
  for (int i = 0; i < 20; ++i) {
    const SkewSurface s = random_surface(random);
    const double u = random.uniform(-2, 2), v = random.uniform(-2, 2), step = 1e-5;
    const Coefficients beta(s.c, s.b1, s.b2, s.hx, s.hxy, s.hy);
    const Eigen::Vector2d gradient = basis_gradient(s.k, u, v) * beta;
    CHECK_THAT(gradient[0], WithinAbs((value(s, u + step, v) - value(s, u - step, v)) / (2 * step), 1e-9));
    CHECK_THAT(gradient[1], WithinAbs((value(s, u, v + step) - value(s, u, v - step)) / (2 * step), 1e-9));
    CHECK_THAT(basis(s.k, u, v).dot(beta), WithinAbs(value(s, u, v), 1e-15));
  }
}

TEST_CASE("an interior optimum has no gradient and curves upwards", "[sweeps][skew]") {
  Generator random(6);
  int num_interior = 0;
  for (int i = 0; i < 2000; ++i) {
    const SkewSurface s = random_surface(random);
    const BoxOptimum at = box_optimum(s, {-4, 4, -3, 3});
    if (!at.interior) continue;
    ++num_interior;
    const Coefficients beta(s.c, s.b1, s.b2, s.hx, s.hxy, s.hy);
    const Eigen::Vector2d gradient = basis_gradient(s.k, at.u, at.v) * beta;
    CHECK(gradient.norm() < 1e-12);
    CHECK(hessian(s, at.u).determinant() > 0);
  }
  CHECK(num_interior > 500);
}

TEST_CASE("without an interior optimum the best point of the box's edges is found", "[sweeps][skew]") {
  Generator random(7);
  const Box box{-4, 3, -3, 2};
  int num_edge = 0;
  for (int i = 0; i < 200; ++i) {
    const SkewSurface s = random_surface(random);
    const BoxOptimum at = box_optimum(s, box);
    if (at.interior) continue;
    ++num_edge;
    CHECK(at.loss <= net_minimum(s, box) + 1e-12);
    CHECK_THAT(value(s, at.u, at.v), WithinAbs(at.loss, 1e-15));
  }
  CHECK(num_edge > 50);
}

TEST_CASE("a box without height is one-dimensional", "[sweeps][skew]") {
  SkewSurface s;
  s.k = 0.5, s.hx = 0.02, s.b1 = 0.004;
  const BoxOptimum at = box_optimum(s, {-3, 3, 0, 0});
  CHECK(at.interior);
  CHECK_THAT(at.u, WithinAbs(std::log(1 - 0.5 * 0.004 / 0.02) / 0.5, 1e-12));
}
