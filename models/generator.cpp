#include "models/generator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "models/ops/multiversion.h"

namespace models {
namespace {

constexpr std::int64_t kPairs = 256;  // Box-Muller pairs worked on at once: one L1-sized tile

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit moves every output bit.
constexpr std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

/// ln(x) of a normal float in (0, 1]: exponent and a series in t = (m-1)/(m+1), |t| <= 0.1716.
inline float log_unit(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  // Mantissa into [sqrt(1/2), sqrt(2)): the offset moves the split from 1 to sqrt(1/2).
  const std::uint32_t shifted = bits - 0x3f3504f3u;
  const auto exponent = static_cast<float>(static_cast<std::int32_t>(shifted) >> 23);
  const float m = std::bit_cast<float>((shifted & 0x007fffffu) + 0x3f3504f3u);
  const float t = (m - 1.0f) / (m + 1.0f);
  const float t2 = t * t;
  const float series = 2.0f + t2 * (2.0f / 3 + t2 * (2.0f / 5 + t2 * (2.0f / 7 + t2 * (2.0f / 9))));
  return exponent * 0.693147181f + t * series;
}

/// sin and cos of pi*u/4 for |u| <= 1: Taylor series, error below 1e-7.
inline float sin_eighth(float u) {
  const float x = u * 0.785398163f;
  const float x2 = x * x;
  return x * (1.0f + x2 * (-1.0f / 6 + x2 * (1.0f / 120 + x2 * (-1.0f / 5040))));
}
inline float cos_eighth(float u) {
  const float x = u * 0.785398163f;
  const float x2 = x * x;
  return 1.0f + x2 * (-0.5f + x2 * (1.0f / 24 + x2 * (-1.0f / 720 + x2 * (1.0f / 40320))));
}

/// Pairs first .. first + kPairs - 1 of a stream, cosines in `even`, sines in `odd`.
TUNEONCE_MULTIVERSION
void normal_pairs(std::uint64_t key, std::uint64_t first, float std, float* even, float* odd) {
  for (std::int64_t i = 0; i < kPairs; ++i) {
    const std::uint64_t bits = mix(key + (first + static_cast<std::uint64_t>(i)) * 0x9e3779b97f4a7c15ull);
    const auto radius_bits = static_cast<std::int32_t>(bits >> 40);             // 24 bits
    const auto angle_bits = static_cast<std::int32_t>((bits >> 8) & 0xffffff);  // 24 others
    const float u = (static_cast<float>(radius_bits) + 0.5f) * 0x1p-24f;        // in (0, 1)
    const float radius = std * std::sqrt(-2.0f * log_unit(u));
    // A quarter turn from 2 bits, the place in it, in (-1, 1), from the other 22.
    const std::int32_t quarter = angle_bits >> 22;
    const float place = static_cast<float>((angle_bits & 0x3fffff) - 0x200000) * 0x1p-21f;
    const float s = sin_eighth(place);
    const float c = cos_eighth(place);
    const float a = (quarter & 1) ? s : c;
    const float b = (quarter & 1) ? c : s;
    even[i] = radius * ((quarter & 2) ? -a : a);
    odd[i] = radius * (((quarter + 1) & 2) ? -b : b);
  }
}

}  // namespace

std::uint64_t tensor_key(std::uint64_t seed, std::string_view tensor) {
  std::uint64_t hash = mix(seed + 0x9e3779b97f4a7c15ull);
  for (const char letter : tensor)
    hash = mix((hash ^ static_cast<unsigned char>(letter)) + 0x9e3779b97f4a7c15ull);
  return hash;
}

void fill_normal(std::span<float> values, std::uint64_t key, double std) {
  std::array<float, kPairs> even, odd;
  const auto count = static_cast<std::int64_t>(values.size());
  for (std::int64_t start = 0; start < count; start += 2 * kPairs) {
    normal_pairs(key, static_cast<std::uint64_t>(start / 2), static_cast<float>(std), even.data(),
                 odd.data());
    const std::int64_t end = std::min(count, start + 2 * kPairs);
    for (std::int64_t i = start; i < end; ++i) {
      const auto pair = static_cast<std::size_t>((i - start) / 2);
      values[static_cast<std::size_t>(i)] = (i % 2 == 0 ? even : odd)[pair];
    }
  }
}

}  // namespace models
