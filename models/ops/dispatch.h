#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace models::ops {

/// Axes: K slots, R tokens of a slot, N experts, a active ones per token, M = K*R*a copies of tokens.

/// Picks `active` experts for each token, active/groups from each of `groups` equal groups of experts: the
/// largest scores, the lower index where scores are equal. scores [K, R, N] -> [K, R, a] int64, each row
/// without repeats, group after group, best first. Scores that are NaN are picked last on a CPU.
at::Tensor select_experts(const at::Tensor& scores_KRN, std::int64_t active, std::int64_t groups);

/// Where the copies of the tokens go: sorted by slot, then expert, then token (a stable counting sort; on
/// CUDA a stable sort, the same permutation). Every copy has its place; none is ever dropped.
struct Dispatch {
  at::Tensor order_M;     // int64: the copy (token * a + choice, tokens counted through the slots) in place m
  at::Tensor position_M;  // int64: its inverse, the place of a copy
  at::Tensor ends_G;      // int32 [K*N]: where each expert's rows end
  at::Tensor load_KN;     // float32: copies each expert got
};
Dispatch dispatch(const at::Tensor& experts_KRA, std::int64_t num_experts);

/// Token rows, one for each copy, in sorted order. x [K, R, D] -> [M, D].
/// The gradient sums a token's `a` rows in the order of its choices: deterministic, no atomics.
at::Tensor gather_rows(const at::Tensor& x_KRD, const Dispatch& plan);

/// y[token] = scale * sum_i gates[token, i] * rows[place of copy i]. rows [M, D], gates [K, R, a] in float32
/// or float64 -> [K, R, D] in the rows' type. Sums in the order of the choices.
at::Tensor combine_rows(const at::Tensor& rows_MD, const at::Tensor& gates_KRA, const Dispatch& plan,
                        double scale);

}  // namespace models::ops
