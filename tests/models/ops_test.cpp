#include <functional>
#include <limits>

#include "models/ops/causal_attention.h"
#include "models/ops/cross_entropy.h"
#include "models/ops/dispatch.h"
#include "models/ops/embedding.h"
#include "models/ops/grouped_mm.h"
#include "models/ops/linear.h"
#include "models/ops/rms_norm.h"
#include "models/ops/swiglu.h"
#include "models/ops/vector_math.h"
#include "tests/models/tiny.h"
#include "tests/support/catch.h"

using namespace models;

namespace {

using Tensors = std::vector<at::Tensor>;
using Op = std::function<Tensors(const Tensors&)>;

at::Tensor normal(at::IntArrayRef sizes, std::uint64_t seed) {
  at::set_num_threads(1);
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::kDouble);
}

/// Outputs of `op` in `type`, then the gradients of a fixed random combination of them.
Tensors run(const Op& op, const Tensors& inputs, at::ScalarType type) {
  Tensors leaves;
  for (const auto& input : inputs) leaves.push_back(input.to(type).clone().set_requires_grad(true));
  Tensors results = op(leaves);
  at::Tensor total = at::zeros({}, at::kDouble);
  std::uint64_t seed = 77;
  for (const auto& out : results) total = total + (out.to(at::kDouble) * normal(out.sizes(), ++seed)).sum();
  total.backward();
  for (const auto& leaf : leaves) results.push_back(leaf.grad());
  return results;
}

/// Float32 sums of a few hundred terms of size one: some 1e-6 of the largest value.
constexpr double kFloatTolerance = 3e-6;

void check_against_float64(const Op& fused, const Op& composed, const Tensors& inputs,
                           double tolerance = kFloatTolerance) {
  const Tensors got = run(fused, inputs, at::kFloat), expected = run(composed, inputs, at::kDouble);
  REQUIRE(got.size() == expected.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    INFO("result " << i);
    CHECK(got[i].scalar_type() == at::kFloat);
    CHECK(tiny::relative_error(got[i], expected[i]) < tolerance);
  }
}

}  // namespace

TEST_CASE("the fast exponential is within two units in the last place", "[models][ops]") {
  double worst = 0;
  for (int i = -86999; i < 88000; ++i) {
    const float x = static_cast<float>(i) * 1e-3f;
    const double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(ops::fast_exp(x)) - exact) / exact);
  }
  CHECK(worst < 2 * 1.2e-7);
  CHECK(std::isnan(ops::fast_exp(std::numeric_limits<float>::quiet_NaN())));
  CHECK(ops::fast_exp(-1000) < 1e-37f);
}

TEST_CASE("the fused norm and its gradients agree with float64", "[models][ops]") {
  const auto D = GENERATE(32, 37);
  const Tensors inputs{normal({2, 9, D}, 1), normal({2, D}, 2)};
  const auto fused = [](const Tensors& x) -> Tensors {
    return {ops::rms_norm(x[0], x[1], x[0].scalar_type())};
  };
  const auto composed = [](const Tensors& x) -> Tensors {
    return {ops::composed::rms_norm(x[0], x[1], x[0].scalar_type())};
  };
  check_against_float64(fused, composed, inputs);
}

TEST_CASE("the fused residual norm and its gradients agree with float64", "[models][ops]") {
  const double scale = GENERATE(1.0, 0.25);
  const Tensors inputs{normal({2, 9, 37}, 1), normal({2, 9, 37}, 2), normal({2, 37}, 3)};
  const auto fused = [&](const Tensors& x) -> Tensors {
    const auto [sum, y] = ops::add_rms_norm(x[0], x[1], scale, x[2], x[0].scalar_type());
    return {sum, y};
  };
  const auto composed = [&](const Tensors& x) -> Tensors {
    const auto [sum, y] = ops::composed::add_rms_norm(x[0], x[1], scale, x[2], x[0].scalar_type());
    return {sum, y};
  };
  check_against_float64(fused, composed, inputs);
  // The last norm of a model: nobody reads the sum. And a stream that nobody normalises.
  for (const std::size_t only : {std::size_t{0}, std::size_t{1}})
    check_against_float64([&](const Tensors& x) -> Tensors { return {fused(x)[only] + 0 * x[2].sum()}; },
                          [&](const Tensors& x) -> Tensors { return {composed(x)[only] + 0 * x[2].sum()}; },
                          inputs);
}

