#include "orchestrator/disk_guard.h"

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "sweeps/settings.h"

namespace orchestrator {
namespace {

namespace fs = std::filesystem;

std::int64_t size_of(const fs::path& file) {
  std::error_code error;
  const auto size = fs::file_size(file, error);
  return error ? 0 : static_cast<std::int64_t>(size);
}

std::int64_t size_of_folder(const fs::path& folder) {
  std::error_code error;
  std::int64_t bytes = 0;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    bytes += size_of(it->path());
  return bytes;
}

/// For people: three digits.
std::string short_size(std::int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= std::int64_t{1} << 30) return fmt::format("{:.3g} GiB", value / 0x1p30);
  if (bytes >= 1 << 20) return fmt::format("{:.3g} MiB", value / 0x1p20);
  return fmt::format("{:.3g} KiB", value / 0x1p10);
}

}  // namespace

DiskGuard::DiskGuard(const sweeps::DiskSpec& limits, fs::path database, fs::path folder)
    : limits_(limits), database_(std::move(database)), folder_(std::move(folder)) {}

std::optional<std::string> DiskGuard::count() const {
  const auto checkpoints = size_of_folder(folder_ / "checkpoints");
  if (checkpoints > limits_.checkpoints)
    return fmt::format("{}: holds {}, more than [disk] checkpoints = \"{}\"", (folder_ / "checkpoints").string(),
                       short_size(checkpoints), sweeps::bytes_text(limits_.checkpoints));
  auto study = checkpoints + size_of_folder(folder_ / "logs");
  for (const char* suffix : {"", "-wal", "-shm"}) study += size_of(database_.string() + suffix);
  if (study > limits_.study)
    return fmt::format("{}: takes {} with its logs and checkpoints, more than [disk] study = \"{}\"",
                       database_.string(), short_size(study), sweeps::bytes_text(limits_.study));
  return std::nullopt;
}

std::optional<std::string> DiskGuard::trouble() {
  const auto place = fs::absolute(database_).parent_path();
  std::error_code error;
  const auto space = fs::space(place, error);
  if (!error && space.capacity > 0 && static_cast<std::int64_t>(space.available) < limits_.keep_free)
    return fmt::format("{}: the disk is full: {} free, less than [disk] keep_free = \"{}\"", place.string(),
                       short_size(static_cast<std::int64_t>(space.available)),
                       sweeps::bytes_text(limits_.keep_free));
  const auto now = std::chrono::steady_clock::now();
  if (!counted_ || now - *counted_ > std::chrono::seconds(10)) {
    found_ = count();
    counted_ = now;
  }
  return found_;
}

bool says_disk_full(const std::string& message) {
  for (const int error : {ENOSPC, EDQUOT})
    if (message.find(std::strerror(error)) != std::string::npos) return true;
  return false;
}

}  // namespace orchestrator
