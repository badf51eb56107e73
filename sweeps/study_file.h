#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

#include "sweeps/study.h"

namespace sweeps {

/// A study file that cannot be used. what() is "file:line:column: what was found; what would work".
struct StudyError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Reads a study, fills in every default and checks it whole. Throws StudyError.
Study load_study(const std::filesystem::path& file);
/// The same from text; `file` only names it in messages and is the base of relative paths.
Study parse_study(std::string_view toml, const std::filesystem::path& file);

}  // namespace sweeps