TEST_CASE("the fused SwiGLU and its gradient agree with float64", "[models][ops]") {
  const Tensors inputs{normal({2, 9, 2 * 37}, 1) * 5};
  check_against_float64([](const Tensors& x) -> Tensors { return {ops::swiglu(x[0])}; },
                        [](const Tensors& x) -> Tensors { return {ops::composed::swiglu(x[0])}; }, inputs);
}

TEST_CASE("the fused cross-entropy and its gradient agree with float64", "[models][ops]") {
  const double scale = GENERATE(1.0, 0.125);
  const at::Tensor targets = at::arange(2 * 9, at::kLong).mul(5).remainder(37).view({2, 9});
  const Tensors inputs{normal({2, 9, 37}, 1) * 6};
  check_against_float64(
      [&](const Tensors& x) -> Tensors { return {ops::cross_entropy(x[0], scale, targets)}; },
      [&](const Tensors& x) -> Tensors { return {ops::composed::cross_entropy(x[0], scale, targets)}; },
      inputs);
}

TEST_CASE("a target outside the vocabulary is refused", "[models][ops]") {
  const at::Tensor logits = at::zeros({1, 2, 5});
  CHECK_THROWS_WITH(ops::cross_entropy(logits, 1, at::full({1, 2}, 5, at::kLong)),
                    ContainsSubstring("token 5") && ContainsSubstring("vocabulary of 5"));
}

TEST_CASE("the fused attention and its gradient agree with float64", "[models][ops][attention]") {
  const auto T = GENERATE(1, 7, 64, 150);  // within a block of queries, exactly one, and over several
  constexpr std::int64_t S = 16, D = 3 * S;
  const auto table = ops::rotary_table(T + 2, S, at::kCPU);
  const Tensors inputs{normal({2, 2 * T, 3 * D}, 1)};
  INFO("T = " << T);
  check_against_float64(
      [&](const Tensors& x) -> Tensors { return {ops::causal_attention(x[0], T, S, table)}; },
      [&](const Tensors& x) -> Tensors { return {ops::composed::causal_attention(x[0], T, S, table)}; },
      inputs);
}

TEST_CASE("attention sees no later token", "[models][ops][attention]") {
  constexpr std::int64_t T = 80, S = 8, D = 16;
  const auto table = ops::rotary_table(T, S, at::kCPU);
  const at::Tensor qkv = normal({1, T, 3 * D}, 4).to(at::kFloat);
  const at::Tensor before = ops::causal_attention(qkv, T, S, table);
  at::Tensor changed = qkv.clone();
  changed.narrow(1, 70, 10).fill_(1e3);
  const at::Tensor after = ops::causal_attention(changed, T, S, table);
  CHECK(at::equal(before.narrow(1, 0, 70), after.narrow(1, 0, 70)));
  CHECK(tiny::relative_error(before.narrow(1, 70, 10), after.narrow(1, 70, 10)) > 0.1);
}

