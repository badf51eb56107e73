#include "models/ops/causal_attention.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/ops/fused.h"
#include "models/ops/multiversion.h"
#include "models/ops/sgemm.h"
#include "models/ops/vector_math.h"

// Axes: T tokens of a sequence, S head size, D = heads * S, P = S/2 rotary pairs.

namespace models::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Queries worked on together: their scores [kQueries, T] stay in cache, and keys after the last of them are
/// never touched.
constexpr std::int64_t kQueries = 64;

/// out [T, S] = x turned by its position, times scale; sign -1 turns back.
TUNEONCE_INLINE void rotate_rows(std::int64_t T, std::int64_t P, const float* x, std::int64_t x_stride,
                                 const float* cos, const float* sin, float sign, float scale, float* out,
                                 std::int64_t out_stride) {
  for (std::int64_t t = 0; t < T; ++t, x += x_stride, out += out_stride, cos += P, sin += P) {
#pragma omp simd
    for (std::int64_t i = 0; i < P; ++i) {
      const float a = x[i], b = x[P + i];
      out[i] = scale * (a * cos[i] - sign * b * sin[i]);
      out[P + i] = scale * (b * cos[i] + sign * a * sin[i]);
    }
  }
}

/// The usual head sizes as constants: a row is then a handful of instructions without a loop.
TUNEONCE_MULTIVERSION
void rotate_head(std::int64_t T, std::int64_t P, const float* x, std::int64_t x_stride, const float* cos,
                 const float* sin, float sign, float scale, float* out, std::int64_t out_stride) {
  switch (P) {
    case 8: return rotate_rows(T, 8, x, x_stride, cos, sin, sign, scale, out, out_stride);
    case 16: return rotate_rows(T, 16, x, x_stride, cos, sin, sign, scale, out, out_stride);
    case 32: return rotate_rows(T, 32, x, x_stride, cos, sin, sign, scale, out, out_stride);
    case 64: return rotate_rows(T, 64, x, x_stride, cos, sin, sign, scale, out, out_stride);
    default: return rotate_rows(T, P, x, x_stride, cos, sin, sign, scale, out, out_stride);
  }
}

TUNEONCE_MULTIVERSION
void copy_head(std::int64_t T, std::int64_t S, const float* x, std::int64_t x_stride, float* out,
               std::int64_t out_stride) {
  for (std::int64_t t = 0; t < T; ++t, x += x_stride, out += out_stride) std::copy_n(x, S, out);
}

/// scores [rows, keys] of queries first .. first + rows - 1 become exp(score - row maximum), zero where the
/// key is later than the query; sum and maximum give log_sum and the factor 1/sum.
TUNEONCE_MULTIVERSION
void causal_exp(std::int64_t rows, std::int64_t first, std::int64_t keys, float* scores, float* log_sum,
                float* inverse_sum) {
  for (std::int64_t r = 0; r < rows; ++r, scores += keys) {
    const std::int64_t visible = first + r + 1;
    float top = scores[0];
#pragma omp simd reduction(max : top)
    for (std::int64_t j = 0; j < visible; ++j) top = scores[j] > top ? scores[j] : top;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::int64_t j = 0; j < visible; ++j) {
      scores[j] = fast_exp(scores[j] - top);
      sum += scores[j];
    }
    std::fill(scores + visible, scores + keys, 0.0f);
    log_sum[r] = top + std::log(sum);
    inverse_sum[r] = 1 / sum;
  }
}

TUNEONCE_MULTIVERSION
void scale_rows(std::int64_t rows, std::int64_t S, const float* factor, float* x, std::int64_t stride) {
  for (std::int64_t r = 0; r < rows; ++r, x += stride) {
#pragma omp simd
    for (std::int64_t c = 0; c < S; ++c) x[c] *= factor[r];
  }
}

/// delta[r] = sum_c grad_out * out: what the softmax's gradient takes off.
TUNEONCE_MULTIVERSION
void row_dots(std::int64_t rows, std::int64_t S, const float* a, const float* b, std::int64_t stride,
              float* dots) {
  for (std::int64_t r = 0; r < rows; ++r, a += stride, b += stride) {
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (std::int64_t c = 0; c < S; ++c) dot += a[c] * b[c];
    dots[r] = dot;
  }
}

/// scores -> probabilities, grads (of the probabilities) -> gradient of the scores; zero for later keys.
TUNEONCE_MULTIVERSION
void causal_backward(std::int64_t rows, std::int64_t first, std::int64_t keys, const float* log_sum,
                     const float* delta, float* scores, float* grads) {
  for (std::int64_t r = 0; r < rows; ++r, scores += keys, grads += keys) {
    const std::int64_t visible = first + r + 1;
    const float shift = log_sum[r], take = delta[r];
#pragma omp simd
    for (std::int64_t j = 0; j < visible; ++j) {
      scores[j] = fast_exp(scores[j] - shift);
      grads[j] = scores[j] * (grads[j] - take);
    }
    std::fill(scores + visible, scores + keys, 0.0f);
    std::fill(grads + visible, grads + keys, 0.0f);
  }
}

