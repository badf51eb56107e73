#include "sweeps/drift.h"

#include <algorithm>
#include <cmath>

#include "tests/support/catch.h"
#include "tests/support/surfaces.h"

using namespace sweeps;

namespace {

constexpr double kTolerance = 0.003;
const std::vector<NewPoint> kDesign = {{0, 0},    {-1, 0},       {1, 0},       {0, 1.5},
                                       {0, -1.5}, {-1.75, 0.75}, {0.75, -0.75}};

/// A proxy and a target of the drift set (fit-and-drift 5.3): the target has its own curvatures and skew, and
/// its optimum lies `shift` octaves of LR from the proxy's.
struct Pair {
  Optimum proxy;
  surfaces::Placed target;
  std::vector<FitPoint> points;  // the seven-point design around the proxy's fitted optimum
  double x = 0, y = 0;
  double regret() const { return target.regret(x, y); }
};

Pair make_pair(double sigma, double shift, std::uint64_t replicate) {
  Generator random(3000 + replicate, static_cast<std::uint64_t>(100 + 10 * shift));
  surfaces::Surface surface = surfaces::benchmark("S5");
  surface.sigma = sigma;
  surface.k = random.uniform(0.1, 0.7);
  surface.hx = 0.016 * std::exp(0.25 * random.normal());
  surface.hy = 0.012 * std::exp(0.35 * random.normal());
  surface.rho = random.uniform(0.1, 0.5);
  const double x0 = random.uniform(-1, 1), y0 = random.uniform(-1, 1);
  const auto sweep = surfaces::grid_7x5(surfaces::place(surface, x0, y0), random);
  Pair pair{.proxy = std::get<Optimum>(fit_optimum(sweep, {})), .target = {}, .points = {}};

  surface.level = 2.8;
  surface.k = random.uniform(0.1, 0.7);
  surface.hx *= std::exp(0.3 * random.normal());
  surface.hy *= std::exp(0.3 * random.normal()) * std::exp(0.2 * random.normal());
  surface.rho = std::clamp(surface.rho + 0.1 * random.normal(), 0.0, 0.6);
  pair.target = surfaces::place(surface, x0 + shift, y0);
  pair.x = pair.proxy.lr.estimate, pair.y = pair.proxy.wd.estimate;
  for (const auto& [dx, dy] : kDesign)
    pair.points.push_back(surfaces::observe(pair.target, pair.x + dx, pair.y + dy, random));
  return pair;
}

DriftReport judge(const Pair& pair, int extensions_left = 0) {
  DriftOptions options;
  options.tolerance = kTolerance;
  options.extensions_left = extensions_left;
  return judge_drift(pair.points, pair.x, pair.y, pair.proxy, options);
}

struct ErrorRates {
  int num_null = 0, null_pass = 0, null_drift = 0;  // the transferred point costs at most half the tolerance
  int num_big = 0, big_drift = 0, big_pass = 0;     // at least twice the tolerance
  int num_costly = 0, costly_pass = 0;              // more than the tolerance
  int num_covered = 0, num_judged = 0;
};

ErrorRates error_rates(double sigma, int replicates) {
  ErrorRates rates;
  for (const double shift : {0.0, 0.25, 0.5, 0.75, 1.0, 1.5, -1.0})
    for (int i = 0; i < replicates; ++i) {
      const Pair pair = make_pair(sigma, shift, static_cast<std::uint64_t>(i));
      const DriftReport report = judge(pair);
      const bool pass = report.verdict == Verdict::pass, drift = report.verdict == Verdict::drift;
      if (pair.regret() <= kTolerance / 2)
        ++rates.num_null, rates.null_pass += pass, rates.null_drift += drift;
      if (pair.regret() >= 2 * kTolerance) ++rates.num_big, rates.big_drift += drift, rates.big_pass += pass;
      if (pair.regret() > kTolerance) ++rates.num_costly, rates.costly_pass += pass;
      if (!report.fit) continue;
      const double moved = pair.target.true_x() - pair.x;
      ++rates.num_judged;
      rates.num_covered += report.lr.ci.lo <= moved && moved <= report.lr.ci.hi;
    }
  return rates;
}

/// A target without noise on a proxy of the same shape: what is being tested is the logic, not the luck.
Pair quiet_pair(double shift_x, double shift_y) {
  Generator random(11);
  surfaces::Surface surface = surfaces::benchmark("S2");
  surface.sigma = 0.0005;
  const auto sweep = surfaces::grid_7x5(surfaces::place(surface, 0.2, -0.1), random);
  Pair pair{.proxy = std::get<Optimum>(fit_optimum(sweep, {})), .target = {}, .points = {}};
  pair.target = surfaces::place(surface, 0.2 + shift_x, -0.1 + shift_y);
  pair.x = pair.proxy.lr.estimate, pair.y = pair.proxy.wd.estimate;
  for (const auto& [dx, dy] : kDesign)
    pair.points.push_back(surfaces::observe(pair.target, pair.x + dx, pair.y + dy, random));
  return pair;
}

}  // namespace

