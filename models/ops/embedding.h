#pragma once

#include <ATen/core/Tensor.h>

namespace models::ops {

/// Rows of each slot's table. table [K, V, D], ids [K, R] int64 in [0, V) -> [K, R, D] in the table's type.
/// The gradient sums rows in the order of the tokens: deterministic.
at::Tensor embedding(const at::Tensor& table_KVD, const at::Tensor& ids_KR);

}  // namespace models::ops
