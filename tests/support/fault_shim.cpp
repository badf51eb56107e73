// Preloaded into a program (LD_PRELOAD), makes its system calls fail, or the program die, at a moment that
// the test chooses. $TUNEONCE_FAULT, words separated by blanks:
//   who=NAME      only in a program of this name (the workers inherit the variable, too)
//   call=A,B      which calls count: write (also pwrite and writev), sync (fsync, fdatasync), rename, unlink,
//                 truncate; default: all of them
//   path=TEXT     only files whose path contains TEXT
//   nth=N         the N-th of these calls in a process; default 0: none
//   do=kill       dies of SIGKILL before that call; do=killafter: after it; do=short: half of the bytes are
//                 written; do=ENOSPC, do=EIO: the call fails so
//   lasting=1     every later call fails, too
//   count=FILE    how many such calls there were is written here when the program ends
//   clock=FILE    the wall clock is off by the seconds that stand in this file now; the monotonic one is
//   right
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

// No allocation and no C++ library here: calls come from before main and after it.
struct Fault {
  bool armed = false, lasting = false;
  char calls[64] = "", path[256] = "", action[16] = "", count[256] = "", clock[256] = "";
  long nth = 0, file_system = 0;
};

const char* word(const char* text, const char* name, char* value, std::size_t size) {
  const std::size_t length = std::strlen(name);
  for (const char* at = text; at && *at; at = std::strchr(at, ' ') ? std::strchr(at, ' ') + 1 : nullptr) {
    if (std::strncmp(at, name, length) != 0 || at[length] != '=') continue;
    const char* begin = at + length + 1;
    const std::size_t end = std::strcspn(begin, " ");
    const std::size_t kept = end < size ? end : size - 1;
    std::memcpy(value, begin, kept);
    value[kept] = 0;
    return value;
  }
  return nullptr;
}

Fault read_fault() {
  Fault fault;
  const char* text = std::getenv("TUNEONCE_FAULT");
  if (!text) return fault;
  char who[64], number[24];
  if (word(text, "who", who, sizeof who) && std::strcmp(who, program_invocation_short_name) != 0)
    return fault;
  fault.armed = true;
  word(text, "call", fault.calls, sizeof fault.calls);
  word(text, "path", fault.path, sizeof fault.path);
  word(text, "do", fault.action, sizeof fault.action);
  word(text, "count", fault.count, sizeof fault.count);
  word(text, "clock", fault.clock, sizeof fault.clock);
  if (word(text, "nth", number, sizeof number)) fault.nth = std::atol(number);
  if (word(text, "statfs", number, sizeof number)) fault.file_system = std::strtol(number, nullptr, 16);
  fault.lasting = word(text, "lasting", number, sizeof number) != nullptr;
  return fault;
}

const Fault& fault() {
  static const Fault read = read_fault();
  return read;
}
std::atomic<long> num_calls{0};