TEST_CASE("an optimum that stayed where it was passes as equivalent", "[sweeps][drift]") {
  const auto report = judge(quiet_pair(0, 0));
  CHECK(report.verdict == Verdict::pass);
  CHECK(report.location_equivalent);
  CHECK(report.regret_upper <= kTolerance);
  CHECK(exit_code(report.verdict) == 0);
}

TEST_CASE("an optimum one octave up is drift, with the factor that undoes it", "[sweeps][drift]") {
  const auto pair = quiet_pair(1, 0);
  const auto report = judge(pair);
  CHECK(report.verdict == Verdict::drift);
  CHECK(exit_code(report.verdict) == 3);
  CHECK_THAT(report.lr.value, WithinAbs(1, 0.25));
  CHECK_THAT(std::log2(report.lr_factor), WithinAbs(report.lr.value, 1e-12));
  CHECK(report.gradient_p < 0.01);
  CHECK_THAT(report.regret, WithinAbs(pair.regret(), 0.3 * pair.regret()));
  CHECK_THAT(report.tau.value, WithinAbs(-(report.lr.value + report.wd.value), 1e-12));
}

TEST_CASE("drift of weight decay alone is drift too", "[sweeps][drift]") {
  const auto report = judge(quiet_pair(0, -1.5));
  CHECK(report.verdict == Verdict::drift);
  CHECK_THAT(report.wd.value, WithinAbs(-1.5, 0.4));
}

TEST_CASE("against the proxy's optimum the interval is wider than against the fixed point",
          "[sweeps][drift]") {
  const auto report = judge(make_pair(0.003, 0, 3));
  REQUIRE(report.fit);
  CHECK_THAT(report.lr_from_proxy.value, WithinAbs(report.lr.value, 1e-12));
  CHECK(report.lr_from_proxy.ci.hi - report.lr_from_proxy.ci.lo > report.lr.ci.hi - report.lr.ci.lo);
}

TEST_CASE("one weight decay alone is refused, never called drift", "[sweeps][drift]") {
  auto pair = quiet_pair(1, 0);
  Generator random(12);
  pair.points.clear();
  for (const double dx : {-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0})
    pair.points.push_back(surfaces::observe(pair.target, pair.x + dx, pair.y, random));
  const auto report = judge(pair);
  CHECK(report.verdict == Verdict::unusable);
  CHECK_THAT(report.reason, ContainsSubstring("one WD level"));
  CHECK(exit_code(report.verdict) == 4);
}

TEST_CASE("runs along one line are refused, never called drift", "[sweeps][drift]") {
  auto pair = quiet_pair(1, 0);
  Generator random(13);
  pair.points.clear();
  for (const double step : {-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0})
    pair.points.push_back(surfaces::observe(pair.target, pair.x + step, pair.y - step, random));
  CHECK(judge(pair).verdict == Verdict::unusable);
}

TEST_CASE("six finished runs are too few", "[sweeps][drift]") {
  auto pair = quiet_pair(1, 0);
  pair.points.back().diverged = true;
  const auto report = judge(pair);
  CHECK(report.verdict == Verdict::unusable);
  CHECK(report.num_points == 6);
  CHECK(report.num_diverged == 1);
  CHECK_THAT(report.reason, ContainsSubstring("at least 7"));
}

TEST_CASE("mostly diverged runs are refused whatever the others say", "[sweeps][drift]") {
  auto pair = quiet_pair(1, 0);
  for (int i = 0; i < 8; ++i) pair.points.push_back({.x = pair.x + 3, .y = pair.y + i, .diverged = true});
  const auto report = judge(pair);
  CHECK(report.verdict == Verdict::unusable);
  CHECK_THAT(report.reason, ContainsSubstring("8 of 15 runs diverged"));
}

