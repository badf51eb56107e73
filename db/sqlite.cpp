#include "db/sqlite.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <fstream>
#include <map>
#include <mutex>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/chrono.h>
#include <fmt/format.h>

#include "db/health.h"

namespace db {
namespace {

namespace fs = std::filesystem;

constexpr int kBusyMilliseconds = 10'000;
constexpr std::size_t kHeaderBytes = 100;
constexpr std::int32_t kLastPlausibleVersion = 9999;
constexpr std::string_view kMagic{"SQLite format 3\0", 16};

std::int32_t big_endian(const char* bytes) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return static_cast<std::int32_t>(value);
}

/// Descriptor of a file or folder for fsync.
void sync_path(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;  // a folder that cannot be read cannot be synced; the rename stands anyway
  ::fsync(descriptor);
  ::close(descriptor);
}

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

void configure(SQLite::Database& database) {
  database.setBusyTimeout(kBusyMilliseconds);
  database.exec("PRAGMA foreign_keys = ON");
}

/// From version `from` to this program's, in the caller's transaction.
void apply_schemas(SQLite::Database& database, std::int32_t from) {
  for (auto version = from; version < kSchemaVersion; ++version)
    database.exec(kSchemas[static_cast<std::size_t>(version)]);
  database.exec(fmt::format("PRAGMA user_version = {}", kSchemaVersion));
}

/// A copy of everything committed, under a temporary name until it is whole.
void back_up(SQLite::Database& database, const fs::path& copy) {
  const fs::path temporary = copy.string() + fmt::format(".new-{}", ::getpid());
  fs::remove(temporary);
  SQLite::Statement vacuum(database, "VACUUM INTO ?");
  vacuum.bind(1, temporary.string());
  vacuum.exec();
  sync_path(temporary);
  fs::rename(temporary, copy);
  sync_path(folder_of(copy));
}

/// A descriptor to read a database's header through, or -1. Closing any descriptor of a file gives up every POSIX lock
/// that this process holds on it, those of SQLite's own connections included; another program would then take
/// their log away. So it stays open as long as the file is there.
int lasting_descriptor(const fs::path& file) {
  static std::mutex mutex;
  static std::map<std::pair<dev_t, ino_t>, int> open_files;
  const std::lock_guard lock(mutex);
  struct stat status {};
  std::erase_if(open_files, [&](const auto& entry) {
    const bool gone = ::fstat(entry.second, &status) != 0 || status.st_nlink == 0;
    if (gone) ::close(entry.second);
    return gone;
  });
  if (::stat(file.c_str(), &status) != 0) return -1;
  const auto known = open_files.find({status.st_dev, status.st_ino});
  if (known != open_files.end()) return known->second;
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor >= 0 && ::fstat(descriptor, &status) == 0)
    open_files.emplace(std::pair(status.st_dev, status.st_ino), descriptor);
  return descriptor;
}

/// Text of our schema in its first pages: a database of ours whose header is damaged.
bool mentions_our_tables(const fs::path& file) {
  constexpr std::size_t kLook = 1u << 20;
  std::string text(kLook, 0);
  std::ifstream stream(file, std::ios::binary);
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return text.find("CREATE TABLE curve_chunk") != text.npos && text.find("CREATE TABLE trial") != text.npos;
}

[[noreturn]] void refuse_foreign(const fs::path& file, const std::string& what) {
  if (mentions_our_tables(file))
    throw StoreError(Trouble::corrupt,
                     fmt::format("{}: its header is damaged; it was left as it is: restore a copy, or save what can be "
                                 "read with {}",
                                 file.string(), recover_command(file)));
  throw StoreError(Trouble::foreign, fmt::format("{}: {}; choose another file with --db", file.string(), what));
}

Trouble trouble_of(int code) {
  switch (code & 0xff) {
    case SQLITE_CORRUPT: return Trouble::corrupt;
    case SQLITE_NOTADB: return Trouble::corrupt;
    case SQLITE_ERROR:
    case SQLITE_AUTH:
    case SQLITE_INTERRUPT:
    case SQLITE_RANGE:
    case SQLITE_MISMATCH: return Trouble::query;
    default: return Trouble::environment;
  }
}

std::string advice(int code, const fs::path& file) {
  switch (code & 0xff) {
    case SQLITE_FULL: return "; the disk is full: free some space and run the same command again";
    case SQLITE_IOERR: return "; reading or writing failed: is the disk full or the file too large?";
    case SQLITE_READONLY: return "; file or folder is read-only";
    case SQLITE_CANTOPEN: return "; is the folder there, and may you write to it?";
    case SQLITE_BUSY: return "; another program holds a lock on it";
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
      return fmt::format("; it is damaged and was left as it is: restore a copy, or save what can be read with {}",
                         recover_command(file));
    default: return "";
  }
}

}  // namespace