template <class Function>
Function* real(Function*, const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

enum class Verdict { go_on, cut, fail, die_after };

Verdict judge(const char* call, const char* path) {
  const Fault& f = fault();
  if (!f.armed || (f.calls[0] && !std::strstr(f.calls, call)) || !path || !std::strstr(path, f.path))
    return Verdict::go_on;
  const long n = ++num_calls;
  if (f.nth == 0 || (f.lasting ? n < f.nth : n != f.nth)) return Verdict::go_on;
  if (std::strcmp(f.action, "kill") == 0) ::raise(SIGKILL);
  if (std::strcmp(f.action, "killafter") == 0) return Verdict::die_after;
  if (std::strcmp(f.action, "short") == 0) return Verdict::cut;
  errno = std::strcmp(f.action, "EIO") == 0 ? EIO : ENOSPC;
  return Verdict::fail;
}
Verdict judge(const char* call, int descriptor) {
  if (!fault().armed) return Verdict::go_on;
  char link[64], path[512];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t size = ::readlink(link, path, sizeof path - 1);
  if (size <= 0) return Verdict::go_on;
  path[size] = 0;
  return judge(call, path);
}

template <class Result>
Result finish(Verdict verdict, Result result) {
  if (verdict == Verdict::die_after) ::raise(SIGKILL);
  return result;
}

std::size_t allowed(Verdict verdict, std::size_t size) {
  return verdict == Verdict::cut && size > 1 ? size / 2 : size;
}

long clock_offset() {
  const char* file = fault().clock;
  if (!file[0]) return 0;
  char text[32] = "";
  const int descriptor = ::open(file, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return 0;
  const ssize_t size = ::read(descriptor, text, sizeof text - 1);
  ::close(descriptor);
  return size > 0 ? std::atol(text) : 0;
}

struct WriteCount {
  ~WriteCount() {
    if (!fault().count[0]) return;
    if (std::FILE* file = std::fopen(fault().count, "w")) {
      std::fprintf(file, "%ld\n", num_calls.load());
      std::fclose(file);
    }
  }
} write_count;

}  // namespace

extern "C" {

ssize_t write(int descriptor, const void* bytes, size_t size) {
  static auto* const call = real(&::write, "write");
  const auto verdict = judge("write", descriptor);
  if (verdict == Verdict::fail) return -1;
  return finish(verdict, call(descriptor, bytes, allowed(verdict, size)));
}
ssize_t pwrite(int descriptor, const void* bytes, size_t size, off_t offset) {
  static auto* const call = real(&::pwrite, "pwrite");
  const auto verdict = judge("write", descriptor);
  if (verdict == Verdict::fail) return -1;
  return finish(verdict, call(descriptor, bytes, allowed(verdict, size), offset));
}
ssize_t pwrite64(int descriptor, const void* bytes, size_t size, off64_t offset) {
  static auto* const call = real(&::pwrite64, "pwrite64");
  const auto verdict = judge("write", descriptor);
  if (verdict == Verdict::fail) return -1;
  return finish(verdict, call(descriptor, bytes, allowed(verdict, size), offset));
}
ssize_t writev(int descriptor, const iovec* pieces, int count) {
  static auto* const call = real(&::writev, "writev");
  const auto verdict = judge("write", descriptor);
  if (verdict == Verdict::fail) return -1;
  return finish(verdict, call(descriptor, pieces, verdict == Verdict::cut ? 1 : count));
}
int fsync(int descriptor) {
  static auto* const call = real(&::fsync, "fsync");
  const auto verdict = judge("sync", descriptor);
  return verdict == Verdict::fail ? -1 : finish(verdict, call(descriptor));
}
int fdatasync(int descriptor) {
  static auto* const call = real(&::fdatasync, "fdatasync");
  const auto verdict = judge("sync", descriptor);
  return verdict == Verdict::fail ? -1 : finish(verdict, call(descriptor));
}
int ftruncate(int descriptor, off_t size) noexcept {
  static auto* const call = real(&::ftruncate, "ftruncate");
  const auto verdict = judge("truncate", descriptor);
  return verdict == Verdict::fail ? -1 : finish(verdict, call(descriptor, size));
}
int ftruncate64(int descriptor, off64_t size) noexcept {
  static auto* const call = real(&::ftruncate64, "ftruncate64");
  const auto verdict = judge("truncate", descriptor);
  return verdict == Verdict::fail ? -1 : finish(verdict, call(descriptor, size));
}
int rename(const char* from, const char* to) noexcept {
  static auto* const call = real(&::rename, "rename");
  const auto verdict = judge("rename", to);
  return verdict == Verdict::fail ? -1 : finish(verdict, call(from, to));
}
int unlink(const char* path) noexcept {
  static auto* const call = real(&::unlink, "unlink");
  const auto verdict = judge("unlink", path);
  return verdict == Verdict::fail ? -1 : finish(verdict, call(path));
}
int remove(const char* path) noexcept {
  static auto* const call = real(&::unlink, "remove");  // the same type
  const auto verdict = judge("unlink", path);
  return verdict == Verdict::fail ? -1 : finish(verdict, call(path));
}

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static auto* const call = real(&::clock_gettime, "clock_gettime");
  const int result = call(clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
    time->tv_sec += clock_offset();
  return result;
}
int gettimeofday(timeval* time, void* zone) noexcept {
  static auto* const call = real(&::gettimeofday, "gettimeofday");
  const int result = call(time, zone);
  if (result == 0) time->tv_sec += clock_offset();
  return result;
}
time_t time(time_t* result) noexcept {
  timespec now;
  ::clock_gettime(CLOCK_REALTIME, &now);
  if (result) *result = now.tv_sec;
  return now.tv_sec;
}

int statfs(const char* path, struct statfs* info) noexcept {
  static auto* const call = real(&::statfs, "statfs");
  const int result = call(path, info);
  if (result == 0 && fault().file_system != 0) info->f_type = fault().file_system;
  return result;
}

}  // extern "C"
