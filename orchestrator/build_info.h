#pragma once

#include <filesystem>
#include <string>

#include "db/store.h"

namespace orchestrator {

/// Commit of the source this program was built from, "-dirty" behind it where files were changed; "unknown" outside a
/// repository.
std::string git_commit();

/// XXH3-128 of a file's bytes, 32 hex digits; empty when it cannot be read.
std::string file_hash(const std::filesystem::path& file);

/// This program and the worker it starts.
db::ProgramInfo program_info(const std::filesystem::path& worker);

}  // namespace orchestrator
