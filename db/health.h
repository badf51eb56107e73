#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "db/reader.h"

namespace db {

/// Is a database whole, and what can be had of one that is not. Nothing here writes to the file it looks at.

/// Throws StoreError, Trouble::corrupt and naming `tuneonce recover`, when `file` is damaged, lacks its log
/// (FILE-wal) or was given that of another database. REQUIRES: is_our_database(file).
void check_sound(const std::filesystem::path& file);

/// Every problem that SQLite and the schema find, in words; empty: none. Slower than check_sound.
std::vector<std::string> problems_of(const std::filesystem::path& file);

/// "file:/path?mode=ro", for SQLite's URI names.
std::string read_only_uri(const std::filesystem::path& file);

/// "`tuneonce recover FILE --out ...`"
std::string recover_command(const std::filesystem::path& file);

/// Of the library at work; it must know strict tables and RETURNING (3.37).
std::string sqlite_version();
bool sqlite_suffices();

/// What was saved of one table.
struct RecoveredTable {
  std::string table;
  std::int64_t rows = 0;
  std::int64_t left_out = 0;  // read, but not what they should be, or of a trial that is lost
  bool whole = true;          // false: there were rows that could not be read
};

/// Copies every row that can be read into a new database `copy`, which is sound. REQUIRES: nobody works on
/// `file`. Throws StoreError: Trouble::state when `copy` exists, Trouble::corrupt when nothing can be read.
std::vector<RecoveredTable> recover_database(const std::filesystem::path& file, const std::filesystem::path& copy,
                                             const SpecCodec& codec);

/// Gives a finished file its name, on the disk; throws StoreError, Trouble::state, when the name is taken.
void publish_new_file(const std::filesystem::path& temporary, const std::filesystem::path& file);

}  // namespace db