/// Where one head of one sequence lies, and the room its work needs.
struct Head {
  std::int64_t T, S, D;
  const float *cos, *sin;
  float scale() const { return 1 / std::sqrt(static_cast<float>(S)); }
};
class Scratch {
 public:
  explicit Scratch(const Head& head)
      : memory_(at::empty({6 * aligned(head.T * head.S) + 2 * aligned(kQueries * head.T) + kQueries},
                          at::kFloat)) {
    float* next = memory_.mutable_data_ptr<float>();
    for (float** matrix : {&q, &k, &v, &grad_q, &grad_k, &grad_v})
      next = (*matrix = next) + aligned(head.T * head.S);
    for (float** matrix : {&scores, &grads}) next = (*matrix = next) + aligned(kQueries * head.T);
    delta = next;
  }
  float *q, *k, *v, *grad_q, *grad_k, *grad_v;  // [T, S]
  float *scores, *grads;                        // [kQueries, T]
  float* delta;                                 // [kQueries]

  /// q (times the softmax scale) and k turned, v copied.
  void load(const Head& head, const float* qkv) {
    const std::int64_t stride = 3 * head.D, P = head.S / 2;
    rotate_head(head.T, P, qkv, stride, head.cos, head.sin, 1, head.scale(), q, head.S);
    rotate_head(head.T, P, qkv + head.D, stride, head.cos, head.sin, 1, 1, k, head.S);
    copy_head(head.T, head.S, qkv + 2 * head.D, stride, v, head.S);
  }
  /// Scores of the queries from `first` on against all keys up to the last of them.
  void score(const Head& head, std::int64_t first, std::int64_t rows) {
    sgemm(rows, first + rows, head.S, {q + first * head.S, head.S}, {k, head.S, Layout::transposed}, 0,
          scores, first + rows);
  }

 private:
  /// MKL promises equal bits for equal alignment only: every matrix starts on a cache line, as tensors do.
  static std::int64_t aligned(std::int64_t floats) { return (floats + 15) / 16 * 16; }
  at::Tensor memory_;
};

void forward_head(const Head& head, const float* qkv, float* out, float* log_sum, Scratch& room) {
  room.load(head, qkv);
  for (std::int64_t first = 0; first < head.T; first += kQueries) {
    const std::int64_t rows = std::min(kQueries, head.T - first), keys = first + rows;
    room.score(head, first, rows);
    causal_exp(rows, first, keys, room.scores, log_sum + first, room.delta);
    float* out_rows = out + first * head.D;
    sgemm(rows, head.S, keys, {room.scores, keys}, {room.v, head.S}, 0, out_rows, head.D);
    scale_rows(rows, head.S, room.delta, out_rows, head.D);
  }
}

void backward_head(const Head& head, const float* qkv, const float* out, const float* log_sum,
                   const float* grad_out, float* grad_qkv, Scratch& room) {
  const std::int64_t S = head.S, D = head.D;
  room.load(head, qkv);
  // Last queries first: they see every key, so their products write grad_k and grad_v and the others add.
  const std::int64_t last = (head.T - 1) / kQueries * kQueries;
  for (std::int64_t first = last; first >= 0; first -= kQueries) {
    const std::int64_t rows = std::min(kQueries, head.T - first), keys = first + rows;
    const float beta = first == last ? 0 : 1;
    const float* grad_rows = grad_out + first * D;
    room.score(head, first, rows);
    sgemm(rows, keys, S, {grad_rows, D}, {room.v, S, Layout::transposed}, 0, room.grads, keys);
    row_dots(rows, S, grad_rows, out + first * D, D, room.delta);
    causal_backward(rows, first, keys, log_sum + first, room.delta, room.scores, room.grads);
    sgemm(rows, S, keys, {room.grads, keys}, {room.k, S}, 0, room.grad_q + first * S, S);
    sgemm(keys, S, rows, {room.grads, keys, Layout::transposed}, {room.q + first * S, S}, beta, room.grad_k,
          S);
    sgemm(keys, S, rows, {room.scores, keys, Layout::transposed}, {grad_rows, D}, beta, room.grad_v, S);
  }
  rotate_head(head.T, S / 2, room.grad_q, S, head.cos, head.sin, -1, head.scale(), grad_qkv, 3 * D);
  rotate_head(head.T, S / 2, room.grad_k, S, head.cos, head.sin, -1, 1, grad_qkv + D, 3 * D);
  copy_head(head.T, S, room.grad_v, S, grad_qkv + 2 * D, 3 * D);
}

