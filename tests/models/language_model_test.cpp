#include "models/language_model.h"

#include <limits>

#include "models/model.h"
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
