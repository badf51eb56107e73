#include "sweeps/tolerance.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <stdexcept>

#include <fmt/format.h>

namespace sweeps {

std::string tolerance_help(std::string_view loss_unit) {
  return fmt::format("write \"0.1%\" (of the target's loss) or \"0.003 {}\"", loss_unit);
}

Tolerance parse_tolerance(std::string_view text, std::string_view loss_unit) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  unit.remove_prefix(std::min(unit.find_first_not_of(' '), unit.size()));
  if (error != std::errc{} || !(value > 0) || !std::isfinite(value) || (unit != "%" && unit != loss_unit))
    throw std::invalid_argument(
        fmt::format("\"{}\" is no tolerance above 0 with its unit; {}", text, tolerance_help(loss_unit)));
  if (unit == loss_unit) return {.nats = value};
  if (value >= 100)
    throw std::invalid_argument(fmt::format("\"{}\" would accept any loss; {}", text, tolerance_help(loss_unit)));
  return {.fraction = value / 100};
}

}  // namespace sweeps
