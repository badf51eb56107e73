#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace models {

/// Key of one tensor's random stream: a hash of (seed, tensor name) and of nothing else.
std::uint64_t tensor_key(std::uint64_t seed, std::string_view tensor);

/// values[i] = std * normal number i of stream `key`. Counter-based: number i depends on key and i only, so
/// a tensor is the same in any slot, on any device and whatever was drawn before.
/// Box-Muller on a 64-bit mix of the counter. Only +, *, / and sqrt of IEEE floats are used, without
/// contraction, so that every machine draws the same bits. Largest possible |value| / std is 5.89.
void fill_normal(std::span<float> values, std::uint64_t key, double std);

}  // namespace models
