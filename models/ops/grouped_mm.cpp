#include "models/ops/grouped_mm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/ops/fused.h"
#include "models/ops/sgemm.h"

namespace models::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Calls work(g, first row, rows) for every group.
template <class Work>
void for_groups(const at::Tensor& ends_G, const Work& work) {
  const auto* ends = ends_G.const_data_ptr<int>();
  for (std::int64_t g = 0, start = 0; g < ends_G.size(0); ++g) {
    work(g, start, ends[g] - start);
    start = ends[g];
  }
}

/// y = x * w for one group, where the operands may be stored transposed. Float32 goes straight to the BLAS:
/// at a few rows a group an operator's own cost is as large as the product.
void multiply(at::Tensor& y, const at::Tensor& x, Layout x_layout, const at::Tensor& w, Layout w_layout) {
  if (!fused(x)) {
    at::mm_out(y, x_layout == Layout::plain ? x : x.t(), w_layout == Layout::plain ? w : w.t());
    return;
  }
  const auto inner = x.size(x_layout == Layout::plain ? 1 : 0);
  sgemm(y.size(0), y.size(1), inner, {x.const_data_ptr<float>(), x.stride(0), x_layout},
        {w.const_data_ptr<float>(), w.stride(0), w_layout}, 0, y.mutable_data_ptr<float>(), y.stride(0));
}

struct GroupLoop : torch::autograd::Function<GroupLoop> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_MI, const at::Tensor& weight_GIO,
                            const at::Tensor& ends_G) {
    context->save_for_backward({x_MI, weight_GIO, ends_G});
    at::Tensor y_MO = at::empty({x_MI.size(0), weight_GIO.size(2)}, x_MI.options());
    for_groups(ends_G, [&](std::int64_t g, std::int64_t start, std::int64_t rows) {
      if (rows == 0) return;
      at::Tensor y = y_MO.narrow(0, start, rows);
      multiply(y, x_MI.narrow(0, start, rows), Layout::plain, weight_GIO.select(0, g), Layout::plain);
    });
    return y_MO;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &x_MI = saved[0], &weight_GIO = saved[1], &ends_G = saved[2];
    const at::Tensor grad_MO = grads[0].contiguous();
    at::Tensor grad_x = at::empty_like(x_MI), grad_weight = at::empty_like(weight_GIO);
    for_groups(ends_G, [&](std::int64_t g, std::int64_t start, std::int64_t rows) {
      at::Tensor dw = grad_weight.select(0, g);
      if (rows == 0) {
        dw.zero_();
        return;
      }
      at::Tensor dx = grad_x.narrow(0, start, rows);
      const at::Tensor dy = grad_MO.narrow(0, start, rows);
      multiply(dx, dy, Layout::plain, weight_GIO.select(0, g), Layout::transposed);
      multiply(dw, x_MI.narrow(0, start, rows), Layout::transposed, dy, Layout::plain);
    });
    return {grad_x, grad_weight, {}};
  }
};

}  // namespace

at::Tensor grouped_mm(const at::Tensor& x_MI, const at::Tensor& weight_GIO, const at::Tensor& ends_G) {
  const at::Tensor weight = weight_GIO.to(x_MI.scalar_type());
  if (x_MI.is_cpu()) return GroupLoop::apply(x_MI.contiguous(), weight.contiguous(), ends_G);
  return at::_grouped_mm(x_MI, weight, ends_G);
}

}  // namespace models::ops
