#include "worker/train.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <set>

#include <c10/util/Exception.h>

#include "tests/support/catch.h"
#include "tests/support/temporary_folder.h"
#include "tests/worker/tiny_trial.h"
#include "worker/curve.h"
#include "worker/runaway.h"
#include "worker/safetensors.h"

using namespace worker;
using sweeps::Failed;
using sweeps::FailureClass;
using sweeps::Finished;
namespace fs = std::filesystem;

namespace {

/// Trains on the CPU; `ask(n)` fills in what the orchestrator wants at the n-th poll.
Messages train(
    const std::vector<Assignment>& assignments,
    const std::function<void(int, StopRequests&)>& ask = [](int, StopRequests&) {}) {
  Messages messages;
  StopRequests requests;
  int polls = 0;
  train_stack(
      assignments, Device{}, [&](const WorkerMessage& message) { messages.all.push_back(message); },
      [&]() -> const StopRequests& {
        ask(polls++, requests);
        return requests;
      });
  return messages;
}

sweeps::Outcome outcome(const Messages& messages, const Assignment& assignment) {
  const auto ends = messages.of<Ended>(assignment.trial);
  REQUIRE(ends.size() == 1);
  CHECK(ends[0].attempt == assignment.attempt);
  CHECK(std::get_if<Ended>(&messages.all.back()) != nullptr);
  return ends[0].outcome;
}

Finished finished(const Messages& messages, const Assignment& assignment) {
  const auto end = outcome(messages, assignment);
  if (const auto* failed = std::get_if<Failed>(&end)) FAIL(failed->message);
  REQUIRE(std::holds_alternative<Finished>(end));
  return std::get<Finished>(end);
}

void check_equal_curves(const Messages& a, const Messages& b, const sweeps::TrialKey& trial) {
  for (const char* metric : {"train_loss", "grad_norm", "eval_loss", "load_imbalance", "gradient_noise"}) {
    INFO(metric);
    CHECK(a.curve(trial, metric).steps == b.curve(trial, metric).steps);
    CHECK(a.curve(trial, metric).values == b.curve(trial, metric).values);
  }
}

std::string contents(const fs::path& file) {
  std::ifstream input(file, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(input)), {});
}

}  // namespace

TEST_CASE("a trial learns, and its last evaluation is its result", "[worker][train]") {
  for (const auto& spec : {tiny_trial(), tiny_moe_trial()}) {
    const auto assignment = assignment_of(spec);
    const auto messages = train({assignment});
    const auto result = finished(messages, assignment);
    CHECK(messages.of<Started>(assignment.trial).at(0).first_step == 0);
    CHECK(result.steps == 40);
    const auto eval = messages.curve(assignment.trial, "eval_loss");
    CHECK(eval.steps == std::vector<std::int64_t>{10, 20, 30, 40});
    CHECK(eval.values.back() == result.loss);
    CHECK(result.loss < eval.values.front());
    CHECK(result.loss < std::log(128.0) - 0.3);
    REQUIRE(result.floor.has_value());
    CHECK(result.loss > *result.floor);
    const auto train_loss = messages.curve(assignment.trial, "train_loss");
    CHECK(train_loss.steps.size() == 40);
    CHECK_THAT(train_loss.values.front(), WithinAbs(std::log(128.0), 0.5));
    CHECK(messages.curve(assignment.trial, "load_imbalance").steps.size() ==
          (spec.run.shape.is_moe() ? 40 : 0));
  }
}

TEST_CASE("a diffusion model learns, above the floor and from the loss of a model that knows nothing",
          "[worker][train]") {
  for (const auto& spec : {tiny_diffusion_trial(), tiny_moe_diffusion_trial()}) {
    const auto assignment = assignment_of(spec);
    const auto messages = train({assignment});
    const auto result = finished(messages, assignment);
    const auto eval = messages.curve(assignment.trial, "eval_loss");
    CHECK(eval.steps == std::vector<std::int64_t>{10, 20, 30, 40});
    CHECK(eval.values.back() == result.loss);
    CHECK(result.loss < eval.values.front());
    REQUIRE(result.floor.has_value());
    CHECK(result.loss > *result.floor);
    // Velocity zero costs E[x^2] + 1 = 0.5^2 + 0.25^2 + 1 per pixel.
    CHECK_THAT(messages.curve(assignment.trial, "train_loss").values.front(), WithinAbs(1.31, 0.15));
    CHECK(result.loss < 1.1);
    CHECK(messages.curve(assignment.trial, "load_imbalance").steps.size() ==
          (spec.run.shape.is_moe() ? 40 : 0));
  }
}

