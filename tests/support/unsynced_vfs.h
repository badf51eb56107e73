#pragma once

#include <cstdint>
#include <string>

/// An SQLite VFS between SQLite and the disk that remembers what has not been synced yet, so that a test can have the
/// power cut: written bytes that were not synced are then there, half there, or not, each as a seeded coin says.
/// It can also make one call fail. As SQLite's own crash tests do.
namespace test {

enum class Call { none, write, short_write, sync };

class UnsyncedVfs {
 public:
  /// Registered under `name()` and as the default while it lives; there can be one at a time.
  UnsyncedVfs();
  ~UnsyncedVfs();
  UnsyncedVfs(const UnsyncedVfs&) = delete;

  /// The power goes at the call after `calls` more writes and syncs: that one and every later one do nothing.
  void cut_after(std::int64_t calls);
  bool is_cut() const;
  /// Leaves in the files what the disk holds after the cut. REQUIRES: nobody has them open any more.
  void lose_unsynced(std::uint64_t seed);

  /// The `nth` (1, 2, ...) call of this kind from now on fails, once. Call::none: none does.
  void fail(Call call, std::int64_t nth);
  bool has_failed() const;
  std::int64_t num_calls() const;
};

}  // namespace test
