#include "worker/templates.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "models/generator.h"
#include "worker/data.h"

namespace worker {
namespace {

constexpr int kWaves = 1;  // highest wave number in either direction

/// One channel of one template, [S, S]: a wave cos(2 pi (kx x + ky y) / S) and its sine for each (kx, ky) in
/// a half plane, with normal weights that fall with the wave number. `weights` are used up from the front.
void add_field(std::int64_t size, std::span<const float>& weights, std::span<float> out) {
  for (int ky = 0; ky <= kWaves; ++ky) {
    for (int kx = ky == 0 ? 1 : -kWaves; kx <= kWaves; ++kx) {
      const double damping = 1 / std::sqrt(1.0 * (kx * kx + ky * ky));
      const double cosine = damping * weights[0], sine = damping * weights[1];
      weights = weights.subspan(2);
      for (std::int64_t y = 0; y < size; ++y) {
        for (std::int64_t x = 0; x < size; ++x) {
          const double angle =
              2 * std::numbers::pi * static_cast<double>(kx * x + ky * y) / static_cast<double>(size);
          out[static_cast<std::size_t>(y * size + x)] +=
              static_cast<float>(cosine * std::cos(angle) + sine * std::sin(angle));
        }
      }
    }
  }
}

void scale_to_rms(std::span<float> values, double rms) {
  double square = 0;
  for (const float value : values) square += static_cast<double>(value) * value;
  const double factor = rms / std::sqrt(square / static_cast<double>(values.size()));
  for (float& value : values) value = static_cast<float>(value * factor);
}

}  // namespace

Templates::Templates(std::uint64_t seed, std::int64_t image_size, std::int64_t channels)
    : seed_(seed), pixels_(channels * image_size * image_size) {
  constexpr std::int64_t kWeights = 2 * (kWaves + kWaves * (2 * kWaves + 1));  // of one channel
  const auto plane = static_cast<std::size_t>(image_size * image_size);
  std::vector<float> numbers(static_cast<std::size_t>(kCount * channels * kWeights));
  models::fill_normal(numbers, models::tensor_key(seed, "templates " + std::to_string(kVersion)), 1);
  std::span<const float> weights = numbers;
  templates_.resize(static_cast<std::size_t>(kCount * pixels_));
  for (std::int64_t m = 0; m < kCount; ++m) {
    const auto own = std::span(templates_)
                         .subspan(static_cast<std::size_t>(m * pixels_), static_cast<std::size_t>(pixels_));
    for (std::size_t c = 0; c < static_cast<std::size_t>(channels); ++c)
      add_field(image_size, weights, own.subspan(c * plane, plane));
    scale_to_rms(own, kRms);
  }
}

void Templates::draw(Stream stream, std::uint64_t key, std::span<float> out) const {
  const std::string name =
      (stream == Stream::train ? "train images " : "held-out images ") + std::to_string(key);
  const std::uint64_t stream_key = models::tensor_key(seed_, name);
  models::fill_normal(out, stream_key, kNoise);
  const auto count = static_cast<std::int64_t>(out.size()) / pixels_;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto m = static_cast<std::int64_t>(window_start(stream_key, 0, i, kCount));
    float* image = &out[static_cast<std::size_t>(i * pixels_)];
    const float* mean = &templates_[static_cast<std::size_t>(m * pixels_)];
    for (std::int64_t p = 0; p < pixels_; ++p) image[p] += mean[p];
  }
}

std::vector<double> Templates::best_velocity(std::span<const double> x_t, double t) const {
  const double a = 1 - t, variance = a * a * kNoise * kNoise + t * t;
  const double slope = (t - a * kNoise * kNoise) / variance;
  std::vector<double> log_weight(kCount);
  for (std::int64_t m = 0; m < kCount; ++m) {
    const float* mean = &templates_[static_cast<std::size_t>(m * pixels_)];
    double square = 0;
    for (std::int64_t p = 0; p < pixels_; ++p) {
      const double r = x_t[static_cast<std::size_t>(p)] - a * mean[p];
      square += r * r;
    }
    log_weight[static_cast<std::size_t>(m)] = -square / (2 * variance);
  }
  const double top = *std::max_element(log_weight.begin(), log_weight.end());
  double total = 0;
  std::vector<double> mixed(static_cast<std::size_t>(pixels_), 0.0);  // sum of p_m mu_m
  for (std::int64_t m = 0; m < kCount; ++m) {
    const double weight = std::exp(log_weight[static_cast<std::size_t>(m)] - top);
    const float* mean = &templates_[static_cast<std::size_t>(m * pixels_)];
    total += weight;
    for (std::int64_t p = 0; p < pixels_; ++p) mixed[static_cast<std::size_t>(p)] += weight * mean[p];
  }
  std::vector<double> velocity(static_cast<std::size_t>(pixels_));
  for (std::size_t p = 0; p < velocity.size(); ++p) {
    const double mean = mixed[p] / total;
    velocity[p] = slope * (x_t[p] - a * mean) - mean;
  }
  return velocity;
}

double Templates::floor(std::span<const float> images, const FlowNoise& draws) const {
  const auto pixels = static_cast<std::size_t>(pixels_);
  std::vector<double> x_t(pixels);
  double total = 0;
  for (std::size_t i = 0; i < draws.times.size(); ++i) {
    const double t = draws.times[i];
    const auto image = images.subspan(i * pixels, pixels);
    const auto noise = std::span(draws.noise).subspan(i * pixels, pixels);
    for (std::size_t p = 0; p < pixels; ++p) x_t[p] = (1 - t) * image[p] + t * noise[p];
    const auto best = best_velocity(x_t, t);
    for (std::size_t p = 0; p < pixels; ++p) {
      const double error = static_cast<double>(noise[p]) - image[p] - best[p];
      total += error * error;
    }
  }
  return total / static_cast<double>(images.size());
}

std::string Templates::fingerprint() const {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(templates_.data());
  std::vector<std::uint8_t> all(bytes, bytes + templates_.size() * sizeof(float));
  for (const double value : {static_cast<double>(kVersion), kNoise}) {
    const auto* raw = reinterpret_cast<const std::uint8_t*>(&value);
    all.insert(all.end(), raw, raw + sizeof value);
  }
  for (int i = 0; i < 8; ++i) all.push_back(static_cast<std::uint8_t>(seed_ >> (8 * i)));
  return fingerprint_of(all);
}

}  // namespace worker
