#include "models/ops/embedding.h"

#include <ATen/ATen.h>

namespace models::ops {

at::Tensor embedding(const at::Tensor& table_KVD, const at::Tensor& ids_KR) {
  const auto K = table_KVD.size(0), V = table_KVD.size(1), D = table_KVD.size(2);
  if (K == 1) return at::embedding(table_KVD.squeeze(0), ids_KR);
  const at::Tensor first_row_K1 = at::arange(K, ids_KR.options()).mul(V).unsqueeze(1);
  return at::embedding(table_KVD.reshape({K * V, D}), ids_KR + first_row_K1);
}

}  // namespace models::ops