TEST_CASE("attention depends on relative positions only", "[models][ops][attention]") {
  constexpr std::int64_t S = 8, D = 16;
  const auto table = ops::rotary_table(9, S, at::kCPU);
  // The first token has value 1, all others 0: the output is its weight. Moved behind `gap` tokens whose keys
  // and values are zero, 1/weight must grow by gap * e^-s0, whatever the positions, if s0 depends on distance
  // only.
  at::Tensor pair = normal({1, 2, 3 * D}, 4).to(at::kFloat);
  pair.narrow(2, 2 * D, D).zero_().select(1, 0).fill_(1);
  const at::Tensor near = ops::causal_attention(pair, 2, S, table).select(1, 1);
  for (const std::int64_t gap : {3, 6}) {
    at::Tensor moved = at::zeros({1, gap + 2, 3 * D});
    moved.narrow(1, gap, 2).copy_(pair);
    const at::Tensor far = ops::causal_attention(moved, gap + 2, S, table).select(1, gap + 1);
    // w = e^s0 / (e^s0 + e^s1 + gap)
    const at::Tensor odds = far.reciprocal() - near.reciprocal();  // gap * e^-s0
    const at::Tensor first =
        (ops::causal_attention(moved.narrow(1, gap - 1, 3), 3, S, table).select(1, 2)).reciprocal() -
        near.reciprocal();  // e^-s0, the pair at positions 1 and 2
    CHECK(tiny::relative_error(odds, first * static_cast<double>(gap)) < 1e-4);
  }
}

TEST_CASE("rotary angles are t * 10000^(-2i/S)", "[models][ops][attention]") {
  const auto table = ops::rotary_table(6, 8, at::kCPU);
  CHECK(table.cos_TP.sizes() == at::IntArrayRef({6, 4}));
  CHECK_THAT(table.cos_TP[5][0].item<double>(), WithinAbs(std::cos(5.0), 1e-7));
  CHECK_THAT(table.sin_TP[3][2].item<double>(), WithinAbs(std::sin(3.0 * 0.01), 1e-7));
}

TEST_CASE("embedding gradients add up over repeated tokens, slot by slot", "[models][ops]") {
  at::Tensor table = normal({2, 5, 3}, 1).set_requires_grad(true);
  const at::Tensor ids = at::tensor({1, 1, 4, 0, 4, 4}, at::kLong).view({2, 3});
  const at::Tensor rows = ops::embedding(table, ids);
  CHECK(at::equal(rows[1][1], table[1][4]));
  rows.sum().backward();
  const at::Tensor counts = at::tensor({0, 2, 0, 0, 1, 1, 0, 0, 0, 2}, at::kDouble).view({2, 5, 1});
  CHECK(at::equal(table.grad(), counts.expand({2, 5, 3})));
}

TEST_CASE("linear of one slot and of several is the matrix product", "[models][ops]") {
  const Tensors inputs{normal({3, 4, 5}, 1), normal({3, 5, 6}, 2)};
  const auto product = [](const Tensors& x) -> Tensors {
    return {(x[0].unsqueeze(-1) * x[1].unsqueeze(1)).sum(2)};
  };
  const auto linear = [](const Tensors& x) -> Tensors { return {ops::linear(x[0], x[1])}; };
  check_against_float64(linear, product, inputs);
  check_against_float64(linear, product, {inputs[0].narrow(0, 1, 1), inputs[1].narrow(0, 1, 1)});
}

TEST_CASE("grouped products agree with one product a group, empty groups included", "[models][ops][moe]") {
  const at::Tensor ends = at::tensor({2, 2, 7, 9, 9}, at::kInt);
  const Tensors inputs{normal({9, 6}, 1), normal({5, 6, 4}, 2)};
  const auto grouped = [&](const Tensors& x) -> Tensors { return {ops::grouped_mm(x[0], x[1], ends)}; };
  const auto each = [](const Tensors& x) -> Tensors {
    return {at::cat({at::mm(x[0].narrow(0, 0, 2), x[1][0]), at::mm(x[0].narrow(0, 2, 5), x[1][2]),
                     at::mm(x[0].narrow(0, 7, 2), x[1][3])})};
  };
  check_against_float64(grouped, each, inputs);
  // LibTorch's own operator, which CUDA uses.
  at::Tensor x = inputs[0].to(at::kFloat).narrow(1, 0, 4).contiguous(),
             w = inputs[1].to(at::kFloat).narrow(1, 0, 4).contiguous();
  CHECK(tiny::relative_error(ops::grouped_mm(x, w, ends), at::_grouped_mm(x, w, ends)) < kFloatTolerance);
}

