#pragma once

#include <optional>
#include <string>

#include "orchestrator/report.h"
#include "orchestrator/svg.h"

namespace orchestrator {

/// The report's pictures with a line on how to read each. Pure.

/// LR x WD heat map of the proxy's sweep.
std::string heat_map_section(const sweeps::Analysis& analysis);
/// Loss against LR for the proxy and each target, on one LR axis.
std::string lr_section(const sweeps::Analysis& analysis);
/// The LR curves of proxy and targets in one picture, a panel per rule; nothing when no target has a drift check.
std::optional<Svg> transfer_picture(const sweeps::Analysis& analysis);
/// Loss against initial std; empty text of the section when nothing is scanned.
std::string scan_section(const sweeps::Study& study, const sweeps::Analysis& analysis);
/// Training and evaluation losses over the steps.
std::string curves_section(const sweeps::Analysis& analysis, const Curves& curves);

}  // namespace orchestrator
