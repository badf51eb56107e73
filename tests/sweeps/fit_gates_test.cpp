#include <algorithm>
#include <cmath>

#include "sweeps/fit.h"
#include "sweeps/profile_region.h"
#include "tests/support/catch.h"
#include "tests/support/estimators.h"
#include "tests/support/surfaces.h"

// What the fit promises, on surfaces whose optimum is known: the gates of fit-and-drift 5.4. Seeds are fixed;
// the limits are the gates themselves.
using namespace sweeps;
using estimators::score, estimators::Scores;

namespace {

constexpr int kReplicates = 100;
const estimators::Estimator kFit{"fit", estimators::skewed_fit};
const estimators::Estimator kQuadratic{"2-D quadratic", estimators::least_squares};

/// The reference surface on the usual grid, its optimum `offset` octaves from the middle in LR.
struct Sweep {
  surfaces::Placed placed;
  std::vector<FitPoint> points;
  FitResult result;
};
Sweep sweep_with_optimum_at(const surfaces::Surface& surface, double offset, int replicate) {
  Generator random(500 + static_cast<std::uint64_t>(replicate), 77);
  Sweep sweep;
  sweep.placed = surfaces::place(surface, offset, random.uniform(-1, 1));
  sweep.points = surfaces::grid_7x5(sweep.placed, random);
  sweep.result = fit_optimum(sweep.points, {});
  return sweep;
}

/// Not bracketed, or no fit at all where so much diverged that none is possible.
bool flagged(const FitResult& result) {
  const auto* fit = std::get_if<Optimum>(&result);
  return !fit || !fit->bracketed();
}

}  // namespace

// Nearest to a limit is the coverage of S4, 0.90 here and 0.916 over 500 other replicates: two exponentials
// are no skewed quadratic, and the bias of 0.06 octaves uses up the interval. The wide share of the skew's
// prior is not why: without it the coverage is 0.914.
TEST_CASE("over fifteen surfaces the optimum is close, unbiased and honestly uncertain",
          "[sweeps][fit][gates][slow]") {
  Scores mean, worst;
  worst.coverage = 1;
  double mean_abs_bias = 0;
  int num_better = 0;
  const auto& all = surfaces::benchmark();
  const double n = static_cast<double>(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Scores s = score(all[i], i, kFit, kReplicates);
    const Scores quadratic = score(all[i], i, kQuadratic, kReplicates);
    INFO(all[i].id << ": RMSE " << s.rmse_lr << ", bias " << s.bias_lr << ", coverage " << s.coverage);
    CHECK(s.rmse_lr <= 0.20);
    CHECK(s.coverage >= 0.90);
    mean.rmse_lr += s.rmse_lr / n, mean.rmse_wd += s.rmse_wd / n, mean.coverage += s.coverage / n;
    mean.regret += s.regret / n, mean_abs_bias += std::abs(s.bias_lr) / n;
    num_better += s.rmse_lr < quadratic.rmse_lr;
  }
  CHECK(mean.rmse_lr <= 0.10);
  CHECK(mean.rmse_wd <= 0.15);  // the reference reaches 0.133
  CHECK(mean_abs_bias <= 0.05);
  CHECK(mean.coverage >= 0.95);
  CHECK(mean.regret <= 0.25e-3);
  CHECK(num_better >= 13);  // against least squares with a plain quadratic
}

// Without negative skews in its grid the fit took these for noise: RMSE 0.98 octaves and a sigma of 0.048
// nats on M4, whose noise is 0.002. M6 rises in straight lines on both sides, which no skew can follow: its
// noise must not be overstated so much that a drift check gives up, but its optimum lies up to half an octave
// off.
TEST_CASE("curves that are steeper towards small learning rates are fitted as well, not taken for noise",
          "[sweeps][fit][gates][slow]") {
  const auto& all = surfaces::mirrored();
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Scores s = score(all[i], 100 + i, kFit, kReplicates);
    const Scores quadratic = score(all[i], 100 + i, kQuadratic, kReplicates);
    INFO(all[i].id << ": RMSE " << s.rmse_lr << ", bias " << s.bias_lr << ", coverage " << s.coverage
                   << ", sigma " << s.sigma);
    CHECK(s.sigma <= 3 * all[i].sigma);
    if (all[i].id == "M6") continue;
    CHECK(s.rmse_lr <= 0.20);
    CHECK(s.coverage >= 0.80);
    CHECK(s.regret <= 0.5e-3);
    CHECK(s.rmse_lr < quadratic.rmse_lr);
  }
}

TEST_CASE("an optimum on the edge of the grid or outside is never called bracketed",
          "[sweeps][fit][gates][slow]") {
  for (const double offset : {3.0, 3.5, 4.0, -3.0, -4.0}) {
    int num_flagged = 0;
    for (int i = 0; i < kReplicates; ++i) {
      const Sweep sweep = sweep_with_optimum_at(surfaces::benchmark("S5"), offset, i);
      num_flagged += flagged(sweep.result);
      const auto* fit = std::get_if<Optimum>(&sweep.result);
      if (fit) CHECK(std::abs(fit->lr.estimate - fit->best_observed.x) <= 1.5);
    }
    INFO("optimum at " << offset);
    CHECK(num_flagged >= 93);
  }
}

