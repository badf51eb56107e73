#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "sweeps/study.h"

namespace orchestrator {

/// Watches what a study takes of the disk, and what it leaves.
class DiskGuard {
 public:
  /// `folder`: of the study's logs/ and checkpoints/; need not be there yet.
  DiskGuard(const sweeps::DiskSpec& limits, std::filesystem::path database, std::filesystem::path folder);

  /// What is full, for people; nothing while there is room. Files are counted at most every ten seconds, free space
  /// each time.
  std::optional<std::string> trouble();

 private:
  std::optional<std::string> count() const;

  sweeps::DiskSpec limits_;
  std::filesystem::path database_, folder_;
  std::optional<std::chrono::steady_clock::time_point> counted_;
  std::optional<std::string> found_;
};

/// Bytes of a database with the files beside it that belong to it; of all files in a folder. 0 where there are none.
std::uintmax_t database_bytes(const std::filesystem::path& database);
std::uintmax_t folder_bytes(const std::filesystem::path& folder);

/// Whether a failure's text is that of a full disk or an exhausted quota.
bool says_disk_full(const std::string& message);

}  // namespace orchestrator
