#include "tests/support/unsynced_vfs.h"

#include <sqlite3.h>

#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <stdexcept>
#include <vector>

namespace test {
namespace {

struct Write {
  sqlite3_int64 at;
  std::string bytes;  // none: the file is cut to `at` bytes
  bool truncates = false;
};
/// A file as the disk has it, and what was written since its last sync.
struct OnDisk {
  std::string synced;
  std::vector<Write> unsynced;
};

struct State {
  std::map<std::string, OnDisk> files;
  std::int64_t calls = 0, cut_at = -1, fail_in = 0;
  Call failing = Call::none;
  bool failed = false;
} state;

struct File {
  sqlite3_file base;
  sqlite3_file* real;
  char path[1024];
};

bool watched(int flags) {
  return (flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)) != 0;
}
sqlite3_file* real(sqlite3_file* file) { return reinterpret_cast<File*>(file)->real; }
OnDisk* on_disk(sqlite3_file* file) {
  const auto it = state.files.find(reinterpret_cast<File*>(file)->path);
  return it == state.files.end() ? nullptr : &it->second;
}
/// Counts a call; true when the power is gone.
bool is_gone() {
  const bool gone = state.cut_at >= 0 && state.calls >= state.cut_at;
  ++state.calls;
  return gone;
}
bool fails(Call call) {
  if (state.failing != call || state.failed || --state.fail_in > 0) return false;
  state.failed = true;
  return true;
}

int close(sqlite3_file* file) { return real(file)->pMethods->xClose(real(file)); }
int read(sqlite3_file* file, void* bytes, int size, sqlite3_int64 at) {
  return real(file)->pMethods->xRead(real(file), bytes, size, at);
}
int write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 at) {
  auto* disk = on_disk(file);
  if (!disk) return real(file)->pMethods->xWrite(real(file), bytes, size, at);
  if (is_gone()) return SQLITE_IOERR_WRITE;
  if (fails(Call::write)) return SQLITE_IOERR_WRITE;
  if (fails(Call::short_write)) {
    disk->unsynced.push_back({at, std::string(static_cast<const char*>(bytes), static_cast<std::size_t>(size / 2))});
    real(file)->pMethods->xWrite(real(file), bytes, size / 2, at);
    return SQLITE_FULL;
  }
  disk->unsynced.push_back({at, std::string(static_cast<const char*>(bytes), static_cast<std::size_t>(size))});
  return real(file)->pMethods->xWrite(real(file), bytes, size, at);
}
int truncate(sqlite3_file* file, sqlite3_int64 size) {
  auto* disk = on_disk(file);
  if (disk && is_gone()) return SQLITE_IOERR_TRUNCATE;
  if (disk) disk->unsynced.push_back({size, "", true});
  return real(file)->pMethods->xTruncate(real(file), size);
}
void put(std::string& content, const Write& one) {
  const auto at = static_cast<std::size_t>(one.at);
  if (one.truncates) {
    content.resize(std::min(content.size(), at));
    return;
  }
  if (content.size() < at + one.bytes.size()) content.resize(at + one.bytes.size());
  content.replace(at, one.bytes.size(), one.bytes);
}
int sync(sqlite3_file* file, int) {
  auto* disk = on_disk(file);
  if (!disk) return SQLITE_OK;  // a real one would only take time: nobody pulls a plug here
  if (is_gone()) return SQLITE_IOERR_FSYNC;
  if (fails(Call::sync)) {
    // As Linux does: the pages are marked clean although they never got there.
    disk->unsynced.clear();
    return SQLITE_IOERR_FSYNC;
  }
  for (const auto& one : disk->unsynced) put(disk->synced, one);
  disk->unsynced.clear();
  return SQLITE_OK;
}
int file_size(sqlite3_file* file, sqlite3_int64* size) { return real(file)->pMethods->xFileSize(real(file), size); }
int lock(sqlite3_file* file, int kind) { return real(file)->pMethods->xLock(real(file), kind); }
int unlock(sqlite3_file* file, int kind) { return real(file)->pMethods->xUnlock(real(file), kind); }
int check_reserved(sqlite3_file* file, int* held) { return real(file)->pMethods->xCheckReservedLock(real(file), held); }
int control(sqlite3_file* file, int op, void* argument) {
  return real(file)->pMethods->xFileControl(real(file), op, argument);
}
int sector_size(sqlite3_file*) { return 512; }
int characteristics(sqlite3_file*) { return 0; }  // writes may come in any order, half, or not
int shm_map(sqlite3_file* file, int page, int size, int extend, void volatile** at) {
  return real(file)->pMethods->xShmMap(real(file), page, size, extend, at);
}
int shm_lock(sqlite3_file* file, int offset, int n, int flags) {
  return real(file)->pMethods->xShmLock(real(file), offset, n, flags);
}
void shm_barrier(sqlite3_file* file) { real(file)->pMethods->xShmBarrier(real(file)); }
int shm_unmap(sqlite3_file* file, int remove) { return real(file)->pMethods->xShmUnmap(real(file), remove); }