TEST_CASE("a slot's numbers are, bit for bit, those of a trial alone", "[worker][train]") {
  for (const auto& base :
       {tiny_trial(), tiny_moe_trial(), tiny_diffusion_trial(), tiny_moe_diffusion_trial()}) {
    std::vector<Assignment> stack;
    for (int k = 0; k < 3; ++k) {
      auto spec = base;
      spec.base.lr = 1e-3 * std::pow(4, k);
      spec.base.wd = 0.05 * (k + 1);
      spec.base.init_std = 0.05 * (k + 1);
      spec.seed = static_cast<std::uint64_t>(k / 2);
      stack.push_back(assignment_of(spec));
    }
    const auto together = train(stack);
    for (const auto& assignment : stack) {
      const auto alone = train({assignment});
      CHECK(finished(together, assignment).loss == finished(alone, assignment).loss);
      check_equal_curves(together, alone, assignment.trial);
    }
  }
}

TEST_CASE("a slot that diverges stops alone", "[worker][train]") {
  auto wild = tiny_trial();
  wild.base.lr = 1e30;
  wild.clip = 0;
  const auto healthy = assignment_of(tiny_trial()), sick = assignment_of(wild);
  const auto together = train({sick, healthy});
  const auto end = outcome(together, sick);
  REQUIRE(std::holds_alternative<sweeps::Diverged>(end));
  CHECK(std::get<sweeps::Diverged>(end).step > 0);
  CHECK(std::get<sweeps::Diverged>(end).step < 10);
  for (const double value : together.curve(sick.trial, "train_loss").values) CHECK(std::isfinite(value));
  CHECK(finished(together, healthy).loss == finished(train({healthy}), healthy).loss);
}

TEST_CASE("a trial that ends far worse than it began counts as diverged", "[worker][train]") {
  auto spec = tiny_trial();
  spec.base.lr = 30;
  spec.base.wd = 0;
  const auto assignment = assignment_of(spec);
  CHECK(std::holds_alternative<sweeps::Diverged>(outcome(train({assignment}), assignment)));
}

TEST_CASE("a loss that runs away is a divergence, one spike of any height is not", "[worker][train]") {
  RunawayWatch calm;
  for (int step = 0; step < 100; ++step) calm.add(step == 40 ? 1e30 : 4.0);
  CHECK_FALSE(calm.has_run_away());
  RunawayWatch spiked;
  spiked.add(4);
  for (int step = 0; step < 200; ++step) {
    spiked.add(step % 50 == 0 ? 1e30 : 3.0);
    CHECK_FALSE(spiked.has_run_away());
  }
  RunawayWatch gone;
  gone.add(4);
  for (int step = 0; step < 60; ++step) gone.add(6.5);
  CHECK(gone.has_run_away());
  RunawayWatch high;
  high.add(4);
  for (int step = 0; step < 1000; ++step) high.add(5.9);
  CHECK_FALSE(high.has_run_away());
}

TEST_CASE("a trial whose loss runs away stops at the same step each time, also when it was resumed",
          "[worker][train]") {
  const TemporaryFolder folder;
  auto spec = tiny_trial();
  spec.base.lr = 30;
  spec.base.wd = 0;
  spec.run.steps = spec.proxy.steps = 200;
  auto assignment = assignment_of(spec);
  const auto first = outcome(train({assignment}), assignment);
  REQUIRE(std::holds_alternative<sweeps::Diverged>(first));
  const auto step = std::get<sweeps::Diverged>(first).step;
  CHECK(step > 4);  // the warm-up
  CHECK(step < 100);
  assignment.checkpoint = (folder / "c").string();
  train({assignment}, [&](int poll, StopRequests& requests) { requests.drain = poll >= step - 2; });
  const auto resumed = outcome(train({assignment}), assignment);
  REQUIRE(std::holds_alternative<sweeps::Diverged>(resumed));
  CHECK(std::get<sweeps::Diverged>(resumed).step == step);
}

