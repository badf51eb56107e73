#pragma once

#include <cstdint>
#include <vector>

namespace sweeps {

/// Pictures that a trained diffusion model drew, and held-out ones to hold beside them. Bytes, row by row:
/// [count, channels, height, width], the same count of channels and size in both.
struct SampleSheet {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::int64_t channels = 0;
  std::vector<std::uint8_t> drawn;
  std::vector<std::uint8_t> real;
  bool operator==(const SampleSheet&) const = default;

  std::int64_t picture_bytes() const { return width * height * channels; }
};

/// Whether there is a drawn picture and both hold whole pictures.
inline bool is_sound(const SampleSheet& sheet) {
  constexpr std::int64_t kLargestSide = 1 << 14;
  for (const auto size : {sheet.width, sheet.height, sheet.channels})
    if (size < 1 || size > kLargestSide) return false;
  const auto bytes = static_cast<std::size_t>(sheet.picture_bytes());
  return !sheet.drawn.empty() && sheet.drawn.size() % bytes == 0 && sheet.real.size() % bytes == 0;
}

}  // namespace sweeps
