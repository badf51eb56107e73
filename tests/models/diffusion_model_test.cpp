#include "models/diffusion_model.h"

#include <cmath>
#include <stdexcept>

#include "tests/models/tiny.h"
#include "tests/support/catch.h"

using namespace models;

namespace {

ModelShape shape_of(const std::string& code) {
  return tiny::diffusion(code == "dense" ? tiny::dense() : tiny::moe(code));
}

/// K slots with a seed and an init std of their own, and modulations that are not zero, as after some steps.
std::unique_ptr<DiffusionModel> stack(const ModelShape& shape, std::int64_t slots, std::int64_t first = 0) {
  auto model = std::make_unique<DiffusionModel>(tiny::options(shape, slots));
  const at::NoGradGuard no_grad;
  for (std::int64_t k = 0; k < slots; ++k) {
    model->initialise(k, static_cast<std::uint64_t>(100 + first + k),
                      0.05 * static_cast<double>(1 + first + k));
    for (auto& [spec, value] : model->parameters())
      if (spec.group == TensorGroup::modulation)
        value[k].copy_(
            at::randn(spec.dims, at::detail::createCPUGenerator(100 + first + k), at::kFloat).mul(0.3));
  }
  return model;
}

at::Tensor weight(Model& model, const std::string& name) {
  for (const auto& [spec, value] : model.parameters())
    if (spec.name == name) return value;
  throw std::logic_error("no tensor " + name);
}

}  // namespace

TEST_CASE("a velocity has the shape of its images and is finite", "[models][diffusion]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e2a", "8e4a2g1s");
  const auto model = stack(shape_of(code), 2);
  const Batch batch = tiny::images(model->options().run.shape, 2, 3, 1);
  const at::NoGradGuard no_grad;
  const at::Tensor velocity = model->velocity(batch.images_KBCSS, batch.times_KB);
  CHECK(velocity.sizes() == batch.images_KBCSS.sizes());
  CHECK(velocity.isfinite().all().item<bool>());
  CHECK(model->loss(batch).sizes() == at::IntArrayRef{2});
}

TEST_CASE("a fresh block is the identity: only embedding, final norm and head are seen",
          "[models][diffusion]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e2a1s");
  auto options = tiny::options(shape_of(code));
  DiffusionModel model(options);
  model.initialise(0, 5, 0.3);
  const Batch batch = tiny::images(options.run.shape, 1, 3, 2);
  const at::NoGradGuard no_grad;
  const at::Tensor before = model.velocity(batch.images_KBCSS, batch.times_KB);
  for (auto& [spec, value] : model.parameters())
    if (spec.name.starts_with("blocks.") && spec.group != TensorGroup::modulation) value.mul_(-3);
  CHECK(at::equal(model.velocity(batch.images_KBCSS, batch.times_KB), before));
  // And it does not know the time yet.
  CHECK(at::equal(model.velocity(batch.images_KBCSS, batch.times_KB * 0.5), before));
  weight(model, "blocks.1.modulation").fill_(0.1);
  CHECK_FALSE(at::equal(model.velocity(batch.images_KBCSS, batch.times_KB), before));
}

TEST_CASE("every tensor of a trained diffusion model gets a gradient", "[models][diffusion]") {
  const auto model = stack(shape_of("8e2a1s"), 1);
  model->loss(tiny::images(model->options().run.shape, 1, 8, 3)).sum().backward();
  for (const auto& [spec, value] : model->parameters()) {
    INFO(spec.name);
    CHECK(value.grad().abs().max().item<float>() > 0);
  }
}

TEST_CASE("the loss is the mean squared error of the velocity at x_t", "[models][diffusion]") {
  const auto model = stack(shape_of("dense"), 1);
  const Batch batch = tiny::images(model->options().run.shape, 1, 4, 4);
  const at::NoGradGuard no_grad;
  const at::Tensor t = batch.times_KB.view({1, 4, 1, 1, 1});
  const at::Tensor mixed = (1 - t) * batch.images_KBCSS + t * batch.noise_KBCSS;
  const at::Tensor error = model->velocity(mixed, batch.times_KB) - (batch.noise_KBCSS - batch.images_KBCSS);
  CHECK_THAT(model->loss(batch).item<double>(), WithinRel(error.square().mean().item<double>(), 1e-5));
}

