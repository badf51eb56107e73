#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sweeps/analysis.h"

/// Studies whose trials are answered from an analytic loss surface: the pipeline without training.
namespace synthetic {

/// A bowl in octaves about each model's optimum, steeper towards large LR, plus noise that depends on the
/// trial's key alone.
struct World {
  double log2_lr = -8;  // the proxy's optimum
  double log2_wd = -3;
  double loss = 3;
  std::map<std::string, double> lr_drift = {};  // octaves by target
  double baseline_penalty = 0.05;               // nats, of a target under SP
  double noise = 0.001;                         // nats
  double diverges_at = 100;                     // log2 LR from which on trials diverge
  double best_init_std = 0.06;
  /// Held-out losses fall to the final one in a straight line from this many nats above.
  std::function<double(const sweeps::TrialSpec&)> pace = [](const sweeps::TrialSpec&) { return 1.0; };
  /// Of the proxy and of each target; 0: not measured.
  std::function<double(const sweeps::TrialSpec&)> gradient_noise = [](const sweeps::TrialSpec&) { return 0.0; };
  double lr_trend = -0.2;  // octaves the optimum moves per doubling of the run; of branches
  std::function<bool(const sweeps::TrialSpec&)> fails = [](const sweeps::TrialSpec&) { return false; };

  sweeps::TrialResult train(const sweeps::TrialSpec& spec) const;
};

/// 5 LRs x 3 WDs around (2^-8, 2^-3), a scan of three stds, two MoE targets; "8e2a1s" has a drift check.
sweeps::Study study();

/// Trains what the analysis asks for until nothing is missing; `results` holds what was trained.
sweeps::Analysis run(const sweeps::Study& study, const World& world,
                     std::vector<sweeps::TrialResult>& results);
inline sweeps::Analysis run(const sweeps::Study& study, const World& world) {
  std::vector<sweeps::TrialResult> results;
  return run(study, world, results);
}

}  // namespace synthetic
