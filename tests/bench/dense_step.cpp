// One training step (forward, backward, AdamW) of a model on one CPU thread. Reads a number of steps from
// each line of standard input, runs them and prints the seconds of wall and of CPU time they took, so that a
// driver can take turns with another program (dense_step.py).
//
//   bench_dense_step [MOE_CODE [EXPERT_WIDTH]]     d=128 L=4 T=128 B=8 V=256, dense without a code
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>

#include <ATen/ATen.h>

#include "models/model.h"
#include "worker/device.h"
#include "worker/optimizer.h"

namespace {

constexpr std::int64_t kBatch = 8;
constexpr double kInitStd = 0.0884;

models::ModelShape shape_from(int argc, char** argv) {
  models::ModelShape shape;  // the defaults are the dense proxy
  if (argc < 2) return shape;
  const auto code = models::parse_moe_code(argv[1]);
  shape.num_experts = code.num_experts;
  shape.num_active = code.num_active;
  shape.num_groups = code.num_groups;
  shape.num_shared = code.num_shared;
  shape.expert_width = argc > 2 ? std::atoll(argv[2]) : shape.width;
  return shape;
}

class Trainer {
 public:
  explicit Trainer(const models::ModelShape& shape) {
    models::ModelOptions options;
    options.run = {.shape = shape, .batch = kBatch, .steps = 1000};
    options.proxy = {.shape = {}, .batch = kBatch, .steps = 1000};
    model_ = models::make_model(options);
    model_->initialise(0, 1, kInitStd);
    optimizer_ =
        std::make_unique<worker::AdamW>(model_->parameters(), options.run, options.proxy, options.rule);
    optimizer_->reset(0,
                      {.lr = 1e-3, .wd = 0.1, .init_std = kInitStd, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8},
                      /*clip=*/0);
    at::manual_seed(1);
    tokens_ = at::randint(shape.vocab, {1, kBatch, shape.context + 1}, at::kLong);
  }

  double step() {
    const at::Tensor loss = model_->loss(tokens_);
    loss.backward();
    optimizer_->step(loss.detach(), std::array{1.0}, {true});
    optimizer_->clear_gradients();
    model_->update_balance({true});
    return loss.item<double>();
  }

 private:
  std::unique_ptr<models::Model> model_;
  std::unique_ptr<worker::AdamW> optimizer_;
  at::Tensor tokens_;
};

}  // namespace

int main(int argc, char** argv) {
  worker::use_one_thread();
  Trainer trainer(shape_from(argc, argv));
  std::int64_t steps = 0;
  while (std::cin >> steps) {
    const auto wall = std::chrono::steady_clock::now();
    const auto cpu = std::clock();
    double loss = 0;
    for (std::int64_t i = 0; i < steps; ++i) loss = trainer.step();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - wall;
    std::printf("%.6f %.6f %.6f\n", seconds.count(), static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC,
                loss);
    std::fflush(stdout);
  }
}
