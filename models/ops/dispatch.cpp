#include "models/ops/dispatch.h"

#include <algorithm>
#include <limits>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/ops/fused.h"
#include "models/ops/multiversion.h"

namespace models::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The `count` largest of scores[0..n), lower index first among equals, into picked. A short list kept sorted
/// by insertion: count is small.
template <class T>
void pick_largest(const T* scores, std::int64_t n, std::int64_t count, std::int64_t first,
                  std::int64_t* picked, std::vector<T>& best) {
  best.assign(static_cast<std::size_t>(count), T{});
  std::int64_t filled = 0;
  for (std::int64_t e = 0; e < n; ++e) {
    const T score = scores[e] == scores[e] ? scores[e] : -std::numeric_limits<T>::infinity();
    if (filled == count && !(score > best[static_cast<std::size_t>(count - 1)])) continue;
    std::int64_t place = filled < count ? filled++ : count - 1;
    for (; place > 0 && score > best[static_cast<std::size_t>(place - 1)]; --place) {
      best[static_cast<std::size_t>(place)] = best[static_cast<std::size_t>(place - 1)];
      picked[place] = picked[place - 1];
    }
    best[static_cast<std::size_t>(place)] = score;
    picked[place] = first + e;
  }
}

at::Tensor select_on_cpu(const at::Tensor& scores_KRN, std::int64_t active, std::int64_t groups) {
  const auto N = scores_KRN.size(2), tokens = scores_KRN.size(0) * scores_KRN.size(1);
  const auto group_size = N / groups, group_active = active / groups;
  const at::Tensor scores = scores_KRN.contiguous();
  at::Tensor experts = at::empty({scores.size(0), scores.size(1), active}, at::kLong);
  auto* picked = experts.mutable_data_ptr<std::int64_t>();
  AT_DISPATCH_FLOATING_TYPES(scores.scalar_type(), "select_experts", [&] {
    const auto* row = scores.const_data_ptr<scalar_t>();
    std::vector<scalar_t> best;
    for (std::int64_t token = 0; token < tokens; ++token)
      for (std::int64_t g = 0; g < groups; ++g, row += group_size, picked += group_active)
        pick_largest(row, group_size, group_active, g * group_size, picked, best);
  });
  return experts;
}

at::Tensor select_by_sort(const at::Tensor& scores_KRN, std::int64_t active, std::int64_t groups) {
  const auto K = scores_KRN.size(0), R = scores_KRN.size(1), group_size = scores_KRN.size(2) / groups;
  const at::Tensor order = std::get<1>(
      at::sort(scores_KRN.view({K, R, groups, group_size}), /*stable=*/true, -1, /*descending=*/true));
  const at::Tensor first_G1 = at::arange(groups, order.options()).mul(group_size).unsqueeze(1);
  return order.narrow(-1, 0, active / groups).add(first_G1).reshape({K, R, active});
}

/// Counting sort: stable, linear.
Dispatch dispatch_on_cpu(const at::Tensor& experts_KRA, std::int64_t num_experts) {
  const auto K = experts_KRA.size(0), M = experts_KRA.numel(), slot_M = M / K;
  const at::Tensor experts = experts_KRA.contiguous();
  Dispatch plan{at::empty({M}, at::kLong), at::empty({M}, at::kLong), at::empty({K * num_experts}, at::kInt),
                at::empty({K, num_experts}, at::kFloat)};
  const auto* expert = experts.const_data_ptr<std::int64_t>();
  auto* order = plan.order_M.mutable_data_ptr<std::int64_t>();
  auto* position = plan.position_M.mutable_data_ptr<std::int64_t>();
  auto* ends = plan.ends_G.mutable_data_ptr<int>();
  auto* load = plan.load_KN.mutable_data_ptr<float>();
  std::vector<std::int64_t> next(static_cast<std::size_t>(K * num_experts), 0);
  const auto group = [&](std::int64_t m) {
    return static_cast<std::size_t>(m / slot_M * num_experts + expert[m]);
  };
  for (std::int64_t m = 0; m < M; ++m) ++next[group(m)];
  std::int64_t start = 0;
  for (std::size_t g = 0; g < next.size(); ++g) {
    const std::int64_t count = next[g];
    load[g] = static_cast<float>(count);
    next[g] = start;
    start += count;
    ends[g] = static_cast<int>(start);
  }
  for (std::int64_t m = 0; m < M; ++m) {
    position[m] = next[group(m)]++;
    order[position[m]] = m;
  }
  return plan;
}

