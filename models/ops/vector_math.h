#pragma once

#include <bit>
#include <cstdint>

#include "models/ops/multiversion.h"

namespace models::ops {

/// e^x within 2 units in the last place for x in [-87, 88]; below and above as at the end of that range. NaN
/// stays NaN. Branch-free, so that loops over it become vector code.
TUNEONCE_INLINE float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float shifted = x * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts (Cody and Waite)
  const float p =
      1.0f + r * (1.0f + r * (0.5f + r * (0.166666667f +
                                          r * (0.0416666667f + r * (0.00833333333f + r * 0.00138888889f)))));
  const std::uint32_t exponent = std::bit_cast<std::uint32_t>(shifted) + (127u - 0x4b400000u);
  return p * std::bit_cast<float>(exponent << 23);
}

}  // namespace models::ops
