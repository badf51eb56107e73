#include "models/language_model.h"

#include <limits>

#include "models/model.h"
#include "tests/models/reference.h"
#include "tests/models/tiny.h"
#include "tests/support/catch.h"

using namespace models;

namespace {

ModelShape shape_of(const std::string& code) { return code == "dense" ? tiny::dense() : tiny::moe(code); }

/// K slots with a seed and an init std of their own.
std::unique_ptr<Model> stack(const ModelShape& shape, std::int64_t slots, std::int64_t first = 0) {
  auto model = make_model(tiny::options(shape, slots));
  for (std::int64_t k = 0; k < slots; ++k)
    model->initialise(k, static_cast<std::uint64_t>(100 + first + k),
                      0.05 * static_cast<double>(1 + first + k));
  return model;
}

void check_slot_equals_solo(Model& stacked, const at::Tensor& losses, std::int64_t k, Model& solo,
                            const at::Tensor& solo_loss) {
  CHECK(at::equal(losses[k], solo_loss[0]));
  for (std::size_t i = 0; i < solo.parameters().size(); ++i) {
    INFO(solo.parameters()[i].spec.name);
    CHECK(at::equal(stacked.parameters()[i].value.grad()[k], solo.parameters()[i].value.grad()[0]));
  }
}

}  // namespace

TEST_CASE("a slot's loss and gradients are bit for bit those of a model of its own", "[models][slots]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e2a", "8e4a2g1s");
  ModelShape shape = shape_of(code);
  shape.vocab = GENERATE(40, 37);  // 37: slices of slots 1 and 2 are not aligned
  INFO(code << ", vocabulary " << shape.vocab);
  constexpr std::int64_t kSlots = 3;
  const at::Tensor tokens = tiny::tokens(shape, kSlots, 3, 5);
  const auto stacked = stack(shape, kSlots);
  const at::Tensor losses = stacked->loss(tokens);
  losses.sum().backward();
  for (std::int64_t k = 0; k < kSlots; ++k) {
    const auto solo = stack(shape, 1, k);
    const at::Tensor loss = solo->loss(tokens.narrow(0, k, 1));
    loss.sum().backward();
    check_slot_equals_solo(*stacked, losses, k, *solo, loss);
  }
}

TEST_CASE("a slot that is NaN leaves its neighbours alone", "[models][slots]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e2a", "8e4a2g1s");
  INFO(code);
  const ModelShape shape = shape_of(code);
  const at::Tensor tokens = tiny::tokens(shape, 3, 2, 6);
  const auto stacked = stack(shape, 3);
  {
    const at::NoGradGuard no_grad;
    for (auto& parameter : stacked->parameters())
      parameter.value.select(0, 1).fill_(std::numeric_limits<float>::quiet_NaN());
  }
  const at::Tensor losses = stacked->loss(tokens);
  losses.sum().backward();
  CHECK(std::isnan(losses[1].item<float>()));
  for (const std::int64_t k : {0, 2}) {
    const auto solo = stack(shape, 1, k);
    const at::Tensor loss = solo->loss(tokens.narrow(0, k, 1));
    loss.sum().backward();
    check_slot_equals_solo(*stacked, losses, k, *solo, loss);
  }
}

TEST_CASE("at a tiny init std the loss is ln of the vocabulary", "[models]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e2a", "8e4a2g1s");
  INFO(code);
  const ModelShape shape = shape_of(code);
  auto model = make_model(tiny::options(shape));
  model->initialise(0, 1, 1e-4);
  const double loss = model->loss(tiny::tokens(shape, 1, 4, 7)).item<double>();
  // Unit-RMS features times a head of std 1e-4: logits of about 6e-4.
  CHECK_THAT(loss, WithinAbs(std::log(static_cast<double>(shape.vocab)), 1e-3));
}

TEST_CASE("sequences of a batch do not see each other", "[models]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e2a", "8e4a2g1s");
  INFO(code);
  const ModelShape shape = shape_of(code);
  auto model = make_model(tiny::options(shape));
  model->initialise(0, 3, 0.1);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = tiny::tokens(shape, 1, 3, 8);
  double sum = 0;
  for (std::int64_t b = 0; b < 3; ++b) sum += model->loss(tokens.narrow(1, b, 1)).item<double>();
  CHECK_THAT(model->loss(tokens).item<double>(), WithinRel(sum / 3, 1e-5));  // float32, another order of sums
}

namespace {

/// The same model with float64 weights.
std::unique_ptr<Model> in_float64(const ModelOptions& options, std::uint64_t seed) {
  auto model = make_model(options);
  model->initialise(0, seed, 0.15);
  for (auto& parameter : model->parameters())
    parameter.value = parameter.value.detach().to(at::kDouble).set_requires_grad(true);
  return model;
}

/// Options whose every multiplier differs from 1.
ModelOptions far_from_proxy(const std::string& code) {
  ModelOptions options = tiny::options(shape_of(code));
  options.proxy.shape.width = 16;
  options.proxy.shape.depth = 1;
  options.proxy.shape.ffn_width = 20;
  return options;
}

}  // namespace

