#include "tests/support/synthetic.h"

#include <cmath>
#include <numbers>
#include <stdexcept>

#include "sweeps/study_file.h"

namespace synthetic {
namespace {

using namespace sweeps;

double uniform(const std::string& text) {
  return (static_cast<double>(derived_seed(1, text)) + 1) / 18446744073709551618.0;
}
double normal(const std::string& text) {
  return std::sqrt(-2 * std::log(uniform(text + "/radius"))) *
         std::cos(2 * std::numbers::pi * uniform(text + "/angle"));
}

double bowl(double u, double v) {
  constexpr double kSkew = 0.35, kLr = 0.016, kWd = 0.012, kCross = 0.0055;
  return kLr * (std::exp(kSkew * u) - 1 - kSkew * u) / (kSkew * kSkew) + kCross * u * v + kWd * v * v / 2;
}

}  // namespace

TrialResult World::train(const TrialSpec& spec) const {
  TrialResult result;
  result.key = trial_key(spec);
  result.spec = spec;
  result.attempts = 1;
  result.seconds = 1;
  result.device = "cpu";
  if (fails(spec)) {
    result.state = TrialState::failed;
    result.message = "out of memory";
    return result;
  }
  const double x = std::log2(spec.base.lr);
  const auto loss_for = [&](double fraction) {
    const auto drift = lr_drift.find(spec.target);
    const double u =
        x - log2_lr - (drift == lr_drift.end() ? 0 : drift->second) - lr_trend * std::log2(fraction);
    const double v = std::log2(spec.base.wd) - log2_wd;
    const double std_octaves = std::log2(spec.base.init_std / best_init_std);
    double value = loss + bowl(u, v) + 0.02 * std_octaves * std_octaves + noise * normal(result.key);
    if (!spec.target.empty()) value -= 0.2;
    if (spec.role == TrialRole::check) value += baseline_penalty;
    return value - 0.1 * std::log2(fraction);
  };
  for (auto step = eval_interval(spec); step > 0 && step <= spec.run.steps; step += eval_interval(spec)) {
    result.evaluations.steps.push_back(step);
    result.evaluations.losses.push_back(
        loss_for(1) + pace(spec) * (1 - static_cast<double>(step) / static_cast<double>(spec.run.steps)));
  }
  if (x >= diverges_at) {
    result.evaluations = {};
    result.state = TrialState::diverged;
    result.diverged_step = 10;
    return result;
  }
  result.state = TrialState::complete;
  result.steps = spec.run.steps;
  result.loss = loss_for(1);
  if (const double ratio = gradient_noise(spec); ratio > 0) result.gradient_noise = ratio;
  for (const auto& branch : branch_points(spec))
    result.branches.push_back({branch.fraction, branch.steps, loss_for(branch.fraction)});
  return result;
}

Study study() {
  Study result = parse_study(R"(
schema = 1
name = "synthetic"
[data]
source = "teacher"
[model]
width = 64
depth = 2
head_size = 16
context = 64
[train]
steps = 100
batch = 8
[space]
lr = { min = 0.0009765625, max = 0.015625, count = 5 }
wd = { min = 0.03125, max = 0.5, count = 3 }
init_std = { values = [0.03, 0.06, 0.12] }
[[target]]
name = "8e2a"
moe = "8e2a"
[[target]]
name = "8e2a1s"
moe = "8e2a1s"
width = 128
drift = true
)",
                             "synthetic.toml");
  result.data.fingerprint = "synthetic";
  return result;
}

Analysis run(const Study& study, const World& world, std::vector<TrialResult>& results) {
  for (int round = 0; round < 100; ++round) {
    Analysis analysis = analyse(study, results);
    if (analysis.missing.empty()) return analysis;
    for (const auto& spec : analysis.missing) results.push_back(world.train(spec));
  }
  throw std::logic_error("synthetic::run: the analysis never stops asking for trials");
}

}  // namespace synthetic
