#include "tests/models/reference.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace reference {
namespace {

using at::Tensor;
using models::TensorGroup;

Tensor norm(const Tensor& x, const Tensor& gain) {
  return x / at::sqrt((x * x).mean(-1, true) + 1e-6) * gain;
}

Tensor swiglu_ffn(const Tensor& x, const Tensor& gate_up, const Tensor& down) {
  const auto H = down.size(0);
  const Tensor gate = at::matmul(x, gate_up.narrow(1, 0, H)), up = at::matmul(x, gate_up.narrow(1, H, H));
  return at::matmul(gate / (1 + at::exp(-gate)) * up, down);
}

/// Pair i of x turned by the angle t * 10000^(-2i/S), as a product of complex numbers.
Tensor rotated(const Tensor& x) {
  const auto T = x.size(0), S = x.size(1);
  const Tensor pairs = at::complex(x.narrow(1, 0, S / 2), x.narrow(1, S / 2, S / 2));
  const Tensor rate =
      at::exp(at::arange(S / 2, at::kDouble) * (-2 * std::log(10000.0) / static_cast<double>(S)));
  // The model keeps cosines and sines as float32.
  const Tensor angle = at::arange(T, at::kDouble).unsqueeze(1) * rate;
  const Tensor turn =
      at::complex(angle.cos().to(at::kFloat).to(at::kDouble), angle.sin().to(at::kFloat).to(at::kDouble));
  const Tensor turned = pairs * turn;
  return at::cat({at::real(turned), at::imag(turned)}, 1);
}

/// One sequence: x [T, D].
Tensor attention(const Tensor& x, const Tensor& qkv, const Tensor& out, std::int64_t S) {
  const auto T = x.size(0), D = x.size(1);
  const Tensor all = at::matmul(x, qkv);
  std::vector<Tensor> heads;
  for (std::int64_t column = 0; column < D; column += S) {
    const Tensor q = rotated(all.narrow(1, column, S)), k = rotated(all.narrow(1, D + column, S));
    const Tensor v = all.narrow(1, 2 * D + column, S);
    std::vector<Tensor> rows;
    for (std::int64_t t = 0; t < T; ++t) {
      const Tensor scores = at::matmul(k.narrow(0, 0, t + 1), q[t]) / std::sqrt(static_cast<double>(S));
      rows.push_back(at::matmul(at::softmax(scores, 0), v.narrow(0, 0, t + 1)));
    }
    heads.push_back(at::stack(rows));
  }
  return at::matmul(at::cat(heads, 1), out);
}

/// The experts of one token: the best of each group by score, lower index first among equals.
std::vector<std::int64_t> chosen(const Tensor& scores, const models::ModelShape& shape) {
  const auto group_size = shape.num_experts / shape.num_groups;
  std::vector<std::int64_t> all;
  for (std::int64_t g = 0; g < shape.num_groups; ++g) {
    std::vector<std::int64_t> experts(static_cast<std::size_t>(group_size));
    std::iota(experts.begin(), experts.end(), g * group_size);
    std::stable_sort(experts.begin(), experts.end(), [&](std::int64_t a, std::int64_t b) {
      return scores[a].item<double>() > scores[b].item<double>();
    });
    all.insert(all.end(), experts.begin(), experts.begin() + shape.num_active / shape.num_groups);
  }
  return all;
}

}  // namespace

Tensor moe(const Tensor& x, const MoeWeights& weights, const models::ModelShape& shape, double routed,
           double shared) {
  std::vector<Tensor> rows;
  for (std::int64_t token = 0; token < x.size(0); ++token) {
    const Tensor row = x[token];
    const Tensor logits = at::matmul(row, weights.router);
    const Tensor gates = 1 / (1 + at::exp(-logits));
    Tensor sum = at::zeros({x.size(1)}, at::kDouble), total = at::zeros({}, at::kDouble);
    for (const auto e : chosen(gates.detach() + weights.bias, shape)) {
      sum = sum + gates[e] * swiglu_ffn(row, weights.expert_gate_up[e], weights.expert_down[e]);
      total = total + gates[e];
    }
    Tensor y = sum / total * routed;
    if (weights.shared_down.defined()) {
      const auto h = shape.expert_width, width = shape.num_shared * h;
      for (std::int64_t s = 0; s < shape.num_shared; ++s) {  // each shared expert by itself
        const Tensor gate_up = at::cat(
            {weights.shared_gate_up.narrow(1, s * h, h), weights.shared_gate_up.narrow(1, width + s * h, h)},
            1);
        y = y + swiglu_ffn(row, gate_up, weights.shared_down.narrow(0, s * h, h)) * shared;
      }
    }
    rows.push_back(y);
  }
  return at::stack(rows);
}

Tensor loss(const Weights& weights, const Tensor& tokens, const models::ModelOptions& options) {
  const auto& shape = options.run.shape;
  std::map<std::string, Tensor> by_name;
  const auto specs = models::tensor_specs(shape);
  for (std::size_t i = 0; i < specs.size(); ++i) by_name[specs[i].name] = weights[i];
  const auto forward = [&](TensorGroup group) {
    return models::group_scaling(group, options.run, options.proxy, options.rule).forward;
  };
  Tensor total = at::zeros({}, at::kDouble);
  const auto B = tokens.size(0), T = tokens.size(1) - 1;
  for (std::int64_t b = 0; b < B; ++b) {
    Tensor x = by_name["embedding"].index({tokens[b].narrow(0, 0, T)});
    for (std::int64_t layer = 0; layer < shape.depth; ++layer) {
      const std::string block = "blocks." + std::to_string(layer) + ".";
      const auto weight = [&](const char* name) { return by_name[block + name]; };
      x = x + forward(TensorGroup::attention) * attention(norm(x, weight("attention.norm")),
                                                          weight("attention.qkv"), weight("attention.out"),
                                                          shape.head_size);
      const Tensor in = norm(x, weight("ffn.norm"));
      if (!shape.is_moe()) {
        x = x + forward(TensorGroup::ffn_down) * swiglu_ffn(in, weight("ffn.gate_up"), weight("ffn.down"));
        continue;
      }
      const MoeWeights moe_weights{weight("moe.router"),      weight("moe.expert_gate_up"),
                                   weight("moe.expert_down"), weight("moe.shared_gate_up"),
                                   weight("moe.shared_down"), at::zeros({shape.num_experts}, at::kDouble)};
      x = x + moe(in, moe_weights, shape,
                  forward(TensorGroup::expert_down) * models::route_scale(shape, options.rule),
                  forward(TensorGroup::shared_down));
    }
    const Tensor logits =
        forward(TensorGroup::head) * at::matmul(norm(x, by_name["final_norm"]), by_name["head"]);
    for (std::int64_t t = 0; t < T; ++t)
      total = total - at::log(at::softmax(logits[t], 0)[tokens[b][t + 1].item<std::int64_t>()]);
  }
  return total / static_cast<double>(B * T);
}

}  // namespace reference
