#pragma once

#include <algorithm>

namespace worker {

/// Divergence that stays finite: the train loss, smoothed, lies above 1.5 times what it was at the first
/// step. An exponential mean over some 16 steps in which no step counts for more than 3 times the first loss,
/// so that it takes a run of bad steps and not one spike. Part of a checkpoint.
struct RunawayWatch {
  static constexpr double kLimit = 1.5, kCap = 3, kShare = 1.0 / 16;

  double first = 0;  // 0: no step yet
  double mean = 0;

  void add(double loss) {
    if (first == 0) first = mean = loss;
    mean += kShare * (std::min(loss, kCap * first) - mean);
  }
  bool has_run_away() const { return first > 0 && mean > kLimit * first; }
};

}  // namespace worker
