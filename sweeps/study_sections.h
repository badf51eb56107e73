#pragma once

#include <filesystem>
#include <string>

#include "sweeps/settings.h"
#include "sweeps/study.h"

namespace sweeps {

/// The sections of a study file as a Study: defaults filled in, every value checked, `text` and `hash` still
/// empty. `file` names the file in messages, `folder` is what relative paths start from. Throws StudyError.
Study read_sections(const Setting& root, const std::string& file, const std::filesystem::path& folder);

}  // namespace sweeps