TEST_CASE("loss and gradients are those of a plain float64 implementation", "[models]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e2a", "8e4a2g1s");
  INFO(code);
  const auto options = far_from_proxy(code);
  const at::Tensor tokens = tiny::tokens(options.run.shape, 1, 2, 12);
  const auto wide = in_float64(options, 4);
  const at::Tensor loss = wide->loss(tokens);
  loss.sum().backward();

  std::vector<at::Tensor> weights;
  for (const auto& parameter : wide->parameters())
    weights.push_back(parameter.value.detach()[0].clone().set_requires_grad(true));
  const at::Tensor expected = reference::loss(weights, tokens[0], options);
  expected.backward();
  CHECK_THAT(loss.item<double>(), WithinRel(expected.item<double>(), 1e-12));

  auto single = make_model(options);
  single->initialise(0, 4, 0.15);
  const at::Tensor single_loss = single->loss(tokens);
  single_loss.sum().backward();
  CHECK(single_loss.scalar_type() == at::kFloat);
  CHECK_THAT(single_loss.item<double>(), WithinRel(expected.item<double>(), 1e-6));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    INFO(wide->parameters()[i].spec.name);
    CHECK(tiny::relative_error(wide->parameters()[i].value.grad()[0], weights[i].grad()) < 1e-10);
    CHECK(tiny::relative_error(single->parameters()[i].value.grad()[0], weights[i].grad()) < 2e-5);
  }
}

TEST_CASE("gradients are the finite differences of the loss", "[models]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e4a2g1s");
  INFO(code);
  const auto options = far_from_proxy(code);
  const at::Tensor tokens = tiny::tokens(options.run.shape, 1, 2, 13);
  const auto model = in_float64(options, 6);
  model->loss(tokens).sum().backward();
  const at::NoGradGuard no_grad;
  std::uint64_t seed = 20;
  for (auto& [spec, value] : model->parameters()) {
    // Along one random direction in each tensor; small enough that no token changes its experts.
    constexpr double kStep = 1e-6;
    const at::Tensor direction =
        at::randn(value.sizes(), at::detail::createCPUGenerator(++seed), at::kDouble);
    const at::Tensor start = value.detach().clone();
    const auto loss_at = [&](double step) {
      value.copy_(start + direction * step);
      return model->loss(tokens).item<double>();
    };
    const double slope = (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep);
    value.copy_(start);
    const double expected = (value.grad() * direction).sum().item<double>();
    INFO(spec.name << ": " << slope << " against " << expected);
    CHECK_THAT(slope, WithinAbs(expected, 1e-6 + 1e-5 * std::abs(expected)));
  }
}

TEST_CASE("slots that run together give the numbers of slots one by one", "[models][slots]") {
  // 300e2a: three slots at once stay below 1024 groups, so five are worked on in two parts.
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e2a", "8e4a2g1s", "300e2a");
  INFO(code);
  constexpr std::int64_t kSlots = 5;
  const ModelShape shape = shape_of(code);
  auto options = tiny::options(shape, kSlots);
  options.slot_order = SlotOrder::together;
  const auto together = make_model(options);
  const auto one_by_one = stack(shape, kSlots);
  for (std::int64_t k = 0; k < kSlots; ++k)
    together->initialise(k, static_cast<std::uint64_t>(100 + k), 0.05 * static_cast<double>(1 + k));
  const at::Tensor tokens = tiny::tokens(shape, kSlots, 3, 5);
  const at::Tensor losses = together->loss(tokens), expected = one_by_one->loss(tokens);
  losses.sum().backward();
  expected.sum().backward();
  CHECK(tiny::relative_error(losses, expected) < 1e-6);  // float32, other orders of sums
  for (std::size_t i = 0; i < together->parameters().size(); ++i)
    CHECK(tiny::relative_error(together->parameters()[i].value.grad(),
                               one_by_one->parameters()[i].value.grad()) < 2e-5);
  CHECK(together->load_imbalance() == one_by_one->load_imbalance());
}

TEST_CASE("bfloat16 changes the loss little and keeps float32 gradients", "[models]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e2a", "8e4a2g1s");
  INFO(code);
  auto options = tiny::options(shape_of(code));
  const auto exact = make_model(options);
  options.bfloat16 = true;
  const auto half = make_model(options);
  const at::Tensor tokens = tiny::tokens(options.run.shape, 1, 3, 5);
  exact->initialise(0, 1, 0.1);
  half->initialise(0, 1, 0.1);
  const at::Tensor expected = exact->loss(tokens), loss = half->loss(tokens);
  expected.sum().backward();
  loss.sum().backward();
  CHECK(loss.scalar_type() == at::kFloat);
  CHECK_THAT(loss.item<double>(), WithinAbs(expected.item<double>(), 0.02));  // 8 bits of mantissa
  CHECK(loss.item<double>() != expected.item<double>());
  for (std::size_t i = 0; i < half->parameters().size(); ++i) {
    const at::Tensor grad = half->parameters()[i].value.grad();
    CHECK(grad.scalar_type() == at::kFloat);
    CHECK(grad.isfinite().all().item<bool>());
  }
}

