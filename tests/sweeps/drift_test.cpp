#include "sweeps/drift.h"

#include <algorithm>
#include <cmath>
#include <string>

#include <fmt/format.h>

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

constexpr int kMostRuns = 25;
int runs_left(const Pair& pair) { return kMostRuns - static_cast<int>(pair.points.size()); }

bool was_run(const Pair& pair, const NewPoint& at) {
  return std::ranges::any_of(
      pair.points, [&](const FitPoint& run) { return std::hypot(run.x - at.x, run.y - at.y) < 1e-3; });
}

/// From the report on the first runs on as a study goes: the runs that each report asks for, none of them
/// twice, up to the cap; where nothing can be added a verdict that counts on more runs is judged without.
DriftReport check_to_the_end(Pair& pair, DriftReport report, std::uint64_t replicate) {
  Generator random(7000 + replicate);
  while (!report.next.empty()) {
    report.next.resize(std::min(report.next.size(), static_cast<std::size_t>(runs_left(pair))));
    std::erase_if(report.next, [&](const NewPoint& at) { return was_run(pair, at); });
    if (report.next.empty()) return judge(pair, 0);
    for (const auto& at : report.next)
      pair.points.push_back(surfaces::observe(pair.target, at.x, at.y, random));
    report = judge(pair, runs_left(pair));
  }
  return report;
}

/// Verdicts by what the transferred point truly costs.
struct ErrorRates {
  int num_null = 0, null_pass = 0, null_drift = 0, null_runs = 0;  // at most half the tolerance
  int num_big = 0, big_pass = 0, big_drift = 0, big_runs = 0;      // at least twice the tolerance
  int num_costly = 0, costly_pass = 0;                             // more than the tolerance
  int num_judged = 0, num_covered = 0;

  void count(const Pair& pair, const DriftReport& report) {
    const bool pass = report.verdict == Verdict::pass, drift = report.verdict == Verdict::drift;
    const int runs = static_cast<int>(pair.points.size());
    if (pair.regret() <= kTolerance / 2)
      ++num_null, null_pass += pass, null_drift += drift, null_runs += runs;
    if (pair.regret() >= 2 * kTolerance) ++num_big, big_pass += pass, big_drift += drift, big_runs += runs;
    if (pair.regret() > kTolerance) ++num_costly, costly_pass += pass;
    if (!report.fit) return;
    const double moved = pair.target.true_x() - pair.x;
    ++num_judged;
    num_covered += report.lr.ci.lo <= moved && moved <= report.lr.ci.hi;
  }
};

struct BothRates {
  ErrorRates seven_runs, to_the_end;
};

BothRates error_rates(double sigma, std::uint64_t replicates) {
  BothRates rates;
  for (const double shift : {0.0, 0.25, 0.5, 0.75, 1.0, 1.5, -1.0})
    for (std::uint64_t i = 0; i < replicates; ++i) {
      Pair pair = make_pair(sigma, shift, i);
      const DriftReport first = judge(pair, runs_left(pair));
      rates.seven_runs.count(pair, first);
      const DriftReport last = check_to_the_end(pair, first, i);
      rates.to_the_end.count(pair, last);
    }
  return rates;
}