TEST_CASE("noise far above the tolerance is refused", "[sweeps][drift]") {
  const auto pair = make_pair(0.003, 0, 1);
  DriftOptions options;
  options.tolerance = 0.0003;
  const auto report = judge_drift(pair.points, pair.x, pair.y, pair.proxy, options);
  CHECK(report.verdict == Verdict::unusable);
  CHECK_THAT(report.reason, ContainsSubstring("noise"));
}

TEST_CASE("not bracketed is said only when no extension is left", "[sweeps][drift]") {
  int num_open = 0;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const auto pair = make_pair(0.003, 0.25, i);
    const auto last = judge(pair, 0);
    const auto first = judge(pair, 2);
    CHECK(first.verdict != Verdict::not_bracketed);
    if (last.verdict != Verdict::not_bracketed) continue;
    ++num_open;
    CHECK(first.verdict == Verdict::inconclusive);
    CHECK(exit_code(last.verdict) == 4);
  }
  CHECK(num_open > 0);
}

TEST_CASE("an undecided check says how many runs are still needed", "[sweeps][drift]") {
  int num_undecided = 0;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const auto report = judge(make_pair(0.003, 0.25, i), 1);
    if (report.verdict != Verdict::inconclusive) continue;
    ++num_undecided;
    CHECK(report.more_runs > 0);
  }
  CHECK(num_undecided > 0);
}

TEST_CASE("a proxy's shape that contradicts the target's is dropped and said", "[sweeps][drift]") {
  auto pair = quiet_pair(0.5, 0);
  Generator random(14);
  for (const auto& [dx, dy] : {NewPoint{-1, -1}, NewPoint{1, 1}, NewPoint{-1, 1}, NewPoint{0.5, 0.5}})
    pair.points.push_back(surfaces::observe(pair.target, pair.x + dx, pair.y + dy, random));
  const auto agreed = judge(pair);
  CHECK_FALSE(agreed.prior_conflict);
  pair.proxy.hx /= 10, pair.proxy.hxy /= 10, pair.proxy.hy /= 10;
  const auto report = judge(pair);
  CHECK(report.prior_conflict);
  CHECK(report.verdict == agreed.verdict);
  CHECK_THAT(report.lr.value, WithinAbs(agreed.lr.value, 0.2));
}

TEST_CASE("the curvature-aware bound is the shift that costs the tolerance", "[sweeps][drift]") {
  const auto report = judge(quiet_pair(0, 0));
  REQUIRE(report.fit);
  CHECK_THAT(report.fit->hx * report.curvature_bound * report.curvature_bound / 2,
             WithinRel(kTolerance, 1e-12));
}

TEST_CASE("a line of the drift table holds the numbers and the verdict", "[sweeps][drift]") {
  const auto line = describe(judge(quiet_pair(1, 0)), "moe-8e2a");
  CHECK_THAT(line, ContainsSubstring("moe-8e2a"));
  CHECK_THAT(line, ContainsSubstring("7 (0)"));
  CHECK_THAT(line, ContainsSubstring("DRIFT"));
  CHECK_THAT(line, ContainsSubstring("use LR x"));
  CHECK_THAT(drift_table_header(), ContainsSubstring("verdict"));
}

// Seven runs are the start of a check, which goes on where they do not decide: few targets that stayed are
// certified by them alone. What must hold already is that hardly any is accused and none that moved far
// passes.
TEST_CASE("seven runs seldom accuse the innocent and never pass the guilty", "[sweeps][drift][slow]") {
  SECTION("noise as large as the tolerance") {
    const auto rates = error_rates(0.003, 60);
    CHECK(rates.num_null > 100);
    CHECK(rates.null_drift <= 0.05 * rates.num_null);
    CHECK(rates.num_big > 100);
    CHECK(rates.big_pass == 0);
    CHECK(rates.big_drift >= 0.85 * rates.num_big);  // the others had runs diverge and ask for more
    CHECK(rates.costly_pass <= 0.02 * rates.num_costly);
    CHECK(rates.num_covered >= 0.92 * rates.num_judged);
  }
  SECTION("noise a third of the tolerance") {
    const auto rates = error_rates(0.001, 60);
    CHECK(rates.null_drift <= 0.02 * rates.num_null);
    CHECK(rates.null_pass >= 0.75 * rates.num_null);
    CHECK(rates.big_pass == 0);
    CHECK(rates.big_drift >= 0.85 * rates.num_big);
    CHECK(rates.costly_pass <= 0.02 * rates.num_costly);
    CHECK(rates.num_covered >= 0.92 * rates.num_judged);
  }
}
