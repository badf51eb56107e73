#include "models/ops/cross_entropy.h"

#include <ATen/ATen.h>

namespace models::ops {

at::Tensor cross_entropy(const at::Tensor& logits_KRV, double scale, const at::Tensor& targets_KR) {
  const auto wide = logits_KRV.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor log_p_KRV = at::log_softmax(logits_KRV.to(wide).mul(scale), -1);
  return at::gather(log_p_KRV, -1, targets_KR.unsqueeze(-1)).squeeze(-1).mean(-1).neg();
}

}  // namespace models::ops
