// The coordinate check on real networks: right rules pass, wrong ones fail.
#include "sweeps/coord_check.h"

#include <cmath>

#include <ATen/ATen.h>

#include "models/model.h"
#include "models/recorder.h"
#include "tests/support/catch.h"
#include "tests/worker/tiny_trial.h"
#include "worker/train.h"

namespace {

using namespace worker;
using sweeps::Axis;

const Device& cpu() {
  static const Device device = [] {
    use_one_thread();
    return open_device("cpu");
  }();
  return device;
}

/// Makes one run wrong.
using Fault = void (*)(sweeps::CoordRun&);

/// Rows of the width (or another) axis that fail, in widths 32 to 128.
std::vector<std::string> failures(models::RuleOptions rule, Axis axis, Fault fault = nullptr) {
  sweeps::TrialSpec base = tiny_trial();
  base.run.shape = {.width = 32, .depth = 1, .head_size = 8, .context = 8, .vocab = 128, .ffn_width = 32};
  base.proxy = base.run;
  base.rule = rule;
  base.base = {.lr = 3e-3, .wd = 0.1, .init_std = 0.177};
  sweeps::CoordOptions options;
  options.axes = {axis};
  options.steps = 4;
  auto runs = sweeps::plan_coord(base, options);
  std::vector<sweeps::Quantities> seen;
  for (auto& run : runs) {
    if (fault) fault(run);
    sweeps::Quantities one;
    for (auto& series : probe({run.spec, options.steps, true}, cpu()).series)
      one[{series.layer, series.quantity}] = series.values;
    seen.push_back(one);
  }
  std::vector<std::string> failed;
  for (const auto& row : sweeps::judge_coord(runs, seen, options))
    if (!row.pass) failed.push_back(row.key.first + " " + row.key.second);
  return failed;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += word + "; ";
  return text;
}

constexpr models::RuleOptions kCompleteMue{};

}  // namespace

TEST_CASE("Complete-muE and muP keep their sizes along width, SP does not", "[worker][coord_check]") {
  CHECK(joined(failures(kCompleteMue, Axis::width)).empty());
  CHECK(joined(failures({.rule = models::Parameterization::mup}, Axis::width)).empty());
  const auto sp = joined(failures({.rule = models::Parameterization::sp}, Axis::width));
  CHECK_THAT(sp, ContainsSubstring("attention_qkv effective"));
  CHECK_THAT(sp, ContainsSubstring("head effective"));
}

TEST_CASE("under the published head rule the head's updates die out with width", "[worker][coord_check]") {
  CHECK_THAT(joined(failures({.head = models::HeadRule::published}, Axis::width)),
             ContainsSubstring("head effective"));
}

TEST_CASE("a deliberately wrong factor is caught by the coordinate check", "[worker][coord_check]") {
  const auto lr = joined(failures(kCompleteMue, Axis::width, [](sweeps::CoordRun& run) {
    run.spec.base.lr *= std::sqrt(run.scale);  // half of the width's LR factor is missing
  }));
  CHECK_THAT(lr, ContainsSubstring("attention_qkv effective"));
  const auto std_dev = joined(failures(kCompleteMue, Axis::active, [](sweeps::CoordRun& run) {
    run.spec.base.init_std *= std::sqrt(run.scale);  // as if a multiplier of the branch were forgotten
  }));
  CHECK_THAT(std_dev, ContainsSubstring("ffn activation"));
}

TEST_CASE("watching changes no bit of what is trained", "[worker][coord_check]") {
  const auto spec = tiny_moe_trial();
  const auto loss_of = [&](bool watched) {
    models::ModelOptions options;
    options.run = spec.run;
    options.proxy = spec.proxy;
    const auto model = models::make_model(options);
    model->initialise(0, 1, 0.1);
    models::Recorder recorder;
    if (watched) model->record_to(&recorder);
    const at::Tensor tokens = at::arange(4 * 17, at::kLong).remainder(128).reshape({1, 4, 17});
    const at::Tensor loss = model->loss(tokens);
    loss.sum().backward();
    at::Tensor gradient = model->parameters().at(3).value.grad();
    if (watched) CHECK(recorder.end_pass().contains({"stream", "activation"}));
    return std::pair{loss.detach(), gradient};
  };
  const auto [loss, gradient] = loss_of(false);
  const auto [watched_loss, watched_gradient] = loss_of(true);
  CHECK(loss.equal(watched_loss));
  CHECK(gradient.equal(watched_gradient));
}

TEST_CASE("a probe without layers trains as a trial does", "[worker][coord_check]") {
  const auto spec = tiny_moe_trial();
  Messages messages;
  const StopRequests nothing;
  train_stack({assignment_of(spec)}, cpu(), [&](const WorkerMessage& m) { messages.all.push_back(m); },
              [&]() -> const StopRequests& { return nothing; });
  const auto trained = messages.curve(sweeps::trial_key(spec), "train_loss").values;
  const auto series = probe({spec, 9, false}, cpu()).series;
  REQUIRE(series.size() == 1);
  REQUIRE(series[0].values.size() == 10);
  for (std::size_t i = 0; i < 10; ++i) CHECK(series[0].values[i] == trained.at(i));
}
