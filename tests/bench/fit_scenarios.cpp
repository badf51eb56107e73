// How close the fit comes to known optima, beside the usual alternatives, over the scenarios S1 ... S15 of
// tests/support/surfaces.h: the table of fit-and-drift 5.2 as Markdown. Run by hand: build with
// -DTUNEONCE_BENCH=ON.
//   bench_fit_scenarios [REPLICATES [FIRST SEED]]       (200, 20260: the seeds of the gates)
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

#include "tests/support/estimators.h"

namespace {

using estimators::Scores;

/// Of one estimator, by scenario.
using Column = std::vector<Scores>;

double mean(const Column& column, const std::function<double(const Scores&)>& value) {
  double sum = 0;
  for (const auto& s : column) sum += value(s);
  return sum / static_cast<double>(column.size());
}

double worst(const Column& column, const std::function<double(const Scores&)>& value) {
  double largest = -INFINITY;
  for (const auto& s : column) largest = std::max(largest, value(s));
  return largest;
}

/// A dash for what an estimator does not give.
std::string number(double value, int digits) {
  if (std::isnan(value)) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

void print_row(const char* title, const std::vector<Column>& columns,
               const std::function<std::string(const Column&)>& cell) {
  std::printf("| %s |", title);
  for (const auto& column : columns) std::printf(" %s |", cell(column).c_str());
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  const int replicates = argc > 1 ? std::atoi(argv[1]) : 200;
  const std::uint64_t first_seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 20260;
  if (replicates < 1 || argc > 3) {
    std::fprintf(stderr, "usage: bench_fit_scenarios [REPLICATES [FIRST SEED]]\n");
    return 2;
  }
  const auto& scenarios = surfaces::benchmark();
  std::vector<Column> columns;
  for (const auto& estimator : estimators::all()) {
    columns.emplace_back();
    for (std::size_t i = 0; i < scenarios.size(); ++i)
      columns.back().push_back(estimators::score(scenarios[i], i, estimator, replicates, first_seed));
  }

  std::printf("| RMSE of log2 LR* (octaves) |");
  for (const auto& estimator : estimators::all()) std::printf(" %s |", std::string(estimator.name).c_str());
  std::printf(" fit: bias | coverage | half width | RMSE WD | regret (1e-3 nats) |\n|---|");
  for (std::size_t i = 0; i < columns.size() + 5; ++i) std::printf("---|");
  std::printf("\n");
  for (std::size_t i = 0; i < scenarios.size(); ++i) {
    std::printf("| %s |", scenarios[i].id.c_str());
    for (const auto& column : columns) std::printf(" %.3f |", column[i].rmse_lr);
    const Scores& s = columns.front()[i];
    std::printf(" %+.3f | %.3f | %.2f | %.3f | %.2f |\n", s.bias_lr, s.coverage, s.half_width, s.rmse_wd,
                1e3 * s.regret);
  }

  std::printf("\n| over the scenarios |");
  for (const auto& estimator : estimators::all()) std::printf(" %s |", std::string(estimator.name).c_str());
  std::printf("\n|---|---|---|---|---|\n");
  const auto rmse = [](const Scores& s) { return s.rmse_lr; };
  print_row("RMSE LR (octaves), mean / worst", columns, [&](const Column& column) {
    return number(mean(column, rmse), 3) + " / " + number(worst(column, rmse), 3);
  });
  print_row("RMSE WD (octaves), mean", columns, [](const Column& column) {
    return number(mean(column, [](const Scores& s) { return s.rmse_wd; }), 3);
  });
  print_row("bias of LR (octaves), mean size", columns, [](const Column& column) {
    return number(mean(column, [](const Scores& s) { return std::abs(s.bias_lr); }), 3);
  });
  print_row("coverage of the 95 % interval of LR, mean / worst", columns, [](const Column& column) {
    const double average = mean(column, [](const Scores& s) { return s.coverage; });
    if (std::isnan(average)) return std::string("-");
    return number(average, 3) + " / " +
           number(-worst(column, [](const Scores& s) { return -s.coverage; }), 3);
  });
  print_row("its half width (octaves), mean of medians", columns, [](const Column& column) {
    return number(mean(column, [](const Scores& s) { return s.half_width; }), 2);
  });
  print_row("true regret (1e-3 nats), mean / worst", columns, [](const Column& column) {
    const auto regret = [](const Scores& s) { return 1e3 * s.regret; };
    return number(mean(column, regret), 2) + " / " + number(worst(column, regret), 2);
  });
}
