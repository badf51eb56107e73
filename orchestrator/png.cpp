#include "orchestrator/png.h"

#include <zlib.h>

#include <stdexcept>

namespace orchestrator {
namespace {

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
  return bytes;
}

std::string chunk(std::string_view type, std::string_view data) {
  const std::string body = std::string(type) + std::string(data);
  const auto check = crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
  return big_endian(static_cast<std::uint32_t>(data.size())) + body +
         big_endian(static_cast<std::uint32_t>(check));
}

std::string deflated(const std::string& bytes) {
  std::string packed(compressBound(bytes.size()), '\0');
  uLongf size = packed.size();
  if (compress2(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(bytes.data()),
                bytes.size(), Z_BEST_COMPRESSION) != Z_OK)
    throw std::runtime_error("png: zlib has no memory");
  packed.resize(size);
  return packed;
}

}  // namespace

std::string png(std::int64_t width, std::int64_t height, std::int64_t channels,
                std::span<const std::uint8_t> pixels) {
  if ((channels != 1 && channels != 3) || width < 1 || height < 1 ||
      pixels.size() != static_cast<std::size_t>(width * height * channels))
    throw std::logic_error("png: the pixels do not fit the size");
  const auto row_bytes = static_cast<std::size_t>(width * channels);
  std::string rows;
  for (std::size_t at = 0; at < pixels.size(); at += row_bytes) {
    rows += '\0';  // no filter
    rows.append(reinterpret_cast<const char*>(pixels.data() + at), row_bytes);
  }
  std::string header =
      big_endian(static_cast<std::uint32_t>(width)) + big_endian(static_cast<std::uint32_t>(height));
  header += {8, static_cast<char>(channels == 3 ? 2 : 0), 0, 0, 0};  // bits, grey or RGB, deflate, -, -
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", header) + chunk("IDAT", deflated(rows)) + chunk("IEND", "");
}

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    const auto group = bytes.substr(at, 3);
    std::uint32_t bits = 0;
    for (std::size_t i = 0; i < 3; ++i)
      bits = bits << 8 | (i < group.size() ? static_cast<unsigned char>(group[i]) : 0u);
    for (std::size_t i = 0; i < 4; ++i) text += i <= group.size() ? kDigits[bits >> (18 - 6 * i) & 63] : '=';
  }
  return text;
}

}  // namespace orchestrator
