#include "models/ops/linear.h"

#include <ATen/ATen.h>

namespace models::ops {

at::Tensor linear(const at::Tensor& x_KRI, const at::Tensor& weight_KIO) {
  const at::Tensor weight = weight_KIO.to(x_KRI.scalar_type());
  if (x_KRI.size(0) == 1) return at::mm(x_KRI.squeeze(0), weight.squeeze(0)).unsqueeze(0);
  return at::bmm(x_KRI, weight);
}

}  // namespace models::ops
