#include "models/ops/rms_norm.h"

#include <ATen/ATen.h>

namespace models::ops {

at::Tensor rms_norm(const at::Tensor& x_KRD, const at::Tensor& gain_KD, at::ScalarType out) {
  const at::Tensor inverse_KR1 = x_KRD.square().mean(-1, /*keepdim=*/true).add(kNormEps).rsqrt();
  return (x_KRD * inverse_KR1 * gain_KD.unsqueeze(1)).to(out);
}

std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x_KRD, const at::Tensor& branch_KRD,
                                               double scale, const at::Tensor& gain_KD, at::ScalarType out) {
  const at::Tensor sum = at::add(x_KRD, branch_KRD.to(x_KRD.scalar_type()), scale);
  return {sum, rms_norm(sum, gain_KD, out)};
}

}  // namespace models::ops