TEST_CASE("experts are picked by score, the lower index among equals", "[models][ops][moe]") {
  const at::Tensor scores = at::tensor({0.5, 0.9, 0.5, 0.9, 0.1, 0.5, 0.2, 0.2}).view({1, 1, 8});
  const auto picked = [&](std::int64_t active, std::int64_t groups) {
    const at::Tensor experts = ops::select_experts(scores, active, groups);
    return std::vector<std::int64_t>(experts.const_data_ptr<std::int64_t>(),
                                     experts.const_data_ptr<std::int64_t>() + active);
  };
  CHECK(picked(1, 1) == std::vector<std::int64_t>{1});
  CHECK(picked(4, 1) == std::vector<std::int64_t>{1, 3, 0, 2});
  CHECK(picked(8, 1) == std::vector<std::int64_t>{1, 3, 0, 2, 5, 6, 7, 4});
  CHECK(picked(4, 2) == std::vector<std::int64_t>{1, 3, 5, 6});
  CHECK(picked(4, 4) == std::vector<std::int64_t>{1, 3, 5, 6});
}

TEST_CASE("experts are picked without repeats also where scores are NaN", "[models][ops][moe]") {
  at::Tensor scores = at::full({1, 1, 6}, std::numeric_limits<float>::quiet_NaN());
  CHECK(at::equal(ops::select_experts(scores, 3, 1).flatten(), at::tensor({0, 1, 2}, at::kLong)));
  scores[0][0][4] = 0.5f;
  CHECK(at::equal(ops::select_experts(scores, 2, 1).flatten(), at::tensor({4, 0}, at::kLong)));
}

TEST_CASE("the counting sort is stable, complete and the one a sort would give", "[models][ops][moe]") {
  constexpr std::int64_t K = 2, R = 50, a = 3, N = 7;
  const at::Tensor scores = normal({K, R, N}, 3);
  const at::Tensor experts = ops::select_experts(scores, a, 1);
  const auto plan = ops::dispatch(experts, N);
  const at::Tensor group = (experts + at::arange(K, at::kLong).mul(N).view({K, 1, 1})).flatten();
  CHECK(at::equal(plan.order_M, std::get<1>(at::sort(group, /*stable=*/true, 0, false))));
  CHECK(at::equal(plan.order_M.index_select(0, plan.position_M), at::arange(K * R * a, at::kLong)));
  CHECK(at::equal(plan.load_KN.sum(-1), at::full({K}, R * a, at::kFloat)));
  CHECK(at::equal(plan.load_KN.flatten(), at::bincount(group, {}, K * N).to(at::kFloat)));
  CHECK(at::equal(plan.ends_G, plan.load_KN.flatten().cumsum(0).to(at::kInt)));
}

TEST_CASE("gather and combine and their gradients agree with indexing in float64", "[models][ops][moe]") {
  constexpr std::int64_t K = 2, R = 11, a = 3, N = 5, D = 37;
  const at::Tensor experts = ops::select_experts(normal({K, R, N}, 3), a, 1);
  const auto plan = ops::dispatch(experts, N);
  const at::Tensor token = plan.order_M.div(a, "floor");
  const auto indexed = [&](const Tensors& x) -> Tensors {
    const at::Tensor rows = x[0].reshape({K * R, D}).index({token});
    const at::Tensor weighted = x[1].index({plan.position_M}).view({K, R, a, D}) * x[2].unsqueeze(-1);
    return {rows, weighted.sum(2) * 1.5};
  };
  const auto ours = [&](const Tensors& x) -> Tensors {
    return {ops::gather_rows(x[0], plan), ops::combine_rows(x[1], x[2], plan, 1.5)};
  };
  const Tensors inputs{normal({K, R, D}, 1), normal({K * R * a, D}, 2), normal({K, R, a}, 4)};
  check_against_float64(ours, indexed, inputs);
  const Tensors got = run(ours, inputs, at::kDouble), expected = run(indexed, inputs, at::kDouble);
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(tiny::relative_error(got[i], expected[i]) < 1e-14);
}
