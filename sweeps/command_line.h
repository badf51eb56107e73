#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace sweeps {

/// The placeholders of a [model] command: lr, wd, init_std, seed, steps, config, ...
std::span<const std::string_view> placeholders();

/// A word of a command with each {name} replaced by `value(name)`; {{ and }} are braces. Throws
/// std::invalid_argument, with what would work, for an unknown placeholder or a brace without its partner.
std::string expand(std::string_view word, const std::function<std::string(std::string_view)>& value);

}  // namespace sweeps
