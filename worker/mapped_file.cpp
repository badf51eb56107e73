#include "worker/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "worker/data.h"

namespace worker {
namespace {

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

[[noreturn]] void fail(const std::filesystem::path& file, const char* why) {
  throw UserError("cannot read " + file.string() + ": " + why);
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& file) {
  const Descriptor input{::open(file.c_str(), O_RDONLY | O_CLOEXEC)};
  if (input.fd < 0) fail(file, std::strerror(errno));
  struct stat info = {};
  if (::fstat(input.fd, &info) != 0) fail(file, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail(file, "not a regular file");
  if (info.st_size == 0) return;  // an empty mapping is an error to mmap, not to us
  const auto size = static_cast<std::size_t>(info.st_size);
  void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, input.fd, 0);
  if (start == MAP_FAILED) fail(file, std::strerror(errno));
  bytes_ = {static_cast<const std::uint8_t*>(start), size};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::uint8_t*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

}  // namespace worker
