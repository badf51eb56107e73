#include "orchestrator/owner_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <fmt/format.h>

#include "orchestrator/exit_code.h"

namespace orchestrator {
namespace {

/// Beside the file itself, whatever link the path goes through.
std::string lock_file(const std::filesystem::path& database) {
  return std::filesystem::weakly_canonical(database).string() + ".lock";
}

// Locks of the open file description: they end with the process, and can be asked for without being taken.
struct flock whole_file() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

bool is_of_the_dead(const std::string& owner) {
  int pid = 0;
  std::array<char, 256> host{};
  return std::sscanf(owner.c_str(), "pid %d on %255s", &pid, host.data()) == 2 &&
         host_name() == host.data() && ::kill(pid, 0) != 0 && errno == ESRCH;
}

/// REQUIRES: somebody holds the lock. He writes his name just after he has taken it: what an earlier owner
/// left, or nothing, is read again for a second.
std::string read_owner(int descriptor) {
  constexpr int kTries = 100;
  std::string owner;
  for (int i = 0; i < kTries; ++i) {
    if (i > 0) ::usleep(10'000);
    std::array<char, 512> text{};
    const auto size = ::pread(descriptor, text.data(), text.size(), 0);
    owner.assign(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
    if (!owner.empty() && !is_of_the_dead(owner)) return owner;
  }
  return owner.empty() ? "another process" : owner;
}

}  // namespace

OwnerLock::OwnerLock(const std::filesystem::path& database) {
  const auto file = lock_file(database);
  descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0)
    throw ExitError(kEnvironment, fmt::format("{}: cannot be created: {}", file, std::strerror(errno)));
  auto lock = whole_file();
  if (::fcntl(descriptor_, F_OFD_SETLK, &lock) != 0) {
    const int error = errno;
    const auto owner = read_owner(descriptor_);
    ::close(descriptor_);
    if (error == EAGAIN || error == EACCES)
      throw ExitError(
          kOwned,
          fmt::format("{}: a run is already working on it ({}); `tuneonce status` shows how far it is",
                      database.string(), owner));
    throw ExitError(kEnvironment, fmt::format("{}: cannot be locked: {}", file, std::strerror(error)));
  }
  const auto owner = fmt::format("pid {} on {}", ::getpid(), host_name());
  if (::ftruncate(descriptor_, 0) != 0 ||
      ::pwrite(descriptor_, owner.data(), owner.size(), 0) != static_cast<ssize_t>(owner.size())) {
    const int error = errno;
    ::close(descriptor_);
    throw ExitError(kEnvironment, fmt::format("{}: cannot be written: {}", file, std::strerror(error)));
  }
}

OwnerLock::~OwnerLock() { ::close(descriptor_); }

std::optional<std::string> OwnerLock::owner(const std::filesystem::path& database) {
  // A read lock would not meet other readers, but asking for a write lock needs a descriptor open for writing
  // only when it is taken; F_OFD_GETLK takes nothing.
  const int descriptor = ::open(lock_file(database).c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return std::nullopt;
  auto lock = whole_file();
  std::optional<std::string> owner;
  if (::fcntl(descriptor, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK) owner = read_owner(descriptor);
  ::close(descriptor);
  return owner;
}

std::string_view shared_file_system(const std::filesystem::path& folder) {
  struct statfs info {};
  if (::statfs(folder.c_str(), &info) != 0) return "";
  switch (static_cast<std::uint32_t>(info.f_type)) {
    case 0x6969: return "NFS";
    case 0xFF534D42:
    case 0xFE534D42: return "CIFS";
    case 0x0BD00BD0: return "Lustre";
    case 0x47504653: return "GPFS";
    case 0x00C36400: return "Ceph";
    case 0x01021997: return "9p";
    default: return "";
  }
}

}  // namespace orchestrator
