#include "worker/idx.h"

#include <cstdio>
#include <memory>
#include <span>
#include <string>

#ifdef TUNEONCE_ZLIB
#include <zlib.h>
#endif

#include "worker/data.h"
#include "worker/mapped_file.h"

namespace worker {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kHeaderBytes = 16;
constexpr std::uint32_t kImagesMagic = 0x803, kLabelsMagic = 0x801;

#ifdef TUNEONCE_ZLIB
std::vector<std::uint8_t> unpacked(const fs::path& file) {
  const auto refuse = [&] { throw UserError(file.string() + ": is not a sound gzip file, or cut short"); };
  constexpr unsigned kChunk = 1 << 20;
  gzFile input = gzopen(file.c_str(), "rb");
  if (!input) throw UserError(file.string() + ": cannot be opened");
  std::vector<std::uint8_t> bytes;
  int read = 0;
  do {
    bytes.resize(bytes.size() + kChunk);
    read = gzread(input, bytes.data() + bytes.size() - kChunk, kChunk);
    bytes.resize(bytes.size() - kChunk + static_cast<std::size_t>(read > 0 ? read : 0));
  } while (read > 0);
  const bool is_gzip = gzdirect(input) == 0;
  const bool whole = gzclose_r(input) == Z_OK;  // not so where the file ends within the stream
  if (read < 0 || !is_gzip || !whole) refuse();
  return bytes;
}
#else
std::vector<std::uint8_t> unpacked(const fs::path& file) {
  throw UserError(file.string() + ": this worker was built without zlib; unpack it with gunzip");
}
#endif

std::vector<std::uint8_t> contents(const fs::path& file) {
  const MappedFile mapped(file);  // also says what is wrong with a file that cannot be read
  if (file.extension() == ".gz") return unpacked(file);
  return {mapped.bytes().begin(), mapped.bytes().end()};
}

std::uint32_t big_endian(std::span<const std::uint8_t> bytes, std::size_t word) {
  std::uint32_t value = 0;
  for (const auto byte : bytes.subspan(4 * word, 4)) value = value << 8 | byte;
  return value;
}

std::string hex(std::uint32_t value) {
  char text[11];
  std::snprintf(text, sizeof text, "0x%08x", value);
  return text;
}

}  // namespace

IdxImages read_idx_images(const fs::path& file) {
  const auto refuse = [&](const std::string& what) { throw UserError(file.string() + ": " + what); };
  std::vector<std::uint8_t> bytes = contents(file);
  if (bytes.size() < 4) refuse("is not an idx file: " + std::to_string(bytes.size()) + " bytes");
  const std::uint32_t magic = big_endian(bytes, 0);
  if (magic == kLabelsMagic) refuse("holds labels (idx1-ubyte); images are idx3-ubyte files");
  if (magic >> 16 != 0) refuse("is not an idx file: it begins with " + hex(magic) + " instead of 0x00000803");
  if (magic != kImagesMagic)
    refuse("is an idx file of another kind (" + hex(magic) + "); images are idx3-ubyte, 0x00000803");
  if (bytes.size() < kHeaderBytes) refuse("is cut short within its header");
  IdxImages images{big_endian(bytes, 1), big_endian(bytes, 2), big_endian(bytes, 3), {}};
  const std::string size = std::to_string(images.count) + " images of " + std::to_string(images.rows) + "x" +
                           std::to_string(images.columns);
  if (images.count == 0 || images.rows == 0 || images.columns == 0) refuse("has no pixels: " + size);
  const auto have = bytes.size() - kHeaderBytes;
  const auto want = static_cast<unsigned __int128>(images.count) *
                    static_cast<unsigned __int128>(images.rows * images.columns);
  if (have != want)
    refuse(std::string(have < want ? "is cut short" : "is too long") + ": its header says " + size +
           ", and " + std::to_string(have) + " bytes follow");
  bytes.erase(bytes.begin(), bytes.begin() + kHeaderBytes);
  images.pixels = std::move(bytes);
  return images;
}

}  // namespace worker
