#pragma once

#include <string>
#include <vector>

#include "sweeps/fit.h"
#include "sweeps/generator.h"

/// Synthetic loss surfaces to judge a fit by, where the true optimum is known (fit-and-drift 5.1).
namespace surfaces {

enum class Shape { linex, two_exponentials, ridge, flat_bottom, subquadratic, wd_monotone, saturating };

/// One benchmark surface about its nominal optimum: u, v in octaves from it.
struct Surface {
  std::string id;
  Shape shape = Shape::linex;
  double level = 3;  // L0, nats
  double k = 0.35, hx = 0.016, hy = 0.012, rho = 0.4;
  bool wall = false;  // a steep rise at large LR
  double wall_at = 1.7;
  bool diverges = false;
  double diverges_at = 2.3;
  double sigma = 0.003;
  bool noise_grows = false;    // with LR
  double outlier_share = 0;    // of the trials, by Exp(mean 0.05)
  double ridge_across = 0.03;  // curvature across the ridge
  bool mirrored = false;       // the bowl, not the wall: steep towards small LR, as short runs are
};

/// S1 ... S15, in order.
const std::vector<Surface>& benchmark();
const Surface& benchmark(const std::string& id);
/// M1 ... M6: curves that are steeper on the side of small LRs, as those of short runs are.
const std::vector<Surface>& mirrored();

/// Mean loss without noise or divergence.
double mean_loss(const Surface& surface, double u, double v);

/// Where the mean loss is lowest: the wall moves it a little.
struct Point {
  double u = 0, v = 0, loss = 0;
};
Point true_optimum(const Surface& surface);

/// The surface placed with its nominal optimum at (x0, y0).
struct Placed {
  Surface surface;
  double x0 = 0, y0 = 0;
  double true_x() const { return x0 + optimum.u; }
  double true_y() const { return y0 + optimum.v; }
  double regret(double x, double y) const { return mean_loss(surface, x - x0, y - y0) - optimum.loss; }
  Point optimum;
};
Placed place(const Surface& surface, double x0, double y0);

/// One noisy trial at (x, y).
sweeps::FitPoint observe(const Placed& placed, double x, double y, sweeps::Generator& random);

/// The 7 x 5 grid: LR -3..3, WD -2..2, one octave apart.
std::vector<sweeps::FitPoint> grid_7x5(const Placed& placed, sweeps::Generator& random);

}  // namespace surfaces
