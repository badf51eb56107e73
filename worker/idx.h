#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace worker {

/// Grey images as MNIST and its kin store them.
struct IdxImages {
  std::int64_t count = 0;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<std::uint8_t> pixels;  // [count, rows, columns]
};

/// An idx3-ubyte file: big-endian magic 0x00000803, count, rows, columns, then one byte a pixel. A name that
/// ends in .gz is unpacked. Throws UserError naming the file: not an idx file, labels or another kind of idx
/// file, truncated or too long, no images, not a sound gzip file.
IdxImages read_idx_images(const std::filesystem::path& file);

}  // namespace worker