TEST_CASE("a branch ends where a run of its length ends, bit for bit, and the trunk never knows",
          "[worker][train][branches]") {
  for (auto spec : {tiny_trial(), tiny_moe_trial()}) {
    spec.schedule = {.warmup = 0.1, .decay = 0.25};
    const auto plain = assignment_of(spec);
    spec.branches = {0.3, 0.5, 1};
    const auto branched = assignment_of(spec);
    const auto messages = train({branched});
    const auto result = finished(messages, branched);
    const auto unbranched = train({plain});
    CHECK(result.loss == finished(unbranched, plain).loss);
    for (const char* metric : {"train_loss", "grad_norm", "eval_loss", "load_imbalance", "gradient_noise"})
      CHECK(messages.curve(branched.trial, metric).values == unbranched.curve(plain.trial, metric).values);

    const auto branches = messages.of<Branch>(branched.trial);
    REQUIRE(branches.size() == 3);
    CHECK(branches[2].loss == result.loss);
    CHECK(branches[2].steps == 40);
    for (const int i : {0, 1}) {
      auto alone = spec;
      alone.branches.clear();
      alone.run.steps = alone.proxy.steps = branches[static_cast<std::size_t>(i)].steps;
      CHECK(alone.run.steps == (i == 0 ? 12 : 20));
      alone.schedule.warmup = 4.0 / static_cast<double>(alone.run.steps);  // that of the whole run
      const auto short_run = assignment_of(alone);
      CHECK(branches[static_cast<std::size_t>(i)].loss == finished(train({short_run}), short_run).loss);
    }
  }
}

TEST_CASE("a trial that was stopped inside a branch and resumed equals the unbroken one, bit for bit",
          "[worker][train][branches]") {
  const TemporaryFolder folder;
  for (auto spec : {tiny_trial(), tiny_moe_trial()}) {
    spec.schedule = {.warmup = 0.1, .decay = 0.25};
    spec.branches = {0.3, 0.5, 1};
    const auto plain = assignment_of(spec);
    const auto unbroken = train({plain});
    const auto losses = [&](const Messages& messages) {
      std::vector<double> values;
      for (const auto& branch : messages.of<Branch>(plain.trial)) values.push_back(branch.loss);
      return values;
    };
    // The trunk leaves at steps 9 and 15 for branches of 3 and 5 updates.
    int inside = 0;
    for (const int stop_at : {9, 10, 11, 12, 13, 14, 20, 22, 24, 26, 28, 40}) {
      auto assignment = plain;
      assignment.checkpoint = (folder / std::to_string(stop_at)).string();
      train({assignment}, [&](int poll, StopRequests& requests) { requests.drain = poll >= stop_at; });
      assignment.attempt = 2;
      const auto resumed = train({assignment});
      CHECK(finished(resumed, assignment).loss == finished(unbroken, plain).loss);
      check_equal_curves(resumed, unbroken, plain.trial);
      CHECK(losses(resumed) == losses(unbroken));
      const auto first_step = resumed.of<Started>(plain.trial).at(0).first_step;
      inside += first_step == 9 || first_step == 15;
      fs::remove(assignment.checkpoint);
    }
    CHECK(inside > 3);
  }
}

TEST_CASE("slots with and without branches train side by side", "[worker][train][branches]") {
  auto spec = tiny_trial();
  const auto plain = assignment_of(spec);
  spec.branches = {0.5, 1};
  spec.base.lr = 3e-3;
  const auto branched = assignment_of(spec);
  const auto together = train({branched, plain});
  const auto alone = train({branched});
  CHECK(finished(together, plain).loss == finished(train({plain}), plain).loss);
  CHECK(finished(together, branched).loss == finished(alone, branched).loss);
  CHECK(together.of<Branch>(branched.trial).at(0).loss == alone.of<Branch>(branched.trial).at(0).loss);
  CHECK(together.of<Branch>(plain.trial).empty());
}