Head head_of(const at::Tensor& qkv, std::int64_t T, std::int64_t S, const at::Tensor& cos,
             const at::Tensor& sin) {
  return {T, S, qkv.size(2) / 3, cos.const_data_ptr<float>(), sin.const_data_ptr<float>()};
}

/// Calls work(row of the first token, first column of the head, number of the pair) for every sequence and
/// head.
template <class Work>
void for_heads(std::int64_t rows, const Head& head, const Work& work) {
  std::int64_t number = 0;
  for (std::int64_t row = 0; row < rows; row += head.T)
    for (std::int64_t column = 0; column < head.D; column += head.S) work(row, column, number++);
}

struct FusedAttention : torch::autograd::Function<FusedAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv, std::int64_t T, std::int64_t S,
                            const at::Tensor& cos, const at::Tensor& sin) {
    const Head head = head_of(qkv, T, S, cos, sin);
    const auto rows = qkv.size(0) * qkv.size(1);
    at::Tensor out = at::empty({qkv.size(0), qkv.size(1), head.D}, qkv.options());
    at::Tensor log_sum = at::empty({rows * head.D / S}, qkv.options());
    Scratch room(head);
    const auto* x = qkv.const_data_ptr<float>();
    auto *y = out.mutable_data_ptr<float>(), *sums = log_sum.mutable_data_ptr<float>();
    for_heads(rows, head, [&](std::int64_t row, std::int64_t column, std::int64_t number) {
      forward_head(head, x + row * 3 * head.D + column, y + row * head.D + column, sums + number * T, room);
    });
    context->save_for_backward({qkv, out, log_sum, cos, sin});
    context->saved_data["T"] = T;
    context->saved_data["S"] = S;
    return out;
  }
  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &qkv = saved[0], &out = saved[1], &log_sum = saved[2];
    const auto T = context->saved_data["T"].toInt();
    const Head head = head_of(qkv, T, context->saved_data["S"].toInt(), saved[3], saved[4]);
    const at::Tensor grad_out = grads[0].contiguous();
    at::Tensor grad_qkv = at::empty_like(qkv);
    Scratch room(head);
    const auto *x = qkv.const_data_ptr<float>(), *y = out.const_data_ptr<float>(),
               *dy = grad_out.const_data_ptr<float>(), *sums = log_sum.const_data_ptr<float>();
    auto* dx = grad_qkv.mutable_data_ptr<float>();
    for_heads(qkv.size(0) * qkv.size(1), head,
              [&](std::int64_t row, std::int64_t column, std::int64_t number) {
                const auto in = row * 3 * head.D + column, at = row * head.D + column;
                backward_head(head, x + in, y + at, sums + number * T, dy + at, dx + in, room);
              });
    return {grad_qkv, {}, {}, {}, {}};
  }
};

/// x [.., T, S] turned by its position, in at least float32, back in x's type.
at::Tensor rotate(const at::Tensor& x, const RotaryTable& table) {
  const auto T = x.size(-2);
  const auto wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor cos = table.cos_TP.narrow(0, 0, T).to(wide), sin = table.sin_TP.narrow(0, 0, T).to(wide);
  const auto halves = x.to(wide).chunk(2, -1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1)
      .to(x.scalar_type());
}

}  // namespace

RotaryTable rotary_table(std::int64_t context, std::int64_t head_size, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor rate_P = at::pow(10000.0, at::arange(0, head_size, 2, options).div(-head_size));
  const at::Tensor angle_TP = at::outer(at::arange(context, options), rate_P);
  return {angle_TP.cos().to(device, at::kFloat), angle_TP.sin().to(device, at::kFloat)};
}

at::Tensor composed::causal_attention(const at::Tensor& qkv_KRC, std::int64_t T, std::int64_t head_size,
                                      const RotaryTable& table) {
  const auto K = qkv_KRC.size(0), R = qkv_KRC.size(1), D = qkv_KRC.size(2) / 3;
  const auto heads = D / head_size, B = R / T;
  const at::Tensor split = qkv_KRC.view({K * B, T, 3, heads, head_size}).permute({2, 0, 3, 1, 4});
  const at::Tensor mixed =
      at::scaled_dot_product_attention(rotate(split[0], table), rotate(split[1], table), split[2], {}, 0.0,
                                       /*is_causal=*/true, 1 / std::sqrt(static_cast<double>(head_size)));
  return mixed.transpose(1, 2).reshape({K, R, D});
}

at::Tensor causal_attention(const at::Tensor& qkv_KRC, std::int64_t T, std::int64_t head_size,
                            const RotaryTable& table) {
  if (!fused(qkv_KRC)) return composed::causal_attention(qkv_KRC, T, head_size, table);
  return FusedAttention::apply(qkv_KRC.contiguous(), T, head_size, table.cos_TP, table.sin_TP);
}

}  // namespace models::ops
