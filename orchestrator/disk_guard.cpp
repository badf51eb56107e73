#include "orchestrator/disk_guard.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "orchestrator/output.h"
#include "sweeps/settings.h"

namespace orchestrator {
namespace {

namespace fs = std::filesystem;

std::uintmax_t size_of(const fs::path& file) {
  std::error_code error;
  const auto size = fs::file_size(file, error);
  return error ? 0 : size;
}

}  // namespace

std::uintmax_t database_bytes(const fs::path& database) {
  std::uintmax_t bytes = 0;
  for (const char* suffix : {"", "-wal", "-shm"}) bytes += size_of(database.string() + suffix);
  return bytes;
}

std::uintmax_t folder_bytes(const fs::path& folder) {
  std::error_code error;
  std::uintmax_t bytes = 0;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    bytes += size_of(it->path());
  return bytes;
}

DiskGuard::DiskGuard(const sweeps::DiskSpec& limits, fs::path database, fs::path folder)
    : limits_(limits), database_(std::move(database)), folder_(std::move(folder)) {}

std::optional<std::string> DiskGuard::count() {
  const auto checkpoints = folder_bytes(folder_ / "checkpoints");
  if (checkpoints > static_cast<std::uintmax_t>(limits_.checkpoints))
    return fmt::format("{}: holds {}, more than [disk] checkpoints = \"{}\"", (folder_ / "checkpoints").string(),
                       short_size(checkpoints), sweeps::bytes_text(limits_.checkpoints));
  const auto study = database_bytes(database_) + folder_bytes(folder_);
  if (study > static_cast<std::uintmax_t>(limits_.study))
    return fmt::format("{}: takes {} with its logs and checkpoints, more than [disk] study = \"{}\"",
                       database_.string(), short_size(study), sweeps::bytes_text(limits_.study));
  room_ = static_cast<std::uintmax_t>(limits_.study) - study;
  grown_ = 0;
  return std::nullopt;
}

std::optional<std::string> DiskGuard::trouble() {
  const auto place = fs::absolute(database_).parent_path();
  std::error_code error;
  const auto space = fs::space(place, error);
  if (!error && space.capacity > 0 && space.available < static_cast<std::uintmax_t>(limits_.keep_free))
    return fmt::format("{}: the disk is full: {} free, less than [disk] keep_free = \"{}\"", place.string(),
                       short_size(space.available),
                       sweeps::bytes_text(limits_.keep_free));
  const auto now = std::chrono::steady_clock::now();
  if (!count_at_ || now >= *count_at_) {
    found_ = count();
    const auto end = std::chrono::steady_clock::now();
    count_at_ = end + std::clamp<std::chrono::steady_clock::duration>(
                          100 * (end - now), std::chrono::seconds(1), std::chrono::seconds(10));
  }
  return found_;
}

bool DiskGuard::has_grown(std::uintmax_t bytes) {
  constexpr std::uintmax_t kStep = 64 << 10;  // a count for less would cost more than it tells
  grown_ += bytes;
  if (grown_ < std::max(room_, kStep)) return false;
  count_at_.reset();
  return true;
}

bool says_disk_full(const std::string& message) {
  for (const int error : {ENOSPC, EDQUOT})
    if (message.find(std::strerror(error)) != std::string::npos) return true;
  return false;
}

}  // namespace orchestrator
