#pragma once

#include <vector>

namespace sweeps {

/// Do the first steps of a target follow those of the dense proxy? A wrong multiplier shows as a gap that
/// stays or grows (Complete-muE's overlay of initial losses).
struct LossOverlay {
  double slope = 0;           // of the gap, nats a step, mean over seeds
  double slope_lower = 0;     // one-sided 95 % bound: above 0 is significantly growing
  double largest_gap = 0;     // nats, the most by which the target lies above the proxy (smoothed)
  double largest_lead = 0;    // nats, the most by which it lies below: no fault, it learns faster
  double limit = 0;           // 3 spreads + 0.05 nats
  double spread = 0;          // between seeds, standard deviation of the proxy's smoothed loss
  std::vector<double> gap;    // smoothed, target minus proxy, mean over seeds, from step 0
  bool pass = false;
};

/// Losses [seed][step], the same seeds for both. Gaps are averaged over 10 steps and judged from step `first`
/// on. The gap is target minus proxy: a wider model or one with more experts may learn faster, never slower.
/// Fails when the gap grows significantly while it is above zero, or is larger than 3 spreads + 0.05 nats.
/// REQUIRES: at least two seeds, more than `first` + 10 steps, all the same.
LossOverlay overlay_losses(const std::vector<std::vector<double>>& proxy,
                           const std::vector<std::vector<double>>& target, std::size_t first = 20);

}  // namespace sweeps