TEST_CASE("a pixel's velocity is read where the pixel stands", "[models][diffusion]") {
  // Head and embedding share the order of a patch's pixels: with the head the embedding's transpose, blocks
  // the identity and no positions to speak of, a bright pixel must answer where it is.
  auto options = tiny::options(shape_of("dense"));
  DiffusionModel model(options);
  model.initialise(0, 5, 0.3);
  const at::NoGradGuard no_grad;
  const at::Tensor embedding = weight(model, "embedding");
  embedding.mul_(1000);  // drowns the positions
  weight(model, "head").copy_(embedding.transpose(1, 2));
  const auto pixel = GENERATE(range(0, 72, 7));
  at::Tensor image = at::zeros({1, 1, 2, 6, 6});
  image.view({-1})[pixel] = 1;
  const at::Tensor answer = model.velocity(image, at::full({1, 1}, 0.5)).view({-1});
  CHECK(answer.argmax().item<std::int64_t>() == pixel);
}

TEST_CASE("images of a batch do not see each other, and every patch sees every other",
          "[models][diffusion]") {
  const auto model = stack(shape_of("8e2a"), 1);
  const Batch batch = tiny::images(model->options().run.shape, 1, 3, 6);
  const at::NoGradGuard no_grad;
  const at::Tensor before = model->velocity(batch.images_KBCSS, batch.times_KB);
  at::Tensor images = batch.images_KBCSS.clone();
  images[0][2][0][5][5] += 1;  // last pixel of the last patch
  const at::Tensor after = model->velocity(images, batch.times_KB);
  CHECK(tiny::relative_error(after.narrow(1, 0, 2), before.narrow(1, 0, 2)) < 1e-5);
  CHECK(std::abs((after - before)[0][2][0][0][0].item<float>()) > 1e-6);
}

TEST_CASE("a slot of a diffusion model is bit for bit a model of its own", "[models][diffusion][slots]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e2a", "8e4a2g1s");
  INFO(code);
  constexpr std::int64_t kSlots = 3;
  const ModelShape shape = shape_of(code);
  const Batch batch = tiny::images(shape, kSlots, 3, 5);
  const auto stacked = stack(shape, kSlots);
  const at::Tensor losses = stacked->loss(batch);
  losses.sum().backward();
  for (std::int64_t k = 0; k < kSlots; ++k) {
    const auto solo = stack(shape, 1, k);
    const at::Tensor loss = solo->loss(tiny::narrowed(batch, k, 1));
    loss.sum().backward();
    CHECK(at::equal(losses[k], loss[0]));
    for (std::size_t i = 0; i < solo->parameters().size(); ++i) {
      INFO(solo->parameters()[i].spec.name);
      CHECK(at::equal(stacked->parameters()[i].value.grad()[k], solo->parameters()[i].value.grad()[0]));
    }
    CHECK(at::equal(stacked->sample(k, 2, 3, 9), solo->sample(0, 2, 3, 9)));
  }
}

TEST_CASE("slots of a diffusion model that run together give the numbers of slots one by one",
          "[models][diffusion][slots]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e2a");
  INFO(code);
  constexpr std::int64_t kSlots = 3;
  const auto one_by_one = stack(shape_of(code), kSlots);
  auto options = one_by_one->options();
  options.slot_order = SlotOrder::together;
  DiffusionModel together(options);
  {
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < together.parameters().size(); ++i)
      together.parameters()[i].value.copy_(one_by_one->parameters()[i].value);
  }
  const Batch batch = tiny::images(options.run.shape, kSlots, 3, 5);
  const at::Tensor losses = together.loss(batch), expected = one_by_one->loss(batch);
  losses.sum().backward();
  expected.sum().backward();
  CHECK(tiny::relative_error(losses, expected) < 1e-6);  // float32, other orders of sums
  for (std::size_t i = 0; i < together.parameters().size(); ++i)
    CHECK(tiny::relative_error(together.parameters()[i].value.grad(),
                               one_by_one->parameters()[i].value.grad()) < 2e-5);
}

