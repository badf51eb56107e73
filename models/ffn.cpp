#include "models/ffn.h"

#include "models/ops/linear.h"
#include "models/ops/swiglu.h"
#include "models/recorder.h"

namespace models {

at::Tensor ffn(const at::Tensor& x_KRD, const at::Tensor& gate_up_KDH, const at::Tensor& down_KHD,
               const Watch& watch, FfnKind kind) {
  const at::Tensor hidden_KRH = ops::swiglu(ops::linear(x_KRD, gate_up_KDH));
  if (watch.recorder) {
    const bool dense = kind == FfnKind::dense;
    watch.recorder->product(dense ? "ffn_up" : "shared_up", watch.block, x_KRD, gate_up_KDH, 1);
    watch.recorder->product(dense ? "ffn_down" : "shared_down", watch.block, hidden_KRH, down_KHD,
                            watch.multiplier);
  }
  return ops::linear(hidden_KRH, down_KHD);
}

}  // namespace models