bool is_our_database(const fs::path& file) {
  std::error_code error;
  const auto status = fs::status(file, error);
  if (status.type() == fs::file_type::not_found) return false;
  if (status.type() == fs::file_type::directory)
    throw StoreError(Trouble::foreign, fmt::format("{}: is a folder, not a database", file.string()));
  std::array<char, kHeaderBytes> header{};
  const int descriptor = lasting_descriptor(file);
  const auto size = descriptor < 0 ? -1 : ::pread(descriptor, header.data(), header.size(), 0);
  if (size < 0)
    throw StoreError(Trouble::environment,
                     fmt::format("{}: cannot be read: {}", file.string(), std::strerror(errno)));
  if (size == 0) return false;
  if (static_cast<std::size_t>(size) < header.size() ||
      std::string_view(header.data(), kMagic.size()) != kMagic)
    refuse_foreign(file, "is not an SQLite database");
  if (big_endian(header.data() + 68) != kApplicationId) refuse_foreign(file, "is a database of another program");
  const auto version = big_endian(header.data() + 60);
  if (version < 1 || version > kLastPlausibleVersion) refuse_foreign(file, fmt::format("has no schema {}", version));
  if (version > kSchemaVersion)
    throw StoreError(Trouble::newer,
                     fmt::format("{}: has schema {}, this tuneonce ({}) knows up to {}; use a newer "
                                 "tuneonce, or another file with --db",
                                 file.string(), version, TUNEONCE_VERSION, kSchemaVersion));
  return true;
}

void create_database(const fs::path& file) {
  const fs::path temporary = file.string() + fmt::format(".new-{}", ::getpid());
  try {
    {
      SQLite::Database database(temporary.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
      database.exec("PRAGMA synchronous = FULL");
      SQLite::Transaction transaction(database);
      apply_schemas(database, 0);
      database.exec(fmt::format("PRAGMA application_id = {}", kApplicationId));
      transaction.commit();
      database.exec("PRAGMA journal_mode = WAL");
    }
    sync_path(temporary);
    // Leftovers of a database that was deleted: SQLite would replay their rows into this one.
    for (const char* suffix : {"-journal", "-wal", "-shm"}) fs::remove(file.string() + suffix);
    fs::rename(temporary, file);
    sync_path(folder_of(file));
  } catch (...) {
    std::error_code ignored;
    for (const char* suffix : {"", "-journal", "-wal", "-shm"})
      fs::remove(temporary.string() + suffix, ignored);
    rethrow_as_store_error(file);
  }
}

std::int32_t schema_version(SQLite::Database& database) {
  return database.execAndGet("PRAGMA user_version").getInt();
}

void migrate_database(const fs::path& file) {
  guarded(file, [&] {
    // A writer that closes removes the log, also one whose rows say that the file counts on it.
    const auto version = schema_version(*open_reader(file));
    if (version == kSchemaVersion) return;
    const auto database = open_writer(file);
    back_up(*database, file.string() + fmt::format(".v{}.bak", version));
    SQLite::Transaction transaction(*database, SQLite::TransactionBehavior::IMMEDIATE);
    apply_schemas(*database, version);
    transaction.commit();
  });
}

std::unique_ptr<SQLite::Database> open_writer(const fs::path& file) {
  return guarded(file, [&] {
    auto database = std::make_unique<SQLite::Database>(file.string(), SQLite::OPEN_READWRITE);
    configure(*database);
    database->exec("PRAGMA journal_mode = WAL");
    database->exec("PRAGMA synchronous = FULL");
    return database;
  });
}

namespace {

bool holds_something(const fs::path& file) {
  std::error_code none;
  const auto size = fs::file_size(file, none);
  return !none && size > 0;
}

/// See Store::checkpoint.
bool counts_on_log(SQLite::Database& database) {
  if (schema_version(database) < 3) return false;
  SQLite::Statement owner(database, "SELECT log FROM owner");
  return owner.executeStep() && owner.getColumn(0).getInt() == 0;
}

}  // namespace

std::unique_ptr<SQLite::Database> open_reader(const fs::path& file) {
  if (!is_our_database(file))
    throw StoreError(Trouble::environment, fmt::format("{}: there is no such database", file.string()));
  return guarded(file, [&] {
    auto uri = read_only_uri(file);
    const fs::path wal = file.string() + "-wal";
    const bool had_log = holds_something(wal);
    // Reading a WAL database makes side files. Where none can be made and none is left to be read, the file
    // is all there is.
    if (::access(folder_of(file).c_str(), W_OK) != 0) {
      if (!fs::exists(wal))
        uri += "&immutable=1";
      else if (!fs::exists(file.string() + "-shm"))
        throw StoreError(Trouble::environment,
                         fmt::format("{}: its last rows are in {}, which cannot be read where nothing can be "
                                     "written; copy both files to another folder",
                                     file.string(), wal.filename().string()));
    }
    auto database = std::make_unique<SQLite::Database>(uri, SQLite::OPEN_READONLY | SQLite::OPEN_URI);
    configure(*database);
    if (!had_log && counts_on_log(*database) && !holds_something(wal))  // not one that a run has just begun
      throw StoreError(Trouble::corrupt,
                       fmt::format("{}: its log, {}, is missing, and the last results with it; it was left as it is: "
                                   "restore both files, or save what can be read with {}",
                                   file.string(), wal.string(), recover_command(file)));
    return database;
  });
}

void rethrow_as_store_error(const fs::path& file) {
  try {
    throw;
  } catch (const SQLite::Exception& error) {
    throw StoreError(trouble_of(error.getErrorCode()),
                     fmt::format("{}: {}{}", file.string(), error.what(), advice(error.getErrorCode(), file)));
  } catch (const fs::filesystem_error& error) {
    throw StoreError(Trouble::environment, fmt::format("{}: {}", file.string(), error.code().message()));
  }
}

std::string now_utc() {
  const auto now = std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
  const auto milliseconds = now.time_since_epoch().count() % 1000;
  return fmt::format("{:%Y-%m-%d %H:%M:%S}.{:03}", fmt::gmtime(std::chrono::system_clock::to_time_t(now)),
                     milliseconds);
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

}  // namespace db