constexpr sqlite3_io_methods kMethods = {2,           close,      read,         write,          truncate,
                                         sync,        file_size,  lock,         unlock,         check_reserved,
                                         control,     sector_size, characteristics, shm_map,    shm_lock,
                                         shm_barrier, shm_unmap,  nullptr,      nullptr};

sqlite3_vfs* base() { return static_cast<sqlite3_vfs*>(sqlite3_vfs_find("test-unsynced")->pAppData); }

int open(sqlite3_vfs*, const char* path, sqlite3_file* file, int flags, int* out) {
  auto* mine = reinterpret_cast<File*>(file);
  mine->base.pMethods = nullptr;
  mine->real = reinterpret_cast<sqlite3_file*>(mine + 1);
  std::memset(mine->path, 0, sizeof mine->path);
  if (path) std::strncpy(mine->path, path, sizeof mine->path - 1);
  const int code = base()->xOpen(base(), path, mine->real, flags, out);
  if (code != SQLITE_OK) return code;
  mine->base.pMethods = &kMethods;
  if (path && watched(flags) && !state.files.contains(path)) {
    std::ifstream stream(path, std::ios::binary);
    state.files[path].synced = {std::istreambuf_iterator<char>(stream), {}};
  }
  return SQLITE_OK;
}
int remove(sqlite3_vfs*, const char* path, int sync_folder) {
  if (state.files.contains(path)) {
    if (is_gone()) return SQLITE_IOERR_DELETE;
    state.files.erase(path);
  }
  return base()->xDelete(base(), path, sync_folder);
}

sqlite3_vfs vfs;

}  // namespace

UnsyncedVfs::UnsyncedVfs() {
  auto* standard = sqlite3_vfs_find(nullptr);
  if (std::strcmp(standard->zName, "test-unsynced") == 0) throw std::logic_error("two UnsyncedVfs at a time");
  state = {};
  vfs = *standard;
  vfs.zName = "test-unsynced";
  vfs.pNext = nullptr;
  vfs.pAppData = standard;
  vfs.szOsFile = static_cast<int>(sizeof(File)) + standard->szOsFile;
  vfs.xOpen = open;
  vfs.xDelete = remove;
  sqlite3_vfs_register(&vfs, 1);
}
UnsyncedVfs::~UnsyncedVfs() {
  auto* standard = base();
  sqlite3_vfs_unregister(&vfs);
  sqlite3_vfs_register(standard, 1);
}
void UnsyncedVfs::cut_after(std::int64_t calls) { state.cut_at = state.calls + calls; }
bool UnsyncedVfs::is_cut() const { return state.cut_at >= 0 && state.calls > state.cut_at; }
void UnsyncedVfs::fail(Call call, std::int64_t nth) {
  state.failing = call;
  state.fail_in = nth;
  state.failed = false;
}
bool UnsyncedVfs::has_failed() const { return state.failed; }
std::int64_t UnsyncedVfs::num_calls() const { return state.calls; }

void UnsyncedVfs::lose_unsynced(std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  for (auto& [path, disk] : state.files) {
    auto content = disk.synced;
    for (auto one : disk.unsynced) {
      const auto coin = generator() % 4;
      if (coin < 2) continue;  // lost, although a later one may have got there
      if (coin == 2 && !one.truncates) one.bytes.resize(one.bytes.size() / 512 / 2 * 512);  // some sectors of it
      put(content, one);
    }
    std::ofstream(path, std::ios::binary) << content;
  }
  state = {};
}

}  // namespace test
