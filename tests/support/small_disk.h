#pragma once

#include <sched.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>

#include <fmt/format.h>

#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"

namespace test {

/// A disk of some KiB in memory, seen by this process and its children only; gone with this object. Where
/// mounting is not allowed, problem() says so.
class SmallDisk {
 public:
  explicit SmallDisk(int kibibytes) {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("small", folder_.path().c_str(), "tmpfs", 0, options(kibibytes).c_str()) != 0)
      problem_ = std::strerror(errno);
  }
  ~SmallDisk() {
    if (problem_.empty()) ::umount2(folder_.path().c_str(), MNT_DETACH);
  }
  const std::string& problem() const { return problem_; }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }

  void grow(int kibibytes) { remount(0, kibibytes); }
  void make_read_only(int kibibytes) { remount(MS_RDONLY, kibibytes); }

 private:
  static std::string options(int kibibytes) { return fmt::format("size={}k", kibibytes); }
  void remount(unsigned long flags, int kibibytes) {
    REQUIRE(::mount("small", folder_.path().c_str(), "tmpfs", MS_REMOUNT | flags,
                    options(kibibytes).c_str()) == 0);
  }

  TemporaryFolder folder_;
  std::string problem_;
};

}  // namespace test

/// Ends the test here, visibly, where a disk cannot be mounted; the calls that fail are tested all the same.
#define SKIP_UNLESS_MOUNTED(disk)                                                         \
  if (!(disk).problem().empty()) {                                                        \
    WARN("skipped: no disk of its own can be mounted here (" << (disk).problem() << ")"); \
    return;                                                                               \
  }
