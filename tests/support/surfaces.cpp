#include "tests/support/surfaces.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace surfaces {
namespace {

double softplus(double z) { return z > 30 ? z : std::log1p(std::exp(z)); }

double wall(const Surface& s, double u) {
  if (!s.wall) return 0;
  return 0.08 * 0.2 * (softplus((u - s.wall_at) / 0.2) - softplus(-s.wall_at / 0.2));
}

double bowl(const Surface& s, double u, double v) {
  if (s.mirrored) u = -u, v = -v;
  const double cross = s.rho * std::sqrt(s.hx * s.hy) * u * v;
  const double across_wd = s.hy * v * v / 2;
  const double t = u + v;
  switch (s.shape) {
    case Shape::linex: return s.hx * sweeps::skew_term(s.k, u) + cross + across_wd;
    case Shape::two_exponentials: {
      constexpr double kTau = 0.006;
      return (s.hx - kTau) * (std::expm1(u) + std::expm1(-u / 2) / 0.5) / 1.5 + kTau * t * t / 2 +
             (s.hy - kTau) * v * v / 2;
    }
    case Shape::ridge:
      return s.hx * sweeps::skew_term(0.4, u) + s.ridge_across * t * t / 2 +
             0.15 * std::sqrt(s.ridge_across * s.hx) * u * t;
    case Shape::flat_bottom:
      return s.hx * (0.25 * u * u + 0.05 * std::pow(u, 4) / (1 + 0.02 * std::pow(u, 4))) +
             0.03 * s.hx * std::pow(u, 3) / (1 + 0.1 * u * u) + 0.7 * cross + across_wd;
    case Shape::subquadratic:
      return 1.5 * s.hx * (std::sqrt(1 + u * u) - 1) * (1 + 0.1 * std::tanh(u)) + 0.7 * cross + across_wd;
    case Shape::saturating:  // a straight rise above the optimum, three times as steep below it
      return 1.5 * s.hx * (std::sqrt(1 + u * u) - 1) * (1 + 0.5 * std::tanh(u)) + 0.7 * cross + across_wd;
    case Shape::wd_monotone:
      return s.hx * sweeps::skew_term(s.k, u) + 0.006 * 0.8 * softplus((v - 0.5) / 0.8);
  }
  throw std::logic_error("bowl: unknown Shape");
}

std::vector<Surface> make_benchmark() {
  const Surface wall_div{.id = "S5", .k = 0.35, .wall = true, .diverges = true};
  const auto like_s5 = [&](const char* id, auto change) {
    Surface s = wall_div;
    s.id = id;
    change(s);
    return s;
  };
  return {
      {.id = "S1", .k = 0},
      {.id = "S2", .k = 0.35},
      {.id = "S3", .k = 0.70},
      {.id = "S4", .shape = Shape::two_exponentials},
      wall_div,
      like_s5("S6", [](Surface& s) { s.noise_grows = true; }),
      like_s5("S7", [](Surface& s) { s.outlier_share = 0.08; }),
      like_s5("S8", [](Surface& s) { s.sigma = 0.010; }),
      like_s5("S9", [](Surface& s) { s.sigma = 0.001; }),
      like_s5("S10", [](Surface& s) { s.hy = 0.002, s.rho = 0.3; }),
      like_s5("S11", [](Surface& s) { s.shape = Shape::ridge; }),
      like_s5("S12",
              [](Surface& s) {
                s.k = 0.5, s.hx = 0.05, s.hy = 0.02, s.rho = 0.5;
                s.wall_at = 1.2, s.diverges_at = 1.7;
              }),
      like_s5("S13", [](Surface& s) { s.shape = Shape::flat_bottom; }),
      like_s5("S14", [](Surface& s) { s.shape = Shape::subquadratic; }),
      like_s5("S15", [](Surface& s) { s.shape = Shape::ridge, s.ridge_across = 0.012; }),
  };
}

std::vector<Surface> make_mirrored() {
  return {
      {.id = "M1", .k = 0.35, .mirrored = true},
      {.id = "M2", .k = 0.70, .mirrored = true},
      {.id = "M3", .k = 1.2, .diverges = true, .mirrored = true},
      {.id = "M4", .k = 2.0, .hx = 0.05, .hy = 0.008, .rho = 0.1, .sigma = 0.002, .mirrored = true},
      {.id = "M5", .shape = Shape::two_exponentials, .mirrored = true},
      {.id = "M6", .shape = Shape::saturating, .hx = 0.04, .rho = 0.2, .diverges = true, .mirrored = true},
  };
}

}  // namespace

const std::vector<Surface>& mirrored() {
  static const std::vector<Surface> all = make_mirrored();
  return all;
}

const std::vector<Surface>& benchmark() {
  static const std::vector<Surface> all = make_benchmark();
  return all;
}

const Surface& benchmark(const std::string& id) {
  const auto& all = benchmark();
  return *std::find_if(all.begin(), all.end(), [&](const Surface& s) { return s.id == id; });
}

double mean_loss(const Surface& s, double u, double v) { return s.level + bowl(s, u, v) + wall(s, u); }

// Pattern search; the surfaces are smooth and have one valley.
Point true_optimum(const Surface& s) {
  Point best{0, 0, mean_loss(s, 0, 0)};
  for (double step = 0.25; step > 1e-9;) {
    Point next = best;
    for (const double du : {-step, 0.0, step})
      for (const double dv : {-step, 0.0, step})
        if (const double loss = mean_loss(s, best.u + du, best.v + dv); loss < next.loss)
          next = {best.u + du, best.v + dv, loss};
    if (next.loss < best.loss)
      best = next;
    else
      step /= 2;
    if (std::abs(best.v) > 50) break;  // WD without an optimum
  }
  return best;
}

Placed place(const Surface& surface, double x0, double y0) {
  Placed placed{surface, x0, y0, {}};
  placed.optimum = true_optimum(surface);
  return placed;
}

sweeps::FitPoint observe(const Placed& placed, double x, double y, sweeps::Generator& random) {
  const Surface& s = placed.surface;
  const double u = x - placed.x0, v = y - placed.y0;
  sweeps::FitPoint point{.x = x, .y = y};
  const double chance = random.uniform(), which = random.uniform();
  if (s.diverges && chance < 1 / (1 + std::exp(-(u - s.diverges_at) / 0.2))) {
    // Half of them end as NaN, half at a high loss that nobody marked.
    point.diverged = which < 0.5;
    point.loss = point.diverged ? NAN : s.level + 4 + random.uniform();
    return point;
  }
  const double sigma = s.noise_grows ? s.sigma * (1 + std::exp(1.2 * (u - 0.5))) : s.sigma;
  point.loss = mean_loss(s, u, v) + sigma * random.normal();
  if (random.uniform() < s.outlier_share) point.loss -= 0.05 * std::log(random.uniform());
  return point;
}

std::vector<sweeps::FitPoint> grid_7x5(const Placed& placed, sweeps::Generator& random) {
  std::vector<sweeps::FitPoint> points;
  for (int x = -3; x <= 3; ++x)
    for (int y = -2; y <= 2; ++y) points.push_back(observe(placed, x, y, random));
  return points;
}

}  // namespace surfaces
