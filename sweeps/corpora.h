#pragma once

#include <array>
#include <string_view>

namespace sweeps {

/// What `tuneonce data fetch` keeps under $XDG_CACHE_HOME/tuneonce; a study names one as its path.
inline constexpr std::array<std::string_view, 2> kCorpora = {"gcide", "fashion-mnist"};

}  // namespace sweeps
