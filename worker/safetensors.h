#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace worker {

/// The safetensors format: 8-byte little-endian header length, JSON header (dtype, shape, data_offsets;
/// `__metadata__` holds text), then the bytes of all tensors, contiguous and complete.
/// Ours carry an XXH3-128 in `__metadata__.xxh3` over the whole file (taken with its own digits as zeros), so
/// that any flipped bit or cut is noticed. Any reader of safetensors can read our files.

enum class Dtype { f32, f64, i64, u8 };
std::size_t bytes_of(Dtype dtype);

struct SafeTensor {
  Dtype dtype = Dtype::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
};

/// A file that is not what it should be; what() says where it breaks.
struct SafetensorsError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Written beside, synced, renamed, folder synced: afterwards `file` is the old one or the new one, whole. With
/// `keep_as`, the old one gets that name just before, and between the two only that name has one.
/// Returns the checksum. Throws std::runtime_error with the system's reason (a full disk, a read-only
/// folder).
std::string write_safetensors(const std::filesystem::path& file,
                              const std::map<std::string, SafeTensor>& tensors,
                              std::map<std::string, std::string> metadata,
                              const std::filesystem::path& keep_as = {});

/// A whole file in memory. The file is not trusted: lengths, offsets, overlaps, products that overflow and
/// the checksum are looked at before anything is used. Throws SafetensorsError.
class Safetensors {
 public:
  explicit Safetensors(std::vector<std::byte> bytes);
  Safetensors(Safetensors&&) = default;  // a copy would look into the bytes of the first
  static Safetensors read(const std::filesystem::path& file);

  /// Throws SafetensorsError where it is absent.
  const SafeTensor& at(const std::string& name) const;
  const std::string& metadata(const std::string& name) const;
  const std::map<std::string, SafeTensor>& tensors() const { return tensors_; }

 private:
  std::vector<std::byte> bytes_;
  std::map<std::string, SafeTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace worker