TEST_CASE("gradients of a diffusion model are the finite differences of its loss", "[models][diffusion]") {
  const std::string code = GENERATE(as<std::string>{}, "dense", "8e4a2g1s");
  INFO(code);
  const auto model = stack(shape_of(code), 1);
  for (auto& parameter : model->parameters())
    parameter.value = parameter.value.detach().to(at::kDouble).set_requires_grad(true);
  const Batch single = tiny::images(model->options().run.shape, 1, 2, 13);
  const Batch batch{single.images_KBCSS.to(at::kDouble), single.noise_KBCSS.to(at::kDouble),
                    single.times_KB.to(at::kDouble)};
  model->loss(batch).sum().backward();
  const at::NoGradGuard no_grad;
  std::uint64_t seed = 20;
  for (auto& [spec, value] : model->parameters()) {
    constexpr double kStep = 1e-6;
    const at::Tensor direction =
        at::randn(value.sizes(), at::detail::createCPUGenerator(++seed), at::kDouble);
    const at::Tensor start = value.detach().clone();
    const auto loss_at = [&](double step) {
      value.copy_(start + direction * step);
      return model->loss(batch).item<double>();
    };
    const double slope = (loss_at(kStep) - loss_at(-kStep)) / (2 * kStep);
    value.copy_(start);
    const double expected = (value.grad() * direction).sum().item<double>();
    INFO(spec.name << ": " << slope << " against " << expected);
    CHECK_THAT(slope, WithinAbs(expected, 1e-6 + 1e-5 * std::abs(expected)));
  }
}

TEST_CASE("samples are the same each time and follow a straight velocity exactly", "[models][diffusion]") {
  const auto model = stack(shape_of("dense"), 1);
  const at::Tensor images = model->sample(0, 3, 4, 11);
  CHECK(images.sizes() == at::IntArrayRef({3, 2, 6, 6}));
  CHECK_FALSE(images.requires_grad());
  CHECK(at::equal(images, model->sample(0, 3, 4, 11)));
  CHECK_FALSE(at::equal(images, model->sample(0, 3, 4, 12)));
  // With a head of zero the velocity is zero and the noise comes back; any number of steps.
  {
    const at::NoGradGuard no_grad;
    weight(*model, "head").zero_();
  }
  CHECK(at::equal(model->sample(0, 3, 1, 11), model->sample(0, 3, 7, 11)));
  CHECK_THROWS_AS(model->sample(1, 1, 1, 1), std::invalid_argument);
  CHECK_THROWS_AS(model->sample(0, 0, 1, 1), std::invalid_argument);
}

TEST_CASE("bfloat16 changes a diffusion model's loss little", "[models][diffusion]") {
  auto options = tiny::options(shape_of("8e2a"));
  const auto exact = make_model(options);
  options.bfloat16 = true;
  const auto half = make_model(options);
  exact->initialise(0, 1, 0.1);
  half->initialise(0, 1, 0.1);
  const Batch batch = tiny::images(options.run.shape, 1, 4, 5);
  const at::Tensor expected = exact->loss(batch), loss = half->loss(batch);
  loss.sum().backward();
  CHECK(loss.scalar_type() == at::kFloat);
  CHECK_THAT(loss.item<double>(), WithinAbs(expected.item<double>(), 0.02));  // 8 bits of mantissa
  for (const auto& [spec, value] : half->parameters()) CHECK(value.grad().scalar_type() == at::kFloat);
}

TEST_CASE("a batch of the other family or of another size is refused", "[models][diffusion]") {
  const auto model = stack(shape_of("dense"), 1);
  const auto& shape = model->options().run.shape;
  CHECK_THROWS_AS(model->loss(at::zeros({1, 1, 10}, at::kLong)), std::invalid_argument);
  CHECK_THROWS_AS(model->loss(tiny::images(shape, 2, 1, 1)), std::invalid_argument);
  const auto text = make_model(tiny::options(tiny::dense()));
  CHECK_THROWS_AS(text->loss(tiny::images(shape, 1, 1, 1)), std::invalid_argument);
}
