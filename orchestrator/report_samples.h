#pragma once

#include <map>
#include <string>

#include "orchestrator/report.h"

namespace orchestrator {

/// What the targets draw, beside held-out pictures; empty when none has drawn. Pure.
std::string samples_section(const sweeps::Analysis& analysis, const Samples& samples);

/// The first `count` of [count, channels, height, width] as one PNG file, `columns` side by side, a line of
/// grey between them; three channels are colours, of any other number the first is shown as grey.
/// REQUIRES: count and columns above 0, and as many pictures as that.
std::string contact_sheet(const sweeps::SampleSheet& sheet, const std::vector<std::uint8_t>& pictures,
                          std::int64_t count, std::int64_t columns);

}  // namespace orchestrator
