// How long one fit of 36 trials takes; the goal is 50 ms. Run by hand: build with -DTUNEONCE_BENCH=ON.
#include <chrono>
#include <cmath>
#include <cstdio>

#include "sweeps/fit.h"

int main() {
  std::vector<sweeps::FitPoint> points;
  for (int i = 0; i < 36; ++i) {
    const double u = -2.5 + i % 6, v = -1.5 + 0.6 * (i / 6);
    const double noise = 0.003 * std::sin(12.9898 * i);
    points.push_back(
        {.x = -8 + u, .y = -3 + v, .loss = 3 + 0.008 * u * u + 0.006 * v * v + 0.004 * u * v + noise});
  }
  constexpr int kRepeats = 50;
  const auto start = std::chrono::steady_clock::now();
  double sum = 0;
  for (int i = 0; i < kRepeats; ++i)
    sum += std::get<sweeps::Optimum>(sweeps::fit_optimum(points, {})).lr.estimate;
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  std::printf("fit of %zu trials: %.1f ms (log2 LR* %.2f)\n", points.size(), took.count() / kRepeats,
              sum / kRepeats);
}
