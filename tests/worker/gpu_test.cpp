// What a GPU must show, against its CPU twin; tests/gpu.sh runs these on a machine that has one. Elsewhere
// they say that nothing was checked. With TUNEONCE_EXPECT_GPU set, a missing GPU is a failure.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>
#include <string_view>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>

#include "models/model.h"
#include "sweeps/trial.h"
#include "tests/models/tiny.h"
#include "tests/support/catch.h"
#include "worker/device.h"
#include "worker/train.h"

namespace {

bool gpu() {
  if (at::hasCUDA() && at::getNumGPUs() > 0) return true;
  if (std::getenv("TUNEONCE_EXPECT_GPU")) FAIL("no GPU is visible to LibTorch");
  WARN("no GPU here: nothing was checked");
  return false;
}

/// Modulations start at zero, and a fresh block is the identity: as after some steps, every tensor counts.
void wake_modulations(models::Model& model) {
  const at::NoGradGuard no_grad;
  for (auto& [spec, value] : model.parameters()) {
    if (spec.group != models::TensorGroup::modulation) continue;
    value.copy_(at::randn(value.sizes(), at::detail::createCPUGenerator(5), at::kFloat).mul(0.2));
  }
}

models::Batch batch_for(const models::ModelOptions& options, c10::Device device) {
  const auto& shape = options.run.shape;
  if (!shape.is_diffusion()) return tiny::tokens(shape, options.slots, 4, 3).to(device);
  const models::Batch batch = tiny::images(shape, options.slots, 4, 3);
  return {batch.images_KBCSS.to(device), batch.noise_KBCSS.to(device), batch.times_KB.to(device)};
}

/// The loss and every gradient of one model on one device, brought back to the CPU.
struct Pass {
  double loss = 0;
  std::vector<at::Tensor> gradients;
};
Pass run_pass(models::ModelOptions options, c10::Device device, bool bfloat16) {
  options.device = device;
  options.bfloat16 = bfloat16;
  const auto model = models::make_model(options);
  for (std::int64_t k = 0; k < options.slots; ++k) model->initialise(k, 7, 0.08);
  wake_modulations(*model);
  const at::Tensor loss = model->loss(batch_for(options, device)).sum();
  loss.backward();
  Pass pass{loss.item<double>(), {}};
  for (const auto& parameter : model->parameters())
    pass.gradients.push_back(parameter.value.grad().to(at::kCPU));
  return pass;
}

/// All widths multiples of 8, as grouped products of bfloat16 need. "diffusion" and "diffusion 8e2a" are of
/// the other family.
models::ModelOptions shape_for_gpu(const char* code) {
  constexpr std::string_view kDiffusion = "diffusion";
  if (code && std::string_view(code).starts_with(kDiffusion)) {
    const char* rest = code + kDiffusion.size();
    auto options = shape_for_gpu(*rest == ' ' ? rest + 1 : nullptr);
    for (auto* each : {&options.run.shape, &options.proxy.shape}) {
      *each = tiny::diffusion(*each);
      each->image_size = 8;
      each->context = 16;
    }
    return options;
  }
  auto options = tiny::options(tiny::dense());
  auto& shape = options.run.shape;
  if (code) shape = tiny::moe(code);
  for (auto* each : {&shape, &options.proxy.shape}) {
    each->width = 64;
    each->head_size = 32;
    each->context = 16;
    each->vocab = 64;
    each->ffn_width = 64;
  }
  if (code) shape.expert_width = 32;
  return options;
}

sweeps::TrialSpec teacher_trial(double lr, const char* code) {
  sweeps::TrialSpec spec;
  const auto options = shape_for_gpu(code);
  spec.run = {.shape = options.run.shape, .batch = 16, .steps = 200};
  spec.proxy = {.shape = options.proxy.shape, .batch = 16, .steps = 200};
  spec.run.shape.vocab = spec.proxy.shape.vocab = 128;
  if (spec.run.shape.is_diffusion()) spec.data.source = sweeps::DataSource::templates;
  spec.base = {.lr = lr, .wd = 0.1, .init_std = 0.08};
  spec.seed = 11;
  spec.eval = {.tokens = 16 * 512, .every = 0.5};
  return spec;
}

/// Trains `specs` as one stack; final losses in order.
std::vector<double> train(const std::vector<sweeps::TrialSpec>& specs, const worker::Device& device) {
  std::vector<worker::Assignment> assignments;
  for (const auto& spec : specs) {
    auto& assignment = assignments.emplace_back();
    assignment.trial = sweeps::trial_key(spec);
    assignment.spec = spec;
  }
  std::map<sweeps::TrialKey, double> losses;
  const worker::StopRequests none;
  worker::train_stack(
      assignments, device,
      [&](const worker::WorkerMessage& message) {
        const auto* ended = std::get_if<worker::Ended>(&message);
        if (!ended) return;
        if (const auto* finished = std::get_if<sweeps::Finished>(&ended->outcome))
          losses[ended->trial] = finished->loss;
        if (const auto* failed = std::get_if<sweeps::Failed>(&ended->outcome)) FAIL_CHECK(failed->message);
      },
      [&]() -> const worker::StopRequests& { return none; });
  std::vector<double> result;
  for (const auto& assignment : assignments) result.push_back(losses.at(assignment.trial));
  return result;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("a GPU gives the CPU's loss and gradients in float32", "[gpu]") {
  if (!gpu()) return;
  for (const char* code :
       {static_cast<const char*>(nullptr), "8e2a", "8e4a2g1s", "diffusion", "diffusion 8e2a"}) {
    INFO((code ? code : "dense"));
    const auto cpu = run_pass(shape_for_gpu(code), c10::kCPU, false);
    const auto cuda = run_pass(shape_for_gpu(code), c10::Device(c10::kCUDA, 0), false);
    CHECK_THAT(cuda.loss, WithinRel(cpu.loss, 1e-5));
    for (std::size_t i = 0; i < cpu.gradients.size(); ++i)
      CHECK(tiny::relative_error(cuda.gradients[i], cpu.gradients[i]) < 1e-3);
  }
}

TEST_CASE("a GPU in bfloat16 stays near the CPU in float32", "[gpu]") {
  if (!gpu()) return;
  for (const char* code :
       {static_cast<const char*>(nullptr), "8e2a", "8e4a2g1s", "diffusion", "diffusion 8e2a"}) {
    INFO((code ? code : "dense"));
    const auto cpu = run_pass(shape_for_gpu(code), c10::kCPU, false);
    const auto cuda = run_pass(shape_for_gpu(code), c10::Device(c10::kCUDA, 0), true);
    CHECK_THAT(cuda.loss, WithinRel(cpu.loss, 1e-2));  // 8 bits of mantissa
    for (std::size_t i = 0; i < cpu.gradients.size(); ++i) {
      CHECK(cuda.gradients[i].scalar_type() == at::kFloat);
      const double error =
          ((cuda.gradients[i] - cpu.gradients[i]).norm() / cpu.gradients[i].norm()).item<double>();
      CHECK(error < 0.2);  // also where a near tie sends a token to another expert
    }
  }
}

TEST_CASE("a trial trained on a GPU ends where its CPU twin ends", "[gpu]") {
  if (!gpu()) return;
  for (const char* code : {static_cast<const char*>(nullptr), "8e2a1s", "diffusion", "diffusion 8e2a1s"}) {
    const auto cpu = train({teacher_trial(4e-3, code)}, worker::open_device("cpu"));
    const auto cuda = train({teacher_trial(4e-3, code)}, worker::open_device("cuda:0"));
    WARN((code ? code : "dense") << ": CPU " << cpu[0] << ", GPU " << cuda[0]);
    CHECK_THAT(cuda[0], WithinAbs(cpu[0], 5e-3));  // 200 steps amplify the last bits
  }
}

TEST_CASE("a stack of 8 slots on a GPU ends where 8 solo runs end", "[gpu]") {
  if (!gpu()) return;
  const auto device = worker::open_device("cuda:0");
  const auto precision = GENERATE(sweeps::Precision::float32, sweeps::Precision::bfloat16);
  const double bound = precision == sweeps::Precision::float32 ? 5e-3 : 2e-2;
  for (const char* code : {static_cast<const char*>(nullptr), "8e2a1s"}) {
    std::vector<sweeps::TrialSpec> specs;
    for (int i = 0; i < 8; ++i) {
      specs.push_back(teacher_trial(1e-3 * std::exp2(0.5 * i), code));
      specs.back().precision = precision;
    }
    train({specs[0]}, device);  // warm
    auto start = std::chrono::steady_clock::now();
    const auto stacked = train(specs, device);
    const double stacked_seconds = seconds_since(start);
    start = std::chrono::steady_clock::now();
    std::vector<double> solo;
    for (const auto& spec : specs) solo.push_back(train({spec}, device)[0]);
    const double solo_seconds = seconds_since(start);
    double worst = 0;
    for (std::size_t i = 0; i < solo.size(); ++i) worst = std::max(worst, std::abs(stacked[i] - solo[i]));
    WARN(sweeps::name(precision) << ' ' << (code ? code : "dense") << ": worst difference " << worst
                                 << " nats, 8 solo runs take " << solo_seconds / stacked_seconds
                                 << " times the stack's time");
    CHECK(worst < bound);
  }
}
