#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace orchestrator {

/// A PNG file of width x height pixels, each `channels` bytes side by side: 1 (grey) or 3 (red, green, blue).
/// REQUIRES: as many bytes as that.
std::string png(std::int64_t width, std::int64_t height, std::int64_t channels,
                std::span<const std::uint8_t> pixels);

/// RFC 4648, with padding.
std::string base64(std::string_view bytes);

}  // namespace orchestrator
