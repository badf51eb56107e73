#include "models/attention.h"

#include "models/ops/linear.h"
#include "models/recorder.h"

namespace models {

at::Tensor attention(const at::Tensor& x_KRD, const AttentionWeights& weights, std::int64_t T,
                     std::int64_t head_size, const ops::RotaryTable& table,
                     const Watch& watch) {
  const at::Tensor qkv_KRC = ops::linear(x_KRD, weights.qkv_KDC);
  const at::Tensor mixed_KRD = ops::causal_attention(qkv_KRC, T, head_size, table);
  if (watch.recorder) {
    watch.recorder->product("attention_qkv", watch.block, x_KRD, weights.qkv_KDC, 1);
    watch.recorder->product("attention_out", watch.block, mixed_KRD, weights.out_KDD, watch.multiplier);
  }
  return ops::linear(mixed_KRD, weights.out_KDD);
}

at::Tensor bidirectional_attention(const at::Tensor& x_KRD, const AttentionWeights& weights, std::int64_t T,
                                   std::int64_t head_size) {
  const at::Tensor qkv_KRC = ops::linear(x_KRD, weights.qkv_KDC);
  return ops::linear(ops::bidirectional_attention(qkv_KRC, T, head_size), weights.out_KDD);
}

}  // namespace models
