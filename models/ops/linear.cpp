#include "models/ops/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace models::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// K = 1 without the nodes that taking the slot axis away and putting it back would cost.
struct OneSlot : torch::autograd::Function<OneSlot> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight) {
    context->save_for_backward({x, weight});
    return at::mm(x.squeeze(0), weight.squeeze(0)).unsqueeze_(0);
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor x = saved[0].squeeze(0), weight = saved[1].squeeze(0), grad = grads[0].squeeze(0);
    return {at::mm(grad, weight.t()).unsqueeze_(0), at::mm(x.t(), grad).unsqueeze_(0)};
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x_KRI, const at::Tensor& weight_KIO) {
  const at::Tensor weight = weight_KIO.to(x_KRI.scalar_type());
  return x_KRI.size(0) == 1 ? OneSlot::apply(x_KRI, weight) : at::bmm(x_KRI, weight);
}

}  // namespace models::ops