TEST_CASE("a trial that was stopped and resumed equals the unbroken one, bit for bit", "[worker][train]") {
  const TemporaryFolder folder;
  for (const auto& spec :
       {tiny_trial(), tiny_moe_trial(), tiny_diffusion_trial(), tiny_moe_diffusion_trial()}) {
    const auto plain = assignment_of(spec);
    const auto unbroken = train({plain});
    // Polls: one per step and one per chunk of an evaluation; both places must be fit to stop in.
    for (const int stop_at : {0, 1, 10, 11, 17, 30, 43}) {
      auto first = plain;
      first.checkpoint = (folder / (std::to_string(stop_at) + ".c")).string();
      const auto broken =
          train({first}, [&](int poll, StopRequests& requests) { requests.drain = poll >= stop_at; });
      const auto end = outcome(broken, first);
      REQUIRE(std::holds_alternative<Failed>(end));
      CHECK(std::get<Failed>(end).failure == FailureClass::cancelled);
      const auto saved = broken.of<Checkpointed>(first.trial);
      REQUIRE(saved.size() == 1);

      auto second = first;
      second.attempt = 2;
      const auto resumed = train({second});
      CHECK(resumed.of<Started>(second.trial).at(0).first_step == saved[0].step);
      CHECK(finished(resumed, second).loss == finished(unbroken, plain).loss);
      check_equal_curves(resumed, unbroken, plain.trial);
      fs::remove(first.checkpoint);
    }
  }
}

TEST_CASE("a target that has finished draws the same pictures each time, a proxy draws none",
          "[worker][train][diffusion]") {
  const TemporaryFolder folder;
  auto spec = tiny_moe_diffusion_trial();
  const auto proxy = assignment_of(spec);
  CHECK(train({proxy}).of<Sampled>(proxy.trial).empty());
  spec.role = sweeps::TrialRole::target;
  auto target = assignment_of(spec);
  const auto sheets = train({target}).of<Sampled>(target.trial);
  REQUIRE(sheets.size() == 1);
  const auto& sheet = sheets[0].sheet;
  CHECK(is_sound(sheet));
  CHECK(sheet.width == 8);
  CHECK(sheet.drawn.size() == 64 * 64);
  CHECK(sheet.real.size() == 64 * 64);
  CHECK(std::set(sheet.drawn.begin(), sheet.drawn.end()).size() > 50);

  target.checkpoint = (folder / "c").string();
  const auto broken = train({target}, [](int poll, StopRequests& requests) { requests.drain = poll >= 17; });
  CHECK(broken.of<Sampled>(target.trial).empty());
  target.attempt = 2;
  const auto resumed = train({target}).of<Sampled>(target.trial);
  REQUIRE(resumed.size() == 1);
  CHECK(resumed[0].attempt == 2);
  CHECK(resumed[0].sheet == sheet);
}

TEST_CASE("slots at different steps go on side by side", "[worker][train]") {
  const TemporaryFolder folder;
  auto other_spec = tiny_trial();
  other_spec.base.lr = 3e-3;
  auto early = assignment_of(tiny_trial()), late = assignment_of(other_spec);
  late.checkpoint = (folder / "late").string();
  train({late}, [](int poll, StopRequests& requests) { requests.drain = poll >= 25; });
  const auto together = train({early, late});
  CHECK(together.of<Started>(late.trial).at(0).first_step > 15);
  CHECK(finished(together, early).loss == finished(train({early}), early).loss);
  late.checkpoint.clear();
  CHECK(finished(together, late).loss == finished(train({late}), late).loss);
}

TEST_CASE("checkpoints are written while a trial runs", "[worker][train]") {
  const TemporaryFolder folder;
  auto assignment = assignment_of(tiny_trial());
  assignment.checkpoint = (folder / "c").string();
  assignment.checkpoint_seconds = 1e-9;  // after every step
  const auto messages = train({assignment});
  const auto saved = messages.of<Checkpointed>(assignment.trial);
  REQUIRE(saved.size() >= 40);
  CHECK(saved.back().file == assignment.checkpoint);
  CHECK(saved.back().checksum.size() == 32);
  CHECK(finished(messages, assignment).loss ==
        finished(train({assignment_of(tiny_trial())}), assignment).loss);
}

