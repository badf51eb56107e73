#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

namespace SQLite {
class Database;
class Statement;
}  // namespace SQLite

/// What SQLiteCpp leaves to us: whose file is it, what kind of trouble was that, undo by default.
namespace db {

/// "1TUN" in the file's header (offset 68): the file is ours.
inline constexpr std::int32_t kApplicationId = 0x3154554E;
/// Number of the schema (offset 60). A newer one is refused, an older one migrated by whoever may write.
inline constexpr std::int32_t kSchemaVersion = 4;
/// kSchemas[v] makes version v + 1 of version v; a new database begins empty at version 0. What a version
/// adds stands in its file (schema_4.sql) and nowhere else.
extern const std::array<const char*, kSchemaVersion> kSchemas;

enum class Trouble {
  foreign,      // not a database, or one of another program
  newer,        // a newer schema than this program knows
  corrupt,      // damaged
  environment,  // missing, read-only, full disk, no permission
  query,        // the caller's SQL is wrong or not allowed
  state,        // the row does not allow it: an unknown trial, one that has ended, another study's database
  owned,        // a newer owner has taken the database over
};

/// what() names the file and what would help.
struct StoreError : std::runtime_error {
  StoreError(Trouble kind, const std::string& message) : std::runtime_error(message), trouble(kind) {}
  Trouble trouble;
};

/// Whose file it is, from its first 100 bytes and without opening it as a database, so that nothing of it or
/// beside it is touched. False where there is no file or an empty one. Throws StoreError for everything that
/// is not a database of this program and schema (or an older one).
bool is_our_database(const std::filesystem::path& file);

/// Creates an empty database under a temporary name and renames it: it is there whole or not at all.
void create_database(const std::filesystem::path& file);

/// Brings a database of an older schema up to this one, after a copy of it as FILE.v1.bak (which replaces an
/// older copy). Either all of it happens or none. Does nothing to one that is up to date.
void migrate_database(const std::filesystem::path& file);
/// Number of an open database's schema.
std::int32_t schema_version(SQLite::Database& database);

std::unique_ptr<SQLite::Database> open_writer(const std::filesystem::path& file);
/// Sees everything committed, also while a writer is at work, and can change nothing. Throws StoreError,
/// Trouble::corrupt, where the log (FILE-wal) that the file counts on is missing.
std::unique_ptr<SQLite::Database> open_reader(const std::filesystem::path& file);

/// The exception in flight, an SQLite one, as a StoreError about `file`. Anything else is thrown on.
[[noreturn]] void rethrow_as_store_error(const std::filesystem::path& file);

/// Runs `work` and turns SQLite's exceptions into StoreErrors about `file`.
template <class Work>
auto guarded(const std::filesystem::path& file, Work&& work) {
  try {
    return work();
  } catch (...) {
    rethrow_as_store_error(file);
  }
}

/// UTC, "2026-11-22 01:30:00.123".
std::string now_utc();
std::string host_name();

}  // namespace db
