#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace models::ops {

/// The most groups of one product on CUDA.
inline constexpr std::int64_t kMaxGroups = 1023;

/// Rows of group g times weight g. x [M, I] with the rows of a group side by side, weight [G, I, O] (cast to
/// x's type), ends [G] int32: where each group's rows end, ends[G-1] = M -> [M, O]. A group may be empty; its
/// weight's gradient is then zero.
/// On CUDA at::_grouped_mm (G up to kMaxGroups); on a CPU a loop of matrix products over the groups.
at::Tensor grouped_mm(const at::Tensor& x_MI, const at::Tensor& weight_GIO, const at::Tensor& ends_G);

}  // namespace models::ops
