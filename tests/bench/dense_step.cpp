// One training step (forward, backward, AdamW) of a model on one CPU thread. Reads a number of steps from
// each line of standard input, runs them and prints the seconds of wall and of CPU time they took, so that a
// driver can take turns with another program (dense_step.py).
//
//   bench_dense_step [MOE_CODE [EXPERT_WIDTH]]     d=128 L=4 T=128 B=8 V=256, dense without a code
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <memory>
#include <string>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "models/model.h"
#include "models/ops/multiversion.h"

namespace {

constexpr std::int64_t kBatch = 8;

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

struct Moments {
  at::Tensor m, v;
};

/// PyTorch's AdamW in one pass.
TUNEONCE_MULTIVERSION
void adamw(float* p, float* m, float* v, const float* g, std::int64_t n, float lr, float wd, float step1,
           float inverse2) {
  constexpr float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f;
  for (std::int64_t i = 0; i < n; ++i) {
    m[i] += (g[i] - m[i]) * (1 - beta1);
    v[i] = v[i] * beta2 + g[i] * g[i] * (1 - beta2);
    p[i] = p[i] * (1 - lr * wd) - step1 * m[i] / (std::sqrt(v[i]) * inverse2 + eps);
  }
}

class Trainer {
 public:
  explicit Trainer(const models::ModelShape& shape) {
    models::ModelOptions options;
    options.run = {.shape = shape, .batch = kBatch, .steps = 1000};
    options.proxy = {.shape = {}, .batch = kBatch, .steps = 1000};
    model_ = models::make_model(options);
    model_->initialise(0, 1, 0.0884);
    for (const auto& parameter : model_->parameters())
      moments_.push_back({at::zeros_like(parameter.value), at::zeros_like(parameter.value)});
    tokens_ = at::randint(shape.vocab, {1, kBatch, shape.context + 1}, at::kLong);
  }

  double step() {
    const at::Tensor loss = model_->loss(tokens_);
    loss.backward();
    ++steps_;
    const double inverse1 = 1 / (1 - std::pow(0.9, steps_)),
                 inverse2 = 1 / std::sqrt(1 - std::pow(0.95, steps_));
    constexpr double lr = 1e-3;
    for (std::size_t i = 0; i < moments_.size(); ++i) {
      at::Tensor& value = model_->parameters()[i].value;
      adamw(value.mutable_data_ptr<float>(), moments_[i].m.mutable_data_ptr<float>(),
            moments_[i].v.mutable_data_ptr<float>(), value.grad().const_data_ptr<float>(), value.numel(),
            static_cast<float>(lr), 0.1f, static_cast<float>(lr * inverse1), static_cast<float>(inverse2));
      value.mutable_grad().reset();
    }
    model_->update_balance({true});
    return loss.item<double>();
  }

 private:
  std::unique_ptr<models::Model> model_;
  std::vector<Moments> moments_;
  at::Tensor tokens_;
  int steps_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(1);
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