TEST_CASE("a damaged or foreign checkpoint is ignored: the one before is used, or else the trial starts over",
          "[worker][train][faults][F8]") {
  const TemporaryFolder folder;
  auto assignment = assignment_of(tiny_trial());
  const double loss = finished(train({assignment}), assignment).loss;
  const fs::path file = folder / "c", before = folder / "c.1";
  assignment.checkpoint = file.string();
  const auto stop_at = [](int step) { return [=](int poll, StopRequests& requests) { requests.drain = poll >= step; }; };
  train({assignment}, stop_at(9));
  train({assignment}, stop_at(8));  // polls later: six steps and two evaluations
  const std::string sound = contents(file), older = contents(before);
  REQUIRE(fs::exists(before));
  const auto check_starts_at = [&](std::int64_t step) {
    const auto messages = train({assignment});
    CHECK(messages.of<Started>(assignment.trial).at(0).first_step == step);
    CHECK(finished(messages, assignment).loss == loss);
  };
  check_starts_at(15);
  // Whatever it is that the file holds. `damage` writes it.
  const auto check_of_no_use = [&](const auto& damage) {
    damage();
    fs::remove(before);
    check_starts_at(0);
    damage();
    folder.write("c.1", older);
    check_starts_at(9);
    CHECK(contents(file) == older);
    CHECK_FALSE(fs::exists(before));
  };
  auto other_spec = tiny_trial();
  other_spec.base.lr = 2e-2;
  auto other = assignment_of(other_spec);
  other.checkpoint = (folder / "foreign").string();
  train({other}, stop_at(17));
  const std::string foreign = contents(other.checkpoint);

  // TUNEONCE_SOAK=1: a hundred of each kind.
  const char* soak = std::getenv("TUNEONCE_SOAK");
  const int rounds = soak ? std::max(5, static_cast<int>(100 * std::atof(soak))) : 5;
  std::mt19937_64 random(20261125);
  for (int round = 0; round < rounds; ++round) {
    const std::size_t at = random() % sound.size();
    INFO("byte " << at << " of " << sound.size());
    std::string flipped = sound;
    flipped[at] = static_cast<char>(flipped[at] ^ 1 << random() % 8);
    for (const auto& text : {flipped, sound.substr(0, at), std::string(), foreign})
      check_of_no_use([&] { folder.write("c", text); });
    check_of_no_use([&] {
      write_safetensors(file, {}, {{"format", "tuneonce checkpoint 1"}, {"trial", assignment.trial}});
    });
    check_of_no_use([&] {
      const std::uint64_t header = 10ULL << 30;
      folder.write("c", std::string(reinterpret_cast<const char*>(&header), sizeof header));
      fs::resize_file(file, sizeof header + header);  // nothing of it is on the disk
    });
  }
}

TEST_CASE("where a kill left no checkpoint but the one before, it is used", "[worker][train][faults][F8]") {
  const TemporaryFolder folder;
  auto assignment = assignment_of(tiny_trial());
  assignment.checkpoint = (folder / "c").string();
  train({assignment}, [](int poll, StopRequests& requests) { requests.drain = poll >= 9; });
  fs::rename(folder / "c", folder / "c.1");  // between the move and the end of the next one's writing
  CHECK(train({assignment}).of<Started>(assignment.trial).at(0).first_step == 9);
}

TEST_CASE("a checkpoint that cannot be written costs the checkpoint, not the trial", "[worker][train]") {
  auto assignment = assignment_of(tiny_trial());
  assignment.checkpoint = "/proc/no/such/folder/c";
  assignment.checkpoint_seconds = 1e-9;
  const auto messages = train({assignment});
  finished(messages, assignment);
  CHECK(messages.of<Checkpointed>(assignment.trial).empty());
}

TEST_CASE("a disk that is full in the middle of a checkpoint costs neither the trial nor the checkpoint before",
          "[worker][train][faults][F6]") {
  const TemporaryFolder folder;
  auto assignment = assignment_of(tiny_trial());
  assignment.checkpoint = (folder / "c").string();
  train({assignment}, [&](int poll, StopRequests& requests) { requests.drain = poll == 5; });
  const auto before = contents(assignment.checkpoint);
  REQUIRE(before.size() > 20'000);

  const auto usual = std::signal(SIGXFSZ, SIG_IGN);  // so that write() fails, as on a full disk
  rlimit limit{};
  ::getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small{10'000, limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  assignment.checkpoint_seconds = 1e-9;
  const auto messages = train({assignment});
  ::setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, usual);

  CHECK(messages.of<Started>(assignment.trial).at(0).first_step > 0);
  finished(messages, assignment);
  CHECK(messages.of<Checkpointed>(assignment.trial).empty());
  CHECK((contents(assignment.checkpoint) == before));
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == 1);  // no half of one
}

TEST_CASE("cancelling one slot leaves the other alone", "[worker][train]") {
  auto other_spec = tiny_trial();
  other_spec.base.lr = 3e-3;
  const auto stays = assignment_of(tiny_trial()), goes = assignment_of(other_spec);
  const auto messages = train({goes, stays}, [&](int poll, StopRequests& requests) {
    if (poll == 5) requests.cancelled.insert(goes.trial);
    if (poll == 6) requests.cancelled.insert("a trial of nobody");
  });
  const auto end = messages.of<Ended>(goes.trial).at(0).outcome;
  CHECK(std::get<Failed>(end).failure == FailureClass::cancelled);
  CHECK(messages.curve(goes.trial, "train_loss").steps.size() == 5);
  CHECK(finished(messages, stays).loss == finished(train({stays}), stays).loss);
}

