#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace sweeps {

/// Random numbers as a pure function of (seed, stream) and position: SplitMix64. The standard library's
/// distributions differ between platforms, and results must not.
class Generator {
 public:
  explicit Generator(std::uint64_t seed, std::uint64_t stream = 0) : state_(mix(seed) + mix(~stream)) {}

  std::uint64_t bits() { return mix(state_ += 0x9E3779B97F4A7C15ull); }
  /// In (0, 1), never an end.
  double uniform() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53; }
  double uniform(double lo, double hi) { return lo + (hi - lo) * uniform(); }
  /// Standard normal (Box-Muller, one of the pair).
  double normal() {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  static std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  std::uint64_t state_;
};

}  // namespace sweeps