/// A target's runs about the transferred point along (dx, dy), 0.5 octaves apart, at values of four digits as
/// a plan gives them.
std::vector<FitPoint> along_a_line(const Pair& pair, double dx, double dy, Generator& random) {
  const auto rounded = [](double x) { return std::log2(std::stod(fmt::format("{:.3e}", std::exp2(x)))); };
  std::vector<FitPoint> points;
  for (double step = -2; step <= 2; step += 0.5)
    points.push_back(
        surfaces::observe(pair.target, rounded(pair.x + step * dx), rounded(pair.y + step * dy), random));
  return points;
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

// A pseudo-inverse reports no variance in the direction that was not varied and calls nearly all of these
// DRIFT. Values of four digits lie on no exact line and determine as little: read off their rounding, 2 of 10
// that had not moved were DRIFT along (1, 1).
TEST_CASE("runs that do not determine a surface are never called drift, moved or not",
          "[sweeps][drift][gates][slow]") {
  for (const double shift : {0.0, 1.0})
    for (std::uint64_t i = 0; i < 10; ++i) {
      Pair pair = make_pair(0.003, shift, i);
      Generator random(9000 + i);
      for (const auto& [dx, dy] :
           {NewPoint{1, 0}, NewPoint{0, 1}, NewPoint{1, -1}, NewPoint{1, 1}, NewPoint{0.5, -1}}) {
        pair.points = along_a_line(pair, dx, dy, random);
        const auto report = judge(pair);
        INFO("along (" << dx << ", " << dy << "), shift " << shift << ": " << report.reason);
        CHECK(report.verdict == Verdict::unusable);
        CHECK(exit_code(report.verdict) == 4);
      }
    }
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

TEST_CASE("a run that diverged is asked for again on the safe side", "[sweeps][drift]") {
  auto pair = quiet_pair(0, 0);
  pair.points[2].diverged = true;  // one octave above, whose mirror image is already there
  pair.points[6].diverged = true;
  const auto report = judge(pair, 4);
  CHECK(report.verdict == Verdict::inconclusive);
  REQUIRE(report.next.size() == 2);
  CHECK_THAT(report.next[0].x, WithinAbs(pair.x - 2, 1e-12));
  CHECK_THAT(report.next[1].x, WithinAbs(pair.x - 0.75, 1e-12));
  CHECK_THAT(report.next[1].y, WithinAbs(pair.y - 0.75, 1e-12));
  CHECK(report.more_runs == 2);
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
    CHECK_FALSE(first.next.empty());
    CHECK(last.next.empty());
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

// Seven runs are where a check starts, and it goes on where they do not decide. By themselves they certify
// few targets when the noise is as large as the tolerance, but hardly any is accused and none that is costly
// passes.
TEST_CASE("with noise as large as the tolerance few are accused and none that moved far passes",
          "[sweeps][drift][gates][slow]") {
  const auto [seven, whole] = error_rates(0.003, 120);
  REQUIRE(seven.num_null > 200);
  REQUIRE(seven.num_big >= 300);
  CHECK(seven.null_drift <= 0.05 * seven.num_null);
  CHECK(seven.big_pass == 0);
  CHECK(seven.big_drift >= 0.85 * seven.num_big);  // the others had runs diverge
  CHECK(seven.costly_pass <= 0.01 * seven.num_costly);
  CHECK(seven.num_covered >= 0.93 * seven.num_judged);

  CHECK(whole.null_drift <= 0.05 * whole.num_null);
  CHECK(whole.null_pass >= 0.93 * whole.num_null);
  CHECK(whole.big_pass == 0);
  CHECK(whole.big_drift >= 0.99 * whole.num_big);
  CHECK(whole.costly_pass <= 0.01 * whole.num_costly);
  CHECK(whole.null_runs <= 11 * whole.num_null);
  CHECK(whole.big_runs <= 8 * whole.num_big);
}

TEST_CASE("with noise a third of the tolerance seven runs nearly always decide, and rightly",
          "[sweeps][drift][gates][slow]") {
  const auto [seven, whole] = error_rates(0.001, 60);
  CHECK(seven.null_drift <= 0.02 * seven.num_null);
  CHECK(seven.null_pass >= 0.75 * seven.num_null);
  CHECK(seven.big_pass == 0);
  CHECK(whole.null_drift <= 0.02 * whole.num_null);
  CHECK(whole.null_pass >= 0.97 * whole.num_null);
  CHECK(whole.big_pass == 0);
  CHECK(whole.big_drift >= 0.99 * whole.num_big);
  CHECK(whole.costly_pass <= 0.02 * whole.num_costly);
  CHECK(whole.null_runs <= 8 * whole.num_null);
  CHECK(whole.big_runs <= 7.5 * whole.num_big);
}
