#pragma once

#include <string>
#include <string_view>

namespace sweeps {

/// What a point may cost and still count as the optimum: a share of the loss, or a difference in its unit.
struct Tolerance {
  double fraction = 0.001;
  double nats = 0;  // in the loss's unit; if above 0, instead of the share

  double of(double loss) const { return nats > 0 ? nats : fraction * loss; }
};

/// "0.1%", or "0.003 nats" where `loss_unit` is "nats". Throws std::invalid_argument that says so.
Tolerance parse_tolerance(std::string_view text, std::string_view loss_unit = "nats");
/// What to write, for messages.
std::string tolerance_help(std::string_view loss_unit);

}  // namespace sweeps
