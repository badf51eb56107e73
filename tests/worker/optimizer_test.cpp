#include "worker/optimizer.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <torch/optim/adamw.h>

#include "tests/support/catch.h"

using worker::AdamW;

namespace {

constexpr std::int64_t kSlots = 3;

const sweeps::Hyperparameters kBase[kSlots] = {{1e-2, 0.1, 0.02, 0.9, 0.95, 1e-10},
                                               {3e-3, 0.0, 0.02, 0.8, 0.99, 1e-6},
                                               {0.1, 0.5, 0.02, 0.0, 0.999, 1e-8}};

at::Tensor random(at::IntArrayRef sizes, std::uint64_t seed) {
  return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::kFloat);
}

std::vector<models::Parameter> parameters(std::int64_t slots) {
  std::vector<models::Parameter> all;
  const auto add = [&](const char* name, models::TensorGroup group, std::vector<std::int64_t> dims) {
    std::vector<at::Tensor> values;
    for (std::int64_t k = 0; k < slots; ++k) values.push_back(random(dims, 10 * all.size() + 1));
    all.push_back({{name, group, dims}, at::stack(values).set_requires_grad(true)});
  };
  add("embedding", models::TensorGroup::embedding, {13, 7});
  add("up", models::TensorGroup::ffn_up, {7, 33});
  add("gain", models::TensorGroup::norm, {7});
  return all;
}

void set_gradients(std::vector<models::Parameter>& all, int step) {
  for (std::size_t i = 0; i < all.size(); ++i) {
    auto& value = all[i].value;
    const at::Tensor one = random(all[i].spec.dims, 1000 * static_cast<std::uint64_t>(step) + i);
    value.mutable_grad() = one.unsqueeze(0).expand(value.sizes()).contiguous();
  }
}

models::RunShape proxy() {
  models::RunShape run;
  run.shape.width = 8;
  run.shape.head_size = 4;
  run.shape.ffn_width = 8;
  return run;
}

AdamW make(std::vector<models::Parameter>& all, double clip = 0, models::RuleOptions rule = {}) {
  AdamW optimizer(all, proxy(), proxy(), rule);
  for (std::int64_t k = 0; k < all[0].value.size(0); ++k) optimizer.reset(k, kBase[k], clip);
  return optimizer;
}

at::Tensor losses(std::int64_t slots) { return at::ones({slots}); }
double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

}  // namespace

TEST_CASE("each slot follows torch::optim::AdamW over 20 steps", "[worker][optimizer]") {
  for (std::int64_t k = 0; k < kSlots; ++k) {
    auto theirs = parameters(1);
    std::vector<torch::optim::OptimizerParamGroup> groups;
    for (auto& parameter : theirs) {
      const double wd = models::decays(parameter.spec.group) ? kBase[k].wd : 0;
      groups.emplace_back(
          std::vector<at::Tensor>{parameter.value},
          std::make_unique<torch::optim::AdamWOptions>(torch::optim::AdamWOptions(kBase[k].lr)
                                                           .betas({kBase[k].beta1, kBase[k].beta2})
                                                           .eps(kBase[k].eps)
                                                           .weight_decay(wd)));
    }
    torch::optim::AdamW reference(groups);
    auto mine = parameters(kSlots);
    AdamW stacked = make(mine);
    for (int step = 0; step < 20; ++step) {
      set_gradients(theirs, step);
      set_gradients(mine, step);
      reference.step();
      stacked.step(losses(kSlots), std::vector<double>(kSlots, 1.0), std::vector<bool>(kSlots, true));
    }
    for (std::size_t i = 0; i < mine.size(); ++i) {
      INFO("slot " << k << ", " << mine[i].spec.name);
      CHECK(largest_difference(mine[i].value[k], theirs[i].value[0]) < 1e-6);
    }
  }
}

TEST_CASE("the kernel and the composed form agree", "[worker][optimizer]") {
  auto fused = parameters(kSlots);
  auto composed = parameters(kSlots);
  AdamW a = make(fused, 0.5), b = make(composed, 0.5);
  for (int step = 0; step < 10; ++step) {
    set_gradients(fused, step);
    set_gradients(composed, step);
    const std::vector<double> schedule = {1.0, 0.5, 0.1 * step};
    const std::vector<bool> active = {true, step < 5, true};
    const auto norms = a.step(losses(kSlots), schedule, active);
    CHECK(largest_difference(norms, b.step_composed(losses(kSlots), schedule, active)) < 1e-5);
  }
  for (std::size_t i = 0; i < fused.size(); ++i) {
    CHECK(largest_difference(fused[i].value, composed[i].value) < 1e-6);
    CHECK(largest_difference(a.second_moments()[i], b.second_moments()[i]) < 1e-6);
  }
}

TEST_CASE("a slot is the same, bit for bit, alone and among others", "[worker][optimizer]") {
  auto alone = parameters(1);
  auto among = parameters(kSlots);
  AdamW a = make(alone, 1.0), b = make(among, 1.0);
  for (int step = 0; step < 10; ++step) {
    set_gradients(alone, step);
    set_gradients(among, step);
    a.step(losses(1), std::vector<double>{0.7}, {true});
    b.step(losses(kSlots), std::vector<double>{0.7, 1, 1}, {true, true, true});
  }
  for (std::size_t i = 0; i < alone.size(); ++i) CHECK(at::equal(alone[i].value[0], among[i].value[0]));
}