TEST_CASE("an optimum well inside the grid is called bracketed", "[sweeps][fit][gates][slow]") {
  int num_flagged = 0;
  for (const double offset : {-2.0, -1.0, 0.0, 1.0, 2.0})
    for (int i = 0; i < kReplicates; ++i)
      num_flagged += flagged(sweep_with_optimum_at(surfaces::benchmark("S5"), offset, i).result);
  CHECK(num_flagged <= 0.02 * 5 * kReplicates);
}

TEST_CASE("weight decay that never hurts by being small is reported open, and LR stays right",
          "[sweeps][fit][gates][slow]") {
  surfaces::Surface surface = surfaces::benchmark("S5");
  surface.shape = surfaces::Shape::wd_monotone;
  int num_open = 0, num_covered = 0;
  for (int i = 0; i < kReplicates; ++i) {
    const Sweep sweep = sweep_with_optimum_at(surface, 0.01 * i - 0.5, i);
    const auto& fit = std::get<Optimum>(sweep.result);
    num_open += !fit.wd.bracketed && fit.wd.edge_low > fit.wd.edge_high;
    num_covered += fit.lr.ci.lo <= sweep.placed.true_x() && sweep.placed.true_x() <= fit.lr.ci.hi;
  }
  CHECK(num_open >= 85);
  CHECK(num_covered >= 95);
}

// In one dimension the two are the same set; the second makes the draws a little wider. As many draws as
// here tell: with the product's 3,000 their own noise of 2 % is larger than that.
TEST_CASE("the draws agree with the profile region, which needs none", "[sweeps][fit][gates][slow]") {
  FitOptions options;
  options.k_grid = {0};
  options.shape_floor = 0;
  options.draws = 30000;
  double mean_ratio = 0;
  int num_wider = 0;
  for (int i = 0; i < kReplicates; ++i) {
    Generator random(800 + static_cast<std::uint64_t>(i));
    const double x0 = random.uniform(-1, 1), y0 = random.uniform(-1, 1);
    const auto placed = surfaces::place(surfaces::benchmark("S1"), x0, y0);
    const auto result = fit_optimum(surfaces::grid_7x5(placed, random), options);
    const auto& fit = std::get<Optimum>(result);
    const Interval profile = profile_interval_lr(fit, fit.by_skew.front());
    const double ratio = (fit.lr.ci.hi - fit.lr.ci.lo) / (profile.hi - profile.lo);
    CHECK_THAT(ratio, WithinAbs(1, 0.25));
    mean_ratio += ratio / kReplicates;
    num_wider += ratio > 1;
  }
  CHECK_THAT(mean_ratio, WithinAbs(1, 0.05));
  CHECK(num_wider >= 95);
}

TEST_CASE("a quadratic has the same optimum in LR and WD as in LR and tau", "[sweeps][fit][gates]") {
  FitOptions options;
  options.k_grid = {0};
  for (int i = 0; i < 10; ++i) {
    auto sweep = sweep_with_optimum_at(surfaces::benchmark("S1"), 0.3, i);
    const auto result = fit_optimum(sweep.points, options);
    for (auto& point : sweep.points) point.y = -(point.x + point.y);
    const auto turned = fit_optimum(sweep.points, options);
    const auto& in_wd = std::get<Optimum>(result);
    const auto& in_tau = std::get<Optimum>(turned);
    CHECK_THAT(in_tau.lr.estimate, WithinAbs(in_wd.lr.estimate, 1e-6));
    CHECK_THAT(in_tau.wd.estimate, WithinAbs(in_wd.log2_tau.estimate, 1e-6));
  }
}

TEST_CASE("the units of LR, WD and loss and the order of the trials change nothing, on any surface",
          "[sweeps][fit][gates][slow]") {
  for (const auto& surface : surfaces::benchmark()) {
    const auto sweep = sweep_with_optimum_at(surface, 0.4, 1);
    const auto& plain = std::get<Optimum>(sweep.result);
    const auto check = [&](const char* what, double dx, double dy, double dloss, auto&& change) {
      auto points = sweep.points;
      change(points);
      const auto result = fit_optimum(points, {});
      const auto& fit = std::get<Optimum>(result);
      INFO(surface.id << ": " << what);
      CHECK_THAT(fit.lr.estimate - dx, WithinAbs(plain.lr.estimate, 1e-9));
      CHECK_THAT(fit.lr.ci.lo - dx, WithinAbs(plain.lr.ci.lo, 1e-9));
      CHECK_THAT(fit.lr.ci.hi - dx, WithinAbs(plain.lr.ci.hi, 1e-9));
      CHECK_THAT(fit.wd.estimate - dy, WithinAbs(plain.wd.estimate, 1e-9));
      CHECK_THAT(fit.wd.ci.lo - dy, WithinAbs(plain.wd.ci.lo, 1e-9));
      CHECK_THAT(fit.wd.ci.hi - dy, WithinAbs(plain.wd.ci.hi, 1e-9));
      CHECK_THAT(fit.best_loss - dloss, WithinAbs(plain.best_loss, 1e-9));
    };
    check("LR and WD", 9.97, -4.3, 0, [](auto& points) {
      for (auto& point : points) point.x += 9.97, point.y -= 4.3;
    });
    check("loss", 0, 0, 5.3, [](auto& points) {
      for (auto& point : points) point.loss += 5.3;
    });
    check("order", 0, 0, 0, [](auto& points) {
      std::ranges::reverse(points);
      std::swap(points[3], points[20]);
    });
  }
}