TEST_CASE("a model balances its experts by the load of its last training loss", "[models][moe]") {
  auto options = tiny::options(tiny::moe("8e2a"), 2);
  options.balance_rate = 0.01;
  auto model = make_model(options);
  model->initialise(0, 1, 0.3);
  model->initialise(1, 2, 0.3);
  const at::Tensor tokens = tiny::tokens(options.run.shape, 2, 8, 5);
  model->loss(tokens);
  const auto before = model->load_imbalance();
  REQUIRE(before.size() == 2);
  CHECK(before[0] > 1.0);
  CHECK(before[0] <= 4.0);  // N / a: all tokens on the busiest expert
  for (int step = 0; step < 60; ++step) {
    model->update_balance({true, false});
    model->loss(tokens);
  }
  const auto after = model->load_imbalance();
  CHECK(after[0] < before[0]);
  CHECK(after[0] < 1.6);
  CHECK(after[1] == before[1]);
  for (const auto& buffer : model->buffers()) CHECK(buffer.value[1].eq(0).all().item<bool>());
}

TEST_CASE("an evaluation leaves the load of the training step alone", "[models][moe]") {
  auto model = make_model(tiny::options(tiny::moe("8e2a")));
  model->initialise(0, 1, 0.3);
  const auto& shape = model->options().run.shape;
  model->loss(tiny::tokens(shape, 1, 4, 1));
  const auto trained = model->load_imbalance();
  const at::NoGradGuard no_grad;
  model->loss(tiny::tokens(shape, 1, 4, 2));
  CHECK(model->load_imbalance() == trained);
}

TEST_CASE("balancing can be switched off", "[models][moe]") {
  auto options = tiny::options(tiny::moe("8e2a"));
  options.balance_by_bias = false;
  auto model = make_model(options);
  model->initialise(0, 1, 0.3);
  model->loss(tiny::tokens(options.run.shape, 1, 4, 1));
  model->update_balance({true});
  for (const auto& buffer : model->buffers()) CHECK(buffer.value.eq(0).all().item<bool>());
}

TEST_CASE("a dense model has no load and nothing to balance", "[models]") {
  auto model = make_model(tiny::options(tiny::dense()));
  CHECK(model->load_imbalance().empty());
  CHECK(model->buffers().empty());
  CHECK_NOTHROW(model->update_balance({true}));
}

TEST_CASE("a shape, slots or tokens that cannot be are refused", "[models]") {
  auto options = tiny::options(tiny::moe("8e2a"));
  auto model = make_model(options);
  const auto& shape = options.run.shape;
  CHECK_THROWS_AS(model->loss(at::zeros({2, 1, shape.context + 1}, at::kLong)), std::invalid_argument);
  CHECK_THROWS_AS(model->loss(at::zeros({1, 1, shape.context + 2}, at::kLong)), std::invalid_argument);
  CHECK_THROWS_AS(model->loss(at::zeros({1, 1, 1}, at::kLong)), std::invalid_argument);
  options.slots = 0;
  CHECK_THROWS_WITH(make_model(options), ContainsSubstring("slots"));
  options.slots = 1;
  options.run.shape.num_active = 9;
  CHECK_THROWS_AS(make_model(options), std::invalid_argument);
}

TEST_CASE("a MoE that CUDA's grouped product does not take is refused with what works", "[models]") {
  const auto refused = [](ModelShape shape, bool bfloat16, const std::string& text) {
    auto options = tiny::options(shape);
    options.device = c10::Device(c10::kCUDA, 0);  // refused before anything is put there
    options.bfloat16 = bfloat16;
    CHECK_THROWS_WITH(make_model(options), ContainsSubstring(text));
    options.device = at::kCPU;
    CHECK_NOTHROW(make_model(options));
  };
  refused(tiny::moe("8e2a", 12), true,
          "expert_width 12: a MoE on CUDA needs a multiple of 8 in bfloat16; use 8 or 16");
  refused(tiny::moe("8e2a", 3), false,
          "expert_width 3: a MoE on CUDA needs a multiple of 4 in float32; use 4");
  ModelShape odd = tiny::moe("8e2a");
  odd.width = odd.head_size = 18;
  refused(odd, false, "width 18");
  refused(tiny::moe("1024e2a", 8), true, "1024 experts: a MoE on CUDA has at most 1023");
}