TEST_CASE("the user's mistakes end a trial as user_error with their text", "[worker][train]") {
  const auto check = [](const sweeps::TrialSpec& spec, const std::string& text) {
    const auto assignment = assignment_of(spec);
    const auto end = outcome(train({assignment}), assignment);
    REQUIRE(std::holds_alternative<Failed>(end));
    CHECK(std::get<Failed>(end).failure == FailureClass::user_error);
    CHECK_THAT(std::get<Failed>(end).message, ContainsSubstring(text));
  };
  auto spec = tiny_trial();
  spec.data.source = sweeps::DataSource::text;
  spec.data.path = "/no/such/text";
  spec.run.shape.vocab = spec.proxy.shape.vocab = 256;
  check(spec, "/no/such/text does not exist");
  spec.data.source = sweeps::DataSource::tokens;
  spec.data.path = std::string(5000, 'x');  // no file system has such a name
  check(spec, "File name too long");
  spec = tiny_trial();
  spec.run.shape.head_size = 5;
  check(spec, "head");
  spec = tiny_trial();
  spec.data.source = sweeps::DataSource::templates;
  check(spec, "a language model needs tokens");
  spec = tiny_diffusion_trial();
  spec.data.source = sweeps::DataSource::teacher;
  check(spec, "a diffusion model needs images");
  spec = tiny_diffusion_trial();
  spec.run.shape.patch = 3;
  check(spec, "patch 3 does not divide the image size 8");
  spec = tiny_trial();
  spec.run.batch = 0;
  check(spec, "run.batch must be at least 1, found 0");
  spec = tiny_trial();
  spec.run.steps = -1;
  check(spec, "run.steps must be at least 1");
  spec = tiny_trial();
  spec.proxy.batch = 0;
  check(spec, "proxy.batch must be at least 1");
  spec = tiny_trial();
  spec.proxy.shape.width = 0;
  check(spec, "width must be at least 1");
  spec = tiny_trial();
  spec.branches = {0.5, 0.25, 1};
  check(spec, "branches must rise");
  spec.branches = {0.5};
  check(spec, "branches must rise from above 0 to 1");
  spec.branches = {0.01, 1};
  check(spec, "within the warm-up");
  spec.branches = {0.5, 1};
  spec.schedule.kind = sweeps::ScheduleKind::linear;
  check(spec, "wsd");
  spec = tiny_trial();
  spec.run.steps = 1;  // 1 - beta1 would be 4
  check(spec, "beta1");
}