TEST_CASE("a slot that is inactive or not finite is left untouched, the others move", "[worker][optimizer]") {
  const double inf = std::numeric_limits<double>::infinity();
  for (const bool on_device : {false, true}) {
    auto all = parameters(kSlots);
    AdamW optimizer = make(all);
    const auto step = [&](const at::Tensor& losses_K, const std::vector<bool>& active) {
      const std::vector<double> schedule(kSlots, 1.0);
      return on_device ? optimizer.step_composed(losses_K, schedule, active)
                       : optimizer.step(losses_K, schedule, active);
    };
    set_gradients(all, 0);
    step(losses(kSlots), {true, true, true});
    const auto before = [&] {
      std::vector<at::Tensor> copies;
      for (std::size_t i = 0; i < all.size(); ++i) {
        copies.push_back(all[i].value.detach().clone());
        copies.push_back(optimizer.first_moments()[i].clone());
        copies.push_back(optimizer.second_moments()[i].clone());
      }
      return copies;
    };
    const auto check_moved = [&](const std::vector<at::Tensor>& old, std::vector<bool> moved) {
      const auto now = before();
      for (std::int64_t k = 0; k < kSlots; ++k) {
        for (std::size_t i = 0; i < now.size(); ++i) {
          CHECK(at::equal(now[i][k], old[i][k]) != moved[static_cast<std::size_t>(k)]);
        }
      }
    };
    auto old = before();
    set_gradients(all, 1);
    step(losses(kSlots), {true, false, true});
    check_moved(old, {true, false, true});

    old = before();
    set_gradients(all, 2);
    all[1].value.mutable_grad()[0][3][3] = std::numeric_limits<float>::quiet_NaN();
    const auto norms = step(losses(kSlots), {true, true, true});
    CHECK(!std::isfinite(norms[0].item<double>()));
    check_moved(old, {false, true, true});

    old = before();
    set_gradients(all, 3);
    at::Tensor bad_loss = losses(kSlots);
    bad_loss[2] = inf;
    step(bad_loss, {true, true, true});
    check_moved(old, {true, true, false});
  }
}

TEST_CASE("clipping scales each slot by its own norm", "[worker][optimizer]") {
  auto all = parameters(2);
  AdamW optimizer = make(all, 0.5);
  set_gradients(all, 0);
  for (auto& parameter : all) parameter.value.mutable_grad()[1].mul_(1e-3);
  double expected = 0;
  for (const auto& parameter : all)
    expected += parameter.value.grad()[0].to(at::kDouble).square().sum().item<double>();
  const auto norms = optimizer.step(losses(2), std::vector<double>{1, 1}, {true, true});
  CHECK_THAT(norms[0].item<double>(), WithinRel(std::sqrt(expected), 1e-6));
  CHECK_THAT(norms[1].item<double>(), WithinRel(std::sqrt(expected) * 1e-3, 1e-6));
  // After one step the first moment is (1 - beta1) times the gradient as it was used.
  for (std::int64_t k = 0; k < 2; ++k) {
    double used = 0;
    for (const auto& moment : optimizer.first_moments()) used += moment[k].square().sum().item<double>();
    const double norm = norms[k].item<double>();
    CHECK_THAT(std::sqrt(used) / (1 - kBase[k].beta1), WithinRel(std::min(norm, 0.5), 1e-4));
  }
}

TEST_CASE("independent decay does not feel the LR, norm gains feel no decay at all", "[worker][optimizer]") {
  auto all = parameters(1);
  AdamW optimizer = make(all, 0, {.wd_width = models::WdWidth::independent});
  std::vector<at::Tensor> old;
  for (auto& parameter : all) {
    old.push_back(parameter.value.detach().clone());
    parameter.value.mutable_grad() = at::zeros_like(parameter.value);
  }
  optimizer.step(losses(1), std::vector<double>{0.5}, {true});
  CHECK(largest_difference(all[0].value, old[0] * (1 - 0.5 * kBase[0].wd)) < 1e-6);
  CHECK(at::equal(all[2].value, old[2]));
}

TEST_CASE("groups take their factors from the rule", "[worker][optimizer]") {
  auto run = proxy();
  run.shape.width = 32;  // rho_d = 4: hidden LR / 4, WD * 4, embedding as it is
  run.shape.ffn_width = 32;
  auto all = parameters(1);
  AdamW optimizer(all, run, proxy(), {});
  optimizer.reset(0, kBase[0], 0);
  std::vector<at::Tensor> old;
  for (auto& parameter : all) {
    old.push_back(parameter.value.detach().clone());
    parameter.value.mutable_grad() = at::ones_like(parameter.value);
  }
  optimizer.step(losses(1), std::vector<double>{1}, {true});
  const double lr = kBase[0].lr, wd = kBase[0].wd;  // the first update is lr * sign of the gradient
  CHECK(largest_difference(all[0].value, old[0] * (1 - lr * wd) - lr) < 1e-6);
  CHECK(largest_difference(all[1].value, old[1] * (1 - lr / 4 * wd * 4) - lr / 4) < 1e-6);
}

TEST_CASE("a slot that is reset forgets its moments and its steps", "[worker][optimizer]") {
  auto all = parameters(2);
  AdamW optimizer = make(all);
  set_gradients(all, 0);
  optimizer.step(losses(2), std::vector<double>{1, 1}, {true, true});
  CHECK(optimizer.updates(0) == 1);
  optimizer.reset(0, kBase[1], 0);
  CHECK(optimizer.updates(0) == 0);
  CHECK(optimizer.updates(1) == 1);
  for (const auto& moment : optimizer.first_moments()) {
    CHECK(moment[0].count_nonzero().item<std::int64_t>() == 0);
    CHECK(moment[1].count_nonzero().item<std::int64_t>() > 0);
  }
}
