#include "models/moe.h"

#include <algorithm>

#include "tests/models/reference.h"
#include "tests/models/tiny.h"
#include "tests/support/catch.h"

using namespace models;

namespace {

constexpr std::int64_t kSlots = 2, kTokens = 23;

at::Tensor normal(at::IntArrayRef sizes, std::uint64_t seed, double std = 1) {
  at::set_num_threads(1);
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::kDouble)
      .mul_(std)
      .set_requires_grad(true);
}

/// x and the weights of a block, float64 leaves.
struct Block {
  at::Tensor x;
  MoeWeights weights;

  std::vector<at::Tensor> leaves() const {
    std::vector<at::Tensor> all{x, weights.router_KDN, weights.expert_gate_up_KNDH, weights.expert_down_KNHD};
    if (weights.shared_down_KHD.defined()) {
      all.push_back(weights.shared_gate_up_KDH);
      all.push_back(weights.shared_down_KHD);
    }
    return all;
  }
  std::vector<at::Tensor> take_gradients() const {
    std::vector<at::Tensor> grads;
    for (auto& leaf : leaves()) {
      grads.push_back(leaf.grad().clone());
      leaf.mutable_grad().reset();
    }
    return grads;
  }
};

Block random_block(const ModelShape& shape) {
  const auto d = shape.width, N = shape.num_experts, h = shape.expert_width, s = shape.num_shared;
  Block block;
  block.x = normal({kSlots, kTokens, d}, 1);
  block.weights = {.router_KDN = normal({kSlots, d, N}, 2, 0.2),
                   .expert_gate_up_KNDH = normal({kSlots, N, d, 2 * h}, 3, 0.2),
                   .expert_down_KNHD = normal({kSlots, N, h, d}, 4, 0.2),
                   .shared_gate_up_KDH = {},
                   .shared_down_KHD = {},
                   .bias_KN = at::zeros({kSlots, N})};
  if (s > 0) {
    block.weights.shared_gate_up_KDH = normal({kSlots, d, 2 * s * h}, 5, 0.2);
    block.weights.shared_down_KHD = normal({kSlots, s * h, d}, 6, 0.2);
  }
  return block;
}

at::Tensor plain_loop(const Block& block, const ModelShape& shape, const MoeScales& scales) {
  const auto slice = [](const at::Tensor& t, std::int64_t k) { return t.defined() ? t[k] : t; };
  std::vector<at::Tensor> slots;
  for (std::int64_t k = 0; k < kSlots; ++k) {
    const auto& w = block.weights;
    slots.push_back(reference::moe(
        block.x[k],
        {w.router_KDN[k], w.expert_gate_up_KNDH[k], w.expert_down_KNHD[k], slice(w.shared_gate_up_KDH, k),
         slice(w.shared_down_KHD, k), w.bias_KN[k].to(at::kDouble)},
        shape, scales.routed, scales.shared));
  }
  return at::stack(slots);
}

/// Output and every gradient against the loop, float64 rounding apart.
void check_against_loop(const Block& block, const ModelShape& shape) {
  const MoeScales scales{.routed = 1.7, .shared = 0.6};
  const at::Tensor direction = normal({kSlots, kTokens, shape.width}, 9).detach();
  const at::Tensor expected = plain_loop(block, shape, scales);
  (expected * direction).sum().backward();
  const auto expected_grads = block.take_gradients();
  const MoeOutput output = moe(block.x, block.weights, shape, scales);
  (output.y_KRD * direction).sum().backward();
  const auto grads = block.take_gradients();
  CHECK(tiny::relative_error(output.y_KRD, expected) < 1e-13);
  for (std::size_t i = 0; i < grads.size(); ++i) {
    INFO("gradient " << i);
    // With a = 1 the gate is 1 whatever the router says, and its gradient nothing but rounding.
    const double largest = std::max(1.0, expected_grads[i].abs().max().item<double>());
    CHECK((grads[i] - expected_grads[i]).abs().max().item<double>() < 1e-12 * largest);
  }
  // Dropless: every token got all of its experts.
  CHECK(at::equal(output.load_KN.sum(-1), at::full({kSlots}, kTokens * shape.num_active, at::kFloat)));
}

}  // namespace

TEST_CASE("a MoE block is the plain loop over its tokens, gradients included", "[models][moe]") {
  const std::string code =
      GENERATE(as<std::string>{}, "8e2a", "8e4a2g1s", "8e4a4g", "6e3a2s", "8e1a", "4e4a", "1e1a", "1e1a1s");
  INFO(code);
  const ModelShape shape = tiny::moe(code, 12);
  check_against_loop(random_block(shape), shape);
}

TEST_CASE("the float32 kernels of a MoE block agree with float64", "[models][moe]") {
  const std::string code = GENERATE(as<std::string>{}, "8e2a", "8e4a2g1s");
  INFO(code);
  const ModelShape shape = tiny::moe(code, 12);
  Block exact = random_block(shape), rounded = exact;
  for (at::Tensor* t : {&rounded.x, &rounded.weights.router_KDN, &rounded.weights.expert_gate_up_KNDH,
                        &rounded.weights.expert_down_KNHD, &rounded.weights.shared_gate_up_KDH,
                        &rounded.weights.shared_down_KHD})
    if (t->defined()) *t = t->detach().to(at::kFloat).set_requires_grad(true);
  const MoeScales scales{.routed = 2, .shared = 0.5};
  const MoeOutput expected = moe(exact.x, exact.weights, shape, scales);
  const MoeOutput output = moe(rounded.x, rounded.weights, shape, scales);
  REQUIRE(at::equal(output.load_KN, expected.load_KN));
  expected.y_KRD.square().sum().backward();
  output.y_KRD.square().sum().backward();
  CHECK(output.y_KRD.scalar_type() == at::kFloat);
  CHECK(tiny::relative_error(output.y_KRD, expected.y_KRD) < 1e-5);
  const auto grads = rounded.take_gradients(), expected_grads = exact.take_gradients();
  for (std::size_t i = 0; i < grads.size(); ++i)
    CHECK(tiny::relative_error(grads[i], expected_grads[i]) < 1e-5);
}

