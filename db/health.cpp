#include "db/health.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <SQLiteCpp/SQLiteCpp.h>
#include <fmt/format.h>

#include "db/sqlite.h"

namespace db {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void damaged(const fs::path& file, const std::string& how) {
  throw StoreError(Trouble::corrupt,
                   fmt::format("{}: {}; it was left as it is: restore a copy, or save what can be read with {}",
                               file.string(), how, recover_command(file)));
}

}  // namespace

std::string read_only_uri(const fs::path& file) {
  std::string uri = "file:";
  for (const char c : fs::absolute(file).string())
    uri += std::strchr("%?#", c) ? fmt::format("%{:02x}", c) : std::string(1, c);
  return uri + "?mode=ro";
}

std::string recover_command(const fs::path& file) {
  auto copy = file;
  copy.replace_extension(".recovered.db");
  return fmt::format("`tuneonce recover {} --out {}`", file.string(), copy.string());
}

void check_sound(const fs::path& file) {
  guarded(file, [&] {
    const auto database = open_reader(file);
    SQLite::Statement check(*database, "PRAGMA quick_check(1)");
    check.executeStep();
    const std::string answer = check.getColumn(0).getString();
    if (answer != "ok") damaged(file, fmt::format("is damaged ({})", answer));
    if (schema_version(*database) < 3) return;
    SQLite::Statement owner(*database, "SELECT owner.database = identity.id FROM owner, identity");
    if (!owner.executeStep()) damaged(file, "is damaged (it does not say who owns it)");
    if (owner.getColumn(0).getInt() == 0)
      damaged(file, fmt::format("its log, {}-wal, is that of another database", file.string()));
  });
}

std::vector<std::string> problems_of(const fs::path& file) {
  std::vector<std::string> problems;
  try {
    check_sound(file);
    guarded(file, [&] {
      const auto database = open_reader(file);
      SQLite::Statement check(*database, "PRAGMA integrity_check(20)");
      while (check.executeStep())
        if (check.getColumn(0).getString() != "ok") problems.push_back(check.getColumn(0).getString());
      SQLite::Statement keys(*database, "PRAGMA foreign_key_check");
      while (keys.executeStep())
        problems.push_back(fmt::format("a row of {} points to no row of {}", keys.getColumn(0).getString(),
                                       keys.getColumn(2).getString()));
    });
  } catch (const StoreError& error) {
    problems.push_back(error.what());
  }
  return problems;
}

std::string sqlite_version() { return sqlite3_libversion(); }
bool sqlite_suffices() { return sqlite3_libversion_number() >= 3037000; }

void publish_new_file(const fs::path& temporary, const fs::path& file) {
  const auto sync = [](const fs::path& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return;
    ::fsync(descriptor);
    ::close(descriptor);
  };
  sync(temporary);
  if (::link(temporary.c_str(), file.c_str()) != 0)
    throw StoreError(errno == EEXIST ? Trouble::state : Trouble::environment,
                     fmt::format("{}: {}", file.string(),
                                 errno == EEXIST ? "exists and is not overwritten; name a new file" : std::strerror(errno)));
  fs::remove(temporary);
  sync(file.has_parent_path() ? file.parent_path() : fs::path("."));
}

}  // namespace db
