#include "models/ffn.h"

#include "models/ops/linear.h"
#include "models/ops/swiglu.h"

namespace models {

at::Tensor ffn(const at::Tensor& x_KRD, const at::Tensor& gate_up_KDH, const at::Tensor& down_KHD) {
  return ops::linear(ops::swiglu(ops::linear(x_KRD, gate_up_KDH)), down_KHD);
}

}  // namespace models