/// The same permutation without a trip to the host.
Dispatch dispatch_by_sort(const at::Tensor& experts_KRA, std::int64_t num_experts) {
  const auto K = experts_KRA.size(0);
  const auto options = experts_KRA.options();
  const at::Tensor group_M =
      (experts_KRA + at::arange(K, options).mul(num_experts).view({K, 1, 1})).reshape({-1});
  const auto [sorted_M, order_M] = at::sort(group_M, /*stable=*/true, 0, /*descending=*/false);
  const at::Tensor ends_G =
      at::searchsorted(sorted_M, at::arange(K * num_experts, options), /*out_int32=*/true, /*right=*/true);
  const at::Tensor load_G = at::diff(ends_G, 1, 0, at::zeros({1}, ends_G.options()));
  const at::Tensor position_M =
      at::empty_like(order_M).scatter_(0, order_M, at::arange(order_M.size(0), options));
  return {order_M, position_M, ends_G, load_G.view({K, num_experts}).to(at::kFloat)};
}

/// rows[position] laid out token by token: [K*R, a, D].
at::Tensor rows_by_token(const at::Tensor& rows_MD, const at::Tensor& position_M, std::int64_t a) {
  return rows_MD.index_select(0, position_M).view({-1, a, rows_MD.size(1)});
}

/// out[token] = sum_i weight[token, i] * rows[position of copy i]; every weight 1 where weights is null.
TUNEONCE_MULTIVERSION
void sum_copies(std::int64_t tokens, std::int64_t a, std::int64_t D, const float* rows, const float* weights,
                const std::int64_t* position, float scale, float* out) {
  for (std::int64_t token = 0; token < tokens; ++token, position += a, out += D) {
    std::fill_n(out, D, 0.0f);
    for (std::int64_t i = 0; i < a; ++i) {
      const float weight = weights != nullptr ? scale * weights[token * a + i] : scale;
      const float* row = rows + position[i] * D;
#pragma omp simd
      for (std::int64_t c = 0; c < D; ++c) out[c] += weight * row[c];
    }
  }
}

/// The gradients of sum_copies: grad_rows[position of copy i] = scale * weight * grad[token],
/// grad_weights[token, i] = scale * <grad[token], rows[position of copy i]>.
TUNEONCE_MULTIVERSION
void spread_copies(std::int64_t tokens, std::int64_t a, std::int64_t D, const float* rows,
                   const float* weights, const std::int64_t* position, float scale, const float* grad,
                   float* grad_rows, float* grad_weights) {
  for (std::int64_t token = 0; token < tokens; ++token, grad += D) {
    for (std::int64_t i = 0; i < a; ++i) {
      const std::int64_t copy = token * a + i;
      const float weight = scale * weights[copy];
      const float* row = rows + position[copy] * D;
      float* grad_row = grad_rows + position[copy] * D;
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (std::int64_t c = 0; c < D; ++c) {
        dot += grad[c] * row[c];
        grad_row[c] = weight * grad[c];
      }
      grad_weights[copy] = scale * dot;
    }
  }
}

struct GatherRows : torch::autograd::Function<GatherRows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_KRD, const at::Tensor& order_M,
                            const at::Tensor& position_M) {
    const auto D = x_KRD.size(2), tokens = x_KRD.size(0) * x_KRD.size(1);
    const auto a = order_M.size(0) / tokens;
    context->save_for_backward({position_M});
    context->saved_data["a"] = a;
    context->saved_data["slots"] = x_KRD.size(0);
    return x_KRD.reshape({tokens, D}).index_select(0, order_M.div(a, "floor"));
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto a = context->saved_data["a"].toInt(), K = context->saved_data["slots"].toInt();
    const at::Tensor position = context->get_saved_variables()[0];
    if (fused(grads[0])) {
      const at::Tensor grad_rows = grads[0].contiguous();
      const auto D = grad_rows.size(1), tokens = position.size(0) / a;
      at::Tensor grad = at::empty({K, tokens / K, D}, grad_rows.options());
      sum_copies(tokens, a, D, grad_rows.const_data_ptr<float>(), nullptr,
                 position.const_data_ptr<std::int64_t>(), 1, grad.mutable_data_ptr<float>());
      return {grad, {}, {}};
    }
    const at::Tensor rows = rows_by_token(grads[0], position, a);
    return {rows.sum(1).view({K, -1, grads[0].size(1)}), {}, {}};
  }
};

