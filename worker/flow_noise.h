#pragma once

#include <cstdint>
#include <vector>

namespace worker {

/// What flow matching mixes into images: x_t = (1 - t) x_0 + t eps, t in (0, 1), eps standard normal.
struct FlowNoise {
  std::vector<float> times;  // [count]
  std::vector<float> noise;  // [count, pixels]
};

/// Of one training step, a function of (seed, step, row) and of the batch. Times are stratified: one uniform
/// draw in each of `batch` equal parts of (0, 1).
FlowNoise training_noise(std::uint64_t seed, std::int64_t step, std::int64_t batch, std::int64_t pixels);

/// Of the held-out images: always the same. Times follow the golden-ratio sequence, which fills (0, 1) evenly
/// at any count.
FlowNoise holdout_noise(std::int64_t count, std::int64_t pixels);

}  // namespace worker
