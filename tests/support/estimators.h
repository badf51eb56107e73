#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "sweeps/fit.h"
#include "tests/support/surfaces.h"

/// The fit beside the usual ways to name an optimum, all scored alike on surfaces whose optimum is known
/// (fit-and-drift 5.2).
namespace estimators {

struct Estimate {
  double x = 0, y = 0;                      // log2 LR*, log2 WD*
  std::optional<sweeps::Interval> lr = {};  // 95 %, of those that have one
  std::optional<double> sigma = {};         // nats, of those that fit
};

/// What the product does. Throws std::bad_variant_access where it refuses the points.
Estimate skewed_fit(const std::vector<sweeps::FitPoint>& points);
/// The best trial; its interval is half a cell of `surfaces::grid_7x5` to either side.
Estimate argmin(const std::vector<sweeps::FitPoint>& points);
/// The vertex of the parabola through the best trial and its two neighbours one octave away, for LR and for
/// WD by itself; the best trial's own place where a neighbour is missing or diverged. No interval.
Estimate three_points(const std::vector<sweeps::FitPoint>& points);
/// The unweighted quadratic in LR and WD with a cross term, in the explored region and an octave; interval by
/// Box-Hunter, without ends where there is no interior optimum.
Estimate least_squares(const std::vector<sweeps::FitPoint>& points);

struct Estimator {
  std::string_view name;
  Estimate (*estimate)(const std::vector<sweeps::FitPoint>& points);
};
/// The fit is the first.
const std::vector<Estimator>& all();

/// Over replicates of the 7 x 5 grid, each with the optimum U(-1, 1)^2 from its centre.
struct Scores {
  double rmse_lr = 0, rmse_wd = 0, bias_lr = 0;  // octaves
  double coverage = 0, half_width = 0;           // of the LR interval: share, and median in octaves
  double regret = 0;                             // nats, true one of the estimate
  double sigma = 0;                              // nats, mean
};
/// The same (stream, first seed) are the same trials for every estimator.
Scores score(const surfaces::Surface& surface, std::uint64_t stream, const Estimator& estimator,
             int replicates, std::uint64_t first_seed = 20260);

}  // namespace estimators
