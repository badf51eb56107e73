#pragma once

#include <ATen/core/Tensor.h>

namespace models::ops {

/// y = x W for each slot. x [K, R, I], weight [K, I, O] -> [K, R, O]; the product is done in x's type, the
/// weight's gradient comes back in the weight's own. K = 1 is a plain matrix product, K > 1 a batched one.
at::Tensor linear(const at::Tensor& x_KRI, const at::Tensor& weight_KIO);

}  // namespace models::ops
