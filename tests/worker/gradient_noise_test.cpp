#include "worker/gradient_noise.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "tests/support/catch.h"
#include "tests/worker/tiny_trial.h"
#include "worker/train.h"

using namespace worker;
using Catch::Matchers::WithinRel;

namespace {

models::Parameter matrix(models::TensorGroup group) {
  models::Parameter parameter{.spec = {}, .value = at::zeros({2, 64, 64}).requires_grad_()};
  parameter.spec.group = group;
  return parameter;
}

double noise_of(sweeps::TrialSpec spec) {
  spec.run.steps = 160;
  Messages messages;
  const StopRequests nothing;
  const auto assignment = assignment_of(spec);
  train_stack(
      {assignment}, Device{}, [&](const WorkerMessage& message) { messages.all.push_back(message); },
      [&]() -> const StopRequests& { return nothing; });
  const auto curve = messages.curve(assignment.trial, "gradient_noise");
  CHECK(curve.steps == std::vector<std::int64_t>{80});
  REQUIRE(curve.values.size() == 1);
  return curve.values[0];
}

}  // namespace

TEST_CASE("noise and signal of a gradient are told apart in each slot", "[worker][gradient_noise]") {
  // Signal 1 everywhere, noise of std 3 in slot 0 and 0.5 in slot 1; what is no FFN matrix does not count.
  std::vector<models::Parameter> parameters = {matrix(models::TensorGroup::expert_up),
                                               matrix(models::TensorGroup::expert_down),
                                               matrix(models::TensorGroup::attention)};
  const at::Tensor std_K11 = at::tensor({3.0f, 0.5f}).reshape({2, 1, 1});
  auto random = at::make_generator<at::CPUGeneratorImpl>(5);
  GradientNoise noise;
  CHECK_FALSE(noise.ratio(0));
  for (int batch = 0; batch < 16; ++batch) {
    for (auto& parameter : parameters)
      parameter.value.mutable_grad() = 1 + std_K11 * at::randn({2, 64, 64}, random);
    parameters[2].value.mutable_grad() *= 1000;
    noise.add(parameters);
  }
  CHECK_THAT(noise.ratio(0).value(), WithinRel(3, 0.05));
  CHECK_THAT(noise.ratio(1).value(), WithinRel(0.5, 0.05));
}

TEST_CASE("noise without a signal has no ratio", "[worker][gradient_noise]") {
  std::vector<models::Parameter> parameters = {matrix(models::TensorGroup::ffn_up)};
  GradientNoise noise;
  for (const float sign : {1.0f, -1.0f}) {
    parameters[0].value.mutable_grad() = at::full({2, 64, 64}, sign);
    noise.add(parameters);
  }
  CHECK_FALSE(noise.ratio(0));
}

TEST_CASE("sixteen times the batch has about a quarter of the gradient noise", "[worker][gradient_noise]") {
  auto spec = tiny_trial();
  spec.base.lr = 1e-6;  // where the weights stay where they are
  const double small = noise_of(spec);
  spec.run.batch *= 16;
  const double ratio = noise_of(spec) / small;
  CHECK(ratio > 0.12);
  CHECK(ratio < 0.5);
}
