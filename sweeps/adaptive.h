#pragma once

#include <string>
#include <vector>

#include "sweeps/next_points.h"
#include "sweeps/study.h"

namespace sweeps {

/// The adaptive search (fit-and-drift 3): nine points about a guess, then batches where a trial tells most
/// about the optimum's place, until it is known well enough. About 18 trials do what a grid of 35 does.

struct AdaptiveOptions {
  double start_x = 0, start_y = 0;  // the guess, log2 LR and log2 WD
  Interval x, y;                    // nothing is tried outside
  int batch = 2;                    // fixed, so that results do not hang on the number of workers
  StopRule stop = StopRule::measure;
  double lr_half_width = 0.25;  // octaves
  double tolerance = 0.003;     // nats
  int max_points = 36;
};

inline constexpr int kFewestAdaptive = 11;  // finished points before either rule may stop the search
inline constexpr double kStartReachLr = 2, kStartReachWd = 1.5;  // octaves of the nine about the guess

/// The nine start points.
std::vector<NewPoint> adaptive_start(const AdaptiveOptions& options);

/// What to try next. Runs that diverged among the first nine are made up for on the side of small LRs; an
/// optimum on an edge is walked after, inside x and y and half an octave below a diverged LR; otherwise the
/// points of c-optimality. `next` is empty when the search is over, and `settled` whether it is so because
/// the stop rule holds; `reason` says it in one sentence. REQUIRES: every trial that was asked for has ended;
/// `fit` is the fit of `points`.
struct AdaptiveStep {
  std::vector<NewPoint> next = {};
  bool settled = false;
  std::string reason = {};
};
AdaptiveStep adaptive_step(const std::vector<FitPoint>& points, const FitResult& fit,
                           const AdaptiveOptions& options);

}  // namespace sweeps