TEST_CASE("an expert without tokens gets a zero gradient and harms nobody", "[models][moe]") {
  const ModelShape shape = tiny::moe("8e2a", 12);
  Block block = random_block(shape);
  block.weights.bias_KN.select(1, 3).fill_(-10);  // never among the best
  check_against_loop(block, shape);
  const MoeOutput output = moe(block.x, block.weights, shape, {});
  output.y_KRD.sum().backward();
  CHECK(output.load_KN.select(1, 3).eq(0).all().item<bool>());
  CHECK(block.weights.expert_down_KNHD.grad().select(1, 3).eq(0).all().item<bool>());
  CHECK(block.weights.expert_gate_up_KNDH.grad().select(1, 3).eq(0).all().item<bool>());
}

TEST_CASE("a skewed router drops no token", "[models][moe]") {
  const ModelShape shape = tiny::moe("8e2a1s", 12);
  Block block = random_block(shape);
  block.weights.bias_KN.select(1, 5).fill_(10);  // every token wants expert 5
  check_against_loop(block, shape);
  CHECK(moe(block.x, block.weights, shape, {}).load_KN.select(1, 5).eq(kTokens).all().item<bool>());
}

TEST_CASE("the bias picks experts but does not enter the gates", "[models][moe]") {
  const ModelShape shape = tiny::moe("4e4a", 12);  // all experts active: the choice cannot change
  Block block = random_block(shape);
  const at::Tensor before = moe(block.x, block.weights, shape, {}).y_KRD;
  block.weights.bias_KN.add_(0.5);
  CHECK(at::equal(before, moe(block.x, block.weights, shape, {}).y_KRD));
}

TEST_CASE("gates may be a softmax and may be left as they are", "[models][moe]") {
  const at::NoGradGuard no_grad;
  const auto output = [](const std::string& code, const GateRule& gates, const at::Tensor& times = {}) {
    const ModelShape shape = tiny::moe(code, 12);
    const Block block = random_block(shape);
    const at::Tensor y = moe(block.x, block.weights, shape, {.gates = gates}).y_KRD;
    return times.defined() ? y * times : y;
  };
  const auto logits = [](const std::string& code) {
    const Block block = random_block(tiny::moe(code, 12));
    return at::matmul(block.x, block.weights.router_KDN);
  };
  const GateRule softmax{.softmax = true, .normalised = true},
      raw_softmax{.softmax = true, .normalised = false};
  const GateRule raw_sigmoid{.softmax = false, .normalised = false};
  // One expert: a gate over itself is 1, and left as it is the gate scales the output.
  CHECK(tiny::relative_error(output("1e1a", raw_sigmoid), output("1e1a", {}, at::sigmoid(logits("1e1a")))) <
        1e-12);
  // All experts active: a softmax sums to 1 already.
  CHECK(tiny::relative_error(output("4e4a", raw_softmax), output("4e4a", softmax)) < 1e-12);
  CHECK(tiny::relative_error(output("4e4a", softmax), output("4e4a", {})) > 1e-3);
  // Two of eight: as it is, it lacks what the other six have.
  const at::Tensor taken = std::get<0>(at::softmax(logits("8e2a"), -1).topk(2, -1)).sum(-1, true);
  CHECK(tiny::relative_error(output("8e2a", raw_softmax), output("8e2a", softmax, taken)) < 1e-12);
}

TEST_CASE("the balancing bias falls for busy experts and rises for idle ones", "[models][moe]") {
  at::Tensor bias = at::zeros({2, 4});
  const at::Tensor load = at::tensor({5.f, 1.f, 3.f, 3.f, 6.f, 2.f, 2.f, 2.f}).view({2, 4});
  balance(bias, load, {true, true}, 0.5);
  CHECK(at::equal(bias, at::tensor({-.5f, .5f, 0.f, 0.f, -.5f, .5f, .5f, .5f}).view({2, 4})));
  balance(bias, load, {false, true}, 0.5);
  CHECK(at::equal(bias[0], at::tensor({-.5f, .5f, 0.f, 0.f})));
  CHECK(at::equal(bias[1], at::tensor({-1.f, 1.f, 1.f, 1.f})));
}

TEST_CASE("balancing evens the load of a lopsided router", "[models][moe]") {
  const ModelShape shape = tiny::moe("8e2a", 12);
  Block block = random_block(shape);
  const at::NoGradGuard no_grad;
  // A common direction in the tokens makes the router prefer the same experts everywhere.
  block.x.add_(normal({1, 1, shape.width}, 11).detach());
  const auto imbalance = [](const MoeOutput& output) {
    return (output.load_KN.amax(-1) / output.load_KN.mean(-1)).max().item<double>();
  };
  const double before = imbalance(moe(block.x, block.weights, shape, {}));
  for (int step = 0; step < 200; ++step)
    balance(block.weights.bias_KN, moe(block.x, block.weights, shape, {}).load_KN, {true, true}, 5e-3);
  const double after = imbalance(moe(block.x, block.weights, shape, {}));
  CHECK(before > 2.0);
  CHECK(after < 1.5);  // 23 tokens on 8 experts: 5.75 each, so one token more or less is 0.17
}
