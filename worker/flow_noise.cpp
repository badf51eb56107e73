#include "worker/flow_noise.h"

#include <cmath>
#include <string>

#include "models/generator.h"
#include "worker/data.h"

namespace worker {

FlowNoise training_noise(std::uint64_t seed, std::int64_t step, std::int64_t batch, std::int64_t pixels) {
  constexpr std::uint64_t kPlaces = 1 << 24;  // as many as a float tells apart
  FlowNoise draws;
  const std::uint64_t time_key = models::tensor_key(seed, "flow times");
  for (std::int64_t row = 0; row < batch; ++row) {
    const auto place = static_cast<double>(window_start(time_key, step, row, kPlaces)) + 0.5;
    draws.times.push_back(
        static_cast<float>((static_cast<double>(row) + place / kPlaces) / static_cast<double>(batch)));
  }
  draws.noise.resize(static_cast<std::size_t>(batch * pixels));
  models::fill_normal(draws.noise, models::tensor_key(seed, "flow noise " + std::to_string(step)), 1);
  return draws;
}

FlowNoise holdout_noise(std::int64_t count, std::int64_t pixels) {
  constexpr double kGolden = 0.6180339887498949;
  FlowNoise draws;
  for (std::int64_t row = 0; row < count; ++row)
    draws.times.push_back(static_cast<float>(std::fmod((static_cast<double>(row) + 0.5) * kGolden, 1.0)));
  draws.noise.resize(static_cast<std::size_t>(count * pixels));
  models::fill_normal(draws.noise, models::tensor_key(0, "held-out flow noise"), 1);
  return draws;
}

}  // namespace worker
