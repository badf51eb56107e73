#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

namespace worker {

/// A whole file, read-only, in memory for as long as this lives. Throws UserError with the file's name.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  std::span<const std::uint8_t> bytes() const { return bytes_; }

 private:
  std::span<const std::uint8_t> bytes_;
};

}  // namespace worker
