#pragma once

#include <filesystem>

namespace db {

/// Writes the studies of `file`, as its Optuna views show them, into a new Optuna storage of its own, `copy`.
/// Throws StoreError: Trouble::state when `copy` exists or `file` has an older schema.
void export_optuna(const std::filesystem::path& file, const std::filesystem::path& copy);

}  // namespace db
