#pragma once

#include <string>

#include "sweeps/study.h"

namespace sweeps {

/// The study as TOML with every default filled in and every path absolute; reading it gives the same study.
std::string study_text(const Study& study);

}  // namespace sweeps
