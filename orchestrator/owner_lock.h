#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "db/sqlite.h"

namespace orchestrator {

/// At most one run per database: a lock on `<database>.lock`, which holds the owner's pid and host and which
/// the kernel lets go when the owner ends, however it ends. The file stays; it means nothing without the
/// lock.
class OwnerLock {
 public:
  /// Throws ExitError: kOwned naming the owner, kEnvironment when the file cannot be made.
  explicit OwnerLock(const std::filesystem::path& database);
  ~OwnerLock();
  OwnerLock(const OwnerLock&) = delete;
  OwnerLock& operator=(const OwnerLock&) = delete;

  /// "pid 123 on host" while a run owns the database; asks without taking the lock or making a file.
  static std::optional<std::string> owner(const std::filesystem::path& database);

 private:
  int descriptor_ = -1;
};

/// Name of the file system that a folder is on if other machines may write to it, too (NFS, Lustre); empty for a
/// local one. There, locks and SQLite's log hold less than they promise.
std::string_view shared_file_system(const std::filesystem::path& folder);

using db::host_name;

}  // namespace orchestrator
