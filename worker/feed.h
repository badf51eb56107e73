#pragma once

#include <memory>

#include "models/model.h"
#include "worker/data.h"

namespace worker {

/// A source's data as batches for the slots of a model, whatever its family.
class Feed {
 public:
  virtual ~Feed() = default;

  virtual Source& source() = 0;

  /// Fills slot k with what a trial of this seed sees at this step.
  virtual void load(std::int64_t k, std::uint64_t seed, std::int64_t step) = 0;
  /// What lies in the slots, on the device.
  virtual models::Batch training_batch(c10::Device device) const = 0;

  /// Held-out sequences or images [start, start + rows), the same for every slot.
  virtual models::Batch holdout_batch(std::int64_t start, std::int64_t rows, c10::Device device) = 0;

  /// A final loss above this is far worse than that of a model that has learnt nothing: 3 nats above ln V, or
  /// 4 times that of a velocity of zero.
  virtual double unusable_loss() = 0;
};

/// Throws UserError where the data do not fit the model.
std::unique_ptr<Feed> make_feed(const sweeps::TrialSpec& spec, std::int64_t slots);

}  // namespace worker
