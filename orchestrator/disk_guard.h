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

  /// What is full, for people; nothing while there is room. Free space is asked for each time; files are
  /// counted as often as a hundredth of the time allows, every one to ten seconds.
  std::optional<std::string> trouble();
  /// So many bytes more were written. True when they may have taken the last room: trouble() counts then at
  /// once.
  bool has_grown(std::uintmax_t bytes);

 private:
  std::optional<std::string> count();

  sweeps::DiskSpec limits_;
  std::filesystem::path database_, folder_;
  std::optional<std::chrono::steady_clock::time_point> count_at_;  // the next time; absent: at once
  std::uintmax_t room_ = 0, grown_ = 0;  // bytes: left when counted, written since then
  std::optional<std::string> found_;
};

/// Bytes of a database with the files beside it that belong to it; of all files in a folder. 0 where there are none.
std::uintmax_t database_bytes(const std::filesystem::path& database);
std::uintmax_t folder_bytes(const std::filesystem::path& folder);

/// Whether a failure's text is that of a full disk or an exhausted quota.
bool says_disk_full(const std::string& message);

}  // namespace orchestrator