struct FusedCombineRows : torch::autograd::Function<FusedCombineRows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows_MD, const at::Tensor& gates_KRA,
                            const at::Tensor& position_M, double scale) {
    const auto K = gates_KRA.size(0), R = gates_KRA.size(1), a = gates_KRA.size(2), D = rows_MD.size(1);
    context->save_for_backward({rows_MD, gates_KRA, position_M});
    context->saved_data["scale"] = scale;
    at::Tensor y = at::empty({K, R, D}, rows_MD.options());
    sum_copies(K * R, a, D, rows_MD.const_data_ptr<float>(), gates_KRA.const_data_ptr<float>(),
               position_M.const_data_ptr<std::int64_t>(), static_cast<float>(scale),
               y.mutable_data_ptr<float>());
    return y;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows_MD = saved[0], &gates_KRA = saved[1], &position_M = saved[2];
    const at::Tensor grad = grads[0].contiguous();
    at::Tensor grad_rows = at::empty_like(rows_MD), grad_gates = at::empty_like(gates_KRA);
    const auto a = gates_KRA.size(2);
    spread_copies(gates_KRA.numel() / a, a, rows_MD.size(1), rows_MD.const_data_ptr<float>(),
                  gates_KRA.const_data_ptr<float>(), position_M.const_data_ptr<std::int64_t>(),
                  static_cast<float>(context->saved_data["scale"].toDouble()), grad.const_data_ptr<float>(),
                  grad_rows.mutable_data_ptr<float>(), grad_gates.mutable_data_ptr<float>());
    return {grad_rows, grad_gates, {}, {}};
  }
};

struct CombineRows : torch::autograd::Function<CombineRows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows_MD, const at::Tensor& gates_KRA,
                            const at::Tensor& order_M, const at::Tensor& position_M, double scale) {
    const auto K = gates_KRA.size(0), R = gates_KRA.size(1), a = gates_KRA.size(2);
    context->save_for_backward({rows_MD, gates_KRA, order_M, position_M});
    context->saved_data["scale"] = scale;
    const at::Tensor rows = rows_by_token(rows_MD, position_M, a).to(gates_KRA.scalar_type());
    return (rows * gates_KRA.reshape({K * R, a, 1}))
        .sum(1)
        .mul(scale)
        .view({K, R, rows_MD.size(1)})
        .to(rows_MD.scalar_type());
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &rows_MD = saved[0], &gates_KRA = saved[1], &order_M = saved[2], &position_M = saved[3];
    const auto a = gates_KRA.size(2), D = rows_MD.size(1);
    const auto wide = gates_KRA.scalar_type();
    const at::Tensor grad = grads[0].reshape({-1, D}).to(wide).mul(context->saved_data["scale"].toDouble());
    const at::Tensor copies_MD = grad.index_select(0, order_M.div(a, "floor"));
    const at::Tensor gate_M1 = gates_KRA.reshape({-1}).index_select(0, order_M).unsqueeze(1);
    const at::Tensor grad_rows = (copies_MD * gate_M1).to(rows_MD.scalar_type());
    const at::Tensor grad_gates =
        (rows_by_token(rows_MD, position_M, a).to(wide) * grad.unsqueeze(1)).sum(-1).view_as(gates_KRA);
    return {grad_rows, grad_gates, {}, {}, {}};
  }
};

}  // namespace

at::Tensor select_experts(const at::Tensor& scores_KRN, std::int64_t active, std::int64_t groups) {
  const at::Tensor scores = scores_KRN.detach();
  return scores.is_cpu() ? select_on_cpu(scores, active, groups) : select_by_sort(scores, active, groups);
}

Dispatch dispatch(const at::Tensor& experts_KRA, std::int64_t num_experts) {
  return experts_KRA.is_cpu() ? dispatch_on_cpu(experts_KRA, num_experts)
                              : dispatch_by_sort(experts_KRA, num_experts);
}

at::Tensor gather_rows(const at::Tensor& x_KRD, const Dispatch& plan) {
  return GatherRows::apply(x_KRD, plan.order_M, plan.position_M);
}

at::Tensor combine_rows(const at::Tensor& rows_MD, const at::Tensor& gates_KRA, const Dispatch& plan,
                        double scale) {
  if (fused(rows_MD) && fused(gates_KRA))
    return FusedCombineRows::apply(rows_MD.contiguous(), gates_KRA.contiguous(), plan.position_M, scale);
  return CombineRows::apply(rows_MD, gates_KRA, plan.order_M, plan.position_M, scale);
}

}  // namespace models::ops
