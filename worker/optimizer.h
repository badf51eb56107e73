#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/model.h"
#include "sweeps/trial.h"

namespace worker {

/// AdamW over the slot axis: every slot has its own LR, WD, betas, eps, step count and clipping norm; tensor
/// groups take their factors from models::group_scaling. Decoupled decay in PyTorch's convention,
/// theta *= 1 - lr * wd; under WdWidth::independent theta *= 1 - schedule * wd. Norm gains are not decayed.
/// A slot that is not active, or whose loss or gradient norm is not finite, is left untouched bit for bit.
class AdamW {
 public:
  /// The parameters must outlive the optimizer. Throws std::invalid_argument where a rule gives 1 - beta >= 1
  /// (in reset).
  AdamW(std::vector<models::Parameter>& parameters, const models::RunShape& run,
        const models::RunShape& proxy, const models::RuleOptions& rule);

  /// Gives the slot to a trial: its values, zero moments, step 0. `clip`: largest gradient norm, 0 = off.
  void reset(std::int64_t slot, const sweeps::Hyperparameters& base, double clip);

  /// One update from the gradients that lie in the parameters. `losses_K`: of the same step, on the
  /// parameters' device; `schedule[k]`: factor on slot k's LR.
  /// Returns the gradient norms before clipping, [K] float64, on the parameters' device.
  at::Tensor step(const at::Tensor& losses_K, std::span<const double> schedule,
                  const std::vector<bool>& active);

  /// The same update in tensor operations, as it runs on a device: what to leave alone is decided there, so
  /// nothing waits for the host.
  at::Tensor step_composed(const at::Tensor& losses_K, std::span<const double> schedule,
                           const std::vector<bool>& active);

  /// Forgets the gradients.
  void clear_gradients();

  /// For checkpoints: moments like the parameters, [K, dims...] float32, and the updates done by a slot.
  std::vector<at::Tensor>& first_moments() { return first_; }
  std::vector<at::Tensor>& second_moments() { return second_; }
  std::int64_t updates(std::int64_t slot) const { return slots_[static_cast<std::size_t>(slot)].updates; }
  void set_updates(std::int64_t slot, std::int64_t updates) {
    slots_[static_cast<std::size_t>(slot)].updates = updates;
  }

 private:
  /// What one slot does to one tensor.
  struct GroupValues {
    double lr = 0;
    double wd = 0;
    double beta1 = 0;
    double beta2 = 0;
    double eps = 0;
  };
  struct Slot {
    std::vector<GroupValues> values;  // one per parameter
    double clip = 0;
    std::int64_t updates = 0;
  };
  /// GroupValues with schedule, bias correction and decay worked in, as the arithmetic takes them.
  struct Coefficients {
    float decay = 1;  // theta *= decay
    float one_minus_beta1 = 1;
    float beta2 = 0;
    float one_minus_beta2 = 1;
    float step_size = 0;   // lr / (1 - beta1^t)
    float root_scale = 0;  // 1 / sqrt(1 - beta2^t)
    float eps = 0;
  };
  Coefficients coefficients(const Slot& slot, std::size_t parameter, double schedule) const;
  static void kernel(float* weight, const float* gradient, float* first, float* second, std::int64_t count,
                     float gradient_scale, const Coefficients& c);
  at::Tensor coefficient_table(std::span<const double> schedule, const std::vector<bool>& active) const;
  at::Tensor step_cpu(const at::Tensor& losses_K, std::span<const double> schedule,
                      const std::vector<bool>& active);

  std::vector<models::Parameter>& parameters_;
  std::vector<models::GroupScaling> scaling_;  // one per parameter
  bool independent_decay_;
  std::vector<at::Tensor> first_;
  std::vector<at::Tensor> second_;
  std::vector<Slot> slots_;
};

}  // namespace worker