TEST_CASE("running out of memory has classes of its own", "[worker][train]") {
  CHECK(failure_of(std::bad_alloc()).failure == FailureClass::oom_host);
  CHECK(failure_of(std::runtime_error("[enforce fail] DefaultCPUAllocator: can't allocate memory")).failure ==
        FailureClass::oom_host);
  for (const char* text :
       {"CUDA error: out of memory\nCompile with", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"})
    CHECK(failure_of(std::runtime_error(text)).failure == FailureClass::oom_gpu);
  CHECK(failure_of(std::runtime_error("anything else\nwith a stack")).failure == FailureClass::crash);
  CHECK(failure_of(std::runtime_error("anything else\nwith a stack")).message == "anything else");
  auto spec = tiny_trial();
  spec.run.shape.width = spec.proxy.shape.width = 1 << 22;
  spec.run.shape.ffn_width = spec.proxy.shape.ffn_width = 1 << 22;  // 64 TiB a matrix
  const auto assignment = assignment_of(spec);
  const auto end = outcome(train({assignment}), assignment);
  CHECK(std::get<Failed>(end).failure == FailureClass::oom_host);
}

TEST_CASE("a device fault is thrown on and ends no trial", "[worker][train]") {
  constexpr std::int32_t kIllegalAddress = 700, kOutOfMemory = 2;  // CUDA's codes
  const c10::SourceLocation here{__func__, __FILE__, __LINE__};
  const c10::AcceleratorError fault(here, kIllegalAddress, "CUDA error: an illegal memory access");
  CHECK(is_device_fault(fault));
  CHECK(is_device_fault(std::runtime_error("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling")));
  CHECK_FALSE(is_device_fault(c10::AcceleratorError(here, kOutOfMemory, "CUDA error: out of memory")));
  CHECK_FALSE(is_device_fault(std::runtime_error("anything else")));

  Messages messages;
  const auto emit = [&](const WorkerMessage& message) { messages.all.push_back(message); };
  const auto assignment = assignment_of(tiny_trial());
  CHECK_THROWS_AS(train_stack({assignment}, Device{}, emit, [&]() -> const StopRequests& { throw fault; }),
                  c10::AcceleratorError);
  CHECK(messages.of<Started>(assignment.trial).size() == 1);
  CHECK(messages.of<Ended>(assignment.trial).empty());
}

TEST_CASE("curves are thinned to at most 400 points that average what they stand for", "[worker][train]") {
  CurveRecorder curve = CurveRecorder::every_step(1000);
  for (std::int64_t step = 0; step < 1000; ++step) curve.add(step, static_cast<double>(step));
  curve.end_point(999);
  REQUIRE(curve.steps.size() == 334);
  CHECK(curve.steps.front() == 2);
  CHECK(curve.values.front() == 1);
  CHECK(curve.steps.back() == 999);
  CHECK(curve.values.back() == 999);
}

TEST_CASE("measuring times a step and an evaluation and trains nothing for good", "[worker][train]") {
  const auto measured = measure(tiny_trial(), 3, Device{});
  CHECK(measured.seconds_per_step > 0);
  CHECK(measured.seconds_per_eval > 0);
  auto bad = tiny_trial();
  bad.run.shape.head_size = 5;
  CHECK_THROWS_AS(measure(bad, 3, Device{}), std::invalid_argument);
}

TEST_CASE("the teacher's LR curve is a bowl: an octave off the best costs 0.01 nats or more",
          "[worker][train][slow]") {
  sweeps::TrialSpec spec;
  spec.run.shape = {.width = 64, .depth = 2, .head_size = 16, .context = 64, .vocab = 128, .ffn_width = 64};
  spec.run.batch = 16;
  spec.run.steps = 600;
  spec.proxy = spec.run;
  spec.base = {.wd = 0.1, .init_std = 0.08};
  spec.eval = {.tokens = 16384, .every = 1};
  spec.schedule = {.warmup = 0.05, .decay = 0.3};
  spec.seed = 1;
  double excess[3];
  for (int i = 0; i < 3; ++i) {
    spec.base.lr = std::exp2(-8 + i);
    const auto assignment = assignment_of(spec);
    const auto result = finished(train({assignment}), assignment);
    excess[i] = result.loss - *result.floor;
  }
  INFO(excess[0] << " " << excess[1] << " " << excess[2]);
  CHECK(excess[1] > 0.1);  // there is still something to gain
  CHECK(excess[1] < 0.25);
  CHECK(excess[0] > excess[1] + 0.01);
  CHECK(excess[2] > excess[1] + 0.01);
}

TEST_CASE("the templates' LR curve is a bowl: an octave too high costs ten times the seeds' difference",
          "[worker][train][slow]") {
  auto spec = tiny_diffusion_trial();
  for (auto* run : {&spec.run, &spec.proxy}) {
    run->shape.width = run->shape.ffn_width = 64;
    run->shape.head_size = 16;
    run->batch = 32;
    run->steps = 800;
  }
  spec.base = {.wd = 0.1, .init_std = 0.1};
  spec.eval = {.tokens = 512 * 16, .every = 1};
  spec.schedule = {.kind = sweeps::ScheduleKind::linear, .warmup = 0.05};
  spec.data.teacher_seed = spec.seed = 1;
  double excess[3];
  for (int i = 0; i < 3; ++i) {
    spec.base.lr = std::array{3e-3, 1.2e-2, 2.4e-2}[static_cast<std::size_t>(i)];
    const auto assignment = assignment_of(spec);
    const auto result = finished(train({assignment}), assignment);
    excess[i] = result.loss - *result.floor;
  }
  INFO(excess[0] << " " << excess[1] << " " << excess[2]);
  CHECK(excess[1] > 0.03);  // there is still something to gain
  CHECK(excess[0] > excess[1] + 0.01);
  CHECK(excess[2] > excess[1] + 0.01);
}
