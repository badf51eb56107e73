#include "sweeps/trial.h"

#include <charconv>
#include <cmath>
#include <stdexcept>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace sweeps {
namespace {

/// "name=value;" text of the fields a hash covers. Numbers are written so that they read back the same.
class Canonical {
 public:
  Canonical& add(std::string_view name, std::string_view value) {
    text_.append(name).append("=").append(value).append(";");
    return *this;
  }
  template <class Number>
  Canonical& add(std::string_view name, Number value) requires std::is_arithmetic_v<Number> {
    char buffer[64];
    const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
    if (error != std::errc{}) throw std::logic_error("Canonical: number too long");
    return add(name, std::string_view(buffer, static_cast<std::size_t>(end - buffer)));
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

void add_run(Canonical& out, std::string_view prefix, const models::RunShape& run) {
  const auto& s = run.shape;
  out.add("run", prefix)
      .add("family", static_cast<int>(s.family))
      .add("width", s.width)
      .add("depth", s.depth)
      .add("head_size", s.head_size)
      .add("context", s.context)
      .add("vocab", s.is_diffusion() ? 0 : s.vocab)
      .add("ffn_width", s.is_moe() ? 0 : s.ffn_width)
      .add("experts", s.num_experts)
      .add("active", s.num_active)
      .add("shared", s.num_shared)
      .add("groups", s.num_groups)
      .add("expert_width", s.expert_width)
      .add("batch", run.batch)
      .add("steps", run.steps);
  if (s.is_diffusion()) out.add("image_size", s.image_size).add("channels", s.channels).add("patch", s.patch);
}

/// What trials of one stack have in common: all but the per-slot values.
Canonical common(const TrialSpec& spec) {
  Canonical out;
  add_run(out, "own", spec.run);
  add_run(out, "proxy", spec.proxy);
  out.add("rule", models::name(spec.rule.rule))
      .add("depth_exponent", spec.rule.depth_exponent)
      .add("duration_exponent", spec.rule.duration_exponent)
      .add("wd_width", models::name(spec.rule.wd_width))
      .add("head", models::name(spec.rule.head))
      .add("precision", name(spec.precision))
      .add("balancing", name(spec.balancing))
      .add("source", name(spec.data.source))
      .add("holdout", spec.data.holdout)
      .add("teacher_seed", spec.data.teacher_seed)
      .add("fingerprint", spec.data.fingerprint)
      .add("eval_tokens", spec.eval.tokens)
      .add("eval_every", spec.eval.every);
  // Only there it changes anything, and keys from before it existed stay what they were.
  if (models::uses(spec.rule.rule).mssp_regime) out.add("mssp_regime", spec.rule.mssp_regime);
  if (spec.run.shape.family == models::ModelFamily::command) {
    for (const auto& word : spec.command.words) out.add("word_size", word.size()).add("word", word);
    out.add("metric", spec.command.metric).add("metric_regex", spec.command.metric_regex);
  }
  return out;
}

std::string hex(std::uint64_t high, std::uint64_t low) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text(32, '0');
  for (int i = 0; i < 16; ++i) {
    text[15 - i] = kDigits[(high >> (4 * i)) & 15];
    text[31 - i] = kDigits[(low >> (4 * i)) & 15];
  }
  return text;
}

std::string hash128(const std::string& text) {
  const auto hash = XXH3_128bits(text.data(), text.size());
  return hex(hash.high64, hash.low64);
}

}  // namespace

TrialKey trial_key(const TrialSpec& spec) {
  Canonical out = common(spec);
  out.add("lr", spec.base.lr)
      .add("wd", spec.base.wd)
      .add("init_std", spec.base.init_std)
      .add("beta1", spec.base.beta1)
      .add("beta2", spec.base.beta2)
      .add("eps", spec.base.eps)
      .add("schedule", name(spec.schedule.kind))
      .add("warmup", spec.schedule.warmup)
      .add("decay", spec.schedule.decay)
      .add("clip", spec.clip)
      .add("seed", spec.seed);
  for (const double fraction : spec.branches) out.add("branch", fraction);
  return hash128(out.text());
}

std::string stack_key(const TrialSpec& spec) { return hash128(common(spec).text()); }

std::int64_t eval_interval(const TrialSpec& spec) {
  return std::llround(spec.eval.every * static_cast<double>(spec.run.steps));
}

std::vector<BranchPoint> branch_points(const TrialSpec& spec) {
  std::vector<BranchPoint> points;
  for (const double fraction : spec.branches) {
    if (fraction >= 1) continue;
    const auto steps = std::llround(fraction * static_cast<double>(spec.run.steps));
    const auto decay = std::llround(spec.schedule.decay * static_cast<double>(steps));
    points.push_back({fraction, steps - decay, steps});
  }
  return points;
}

std::int64_t trained_steps(const TrialSpec& spec) {
  std::int64_t steps = spec.run.steps;
  for (const auto& branch : branch_points(spec)) steps += branch.steps - branch.start;
  return steps;
}

std::uint64_t derived_seed(std::uint64_t study_seed, std::string_view purpose) {
  return XXH3_64bits_withSeed(purpose.data(), purpose.size(), study_seed);
}

bool has_images(DataSource source) { return source == DataSource::templates || source == DataSource::images; }

std::string_view loss_unit(const models::ModelShape& shape) { return shape.is_diffusion() ? "mse" : "nats"; }

std::string_view name(TrialRole role) {
  switch (role) {
    case TrialRole::scan: return "scan";
    case TrialRole::proxy: return "proxy";
    case TrialRole::target: return "target";
    case TrialRole::drift: return "drift";
    case TrialRole::check: return "check";
  }
  throw std::logic_error("name: unknown TrialRole");
}
std::string_view name(TrialState state) {
  switch (state) {
    case TrialState::waiting: return "waiting";
    case TrialState::running: return "running";
    case TrialState::complete: return "complete";
    case TrialState::diverged: return "diverged";
    case TrialState::failed: return "failed";
    case TrialState::pruned: return "pruned";
    case TrialState::dropped: return "dropped";
  }
  throw std::logic_error("name: unknown TrialState");
}
std::string_view name(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::wsd: return "wsd";
    case ScheduleKind::cosine: return "cosine";
    case ScheduleKind::linear: return "linear";
  }
  throw std::logic_error("name: unknown ScheduleKind");
}
std::string_view name(DataSource source) {
  switch (source) {
    case DataSource::teacher: return "teacher";
    case DataSource::text: return "text";
    case DataSource::tokens: return "tokens";
    case DataSource::templates: return "templates";
    case DataSource::images: return "images";
    case DataSource::command: return "command";
  }
  throw std::logic_error("name: unknown DataSource");
}
std::string_view name(Precision precision) {
  switch (precision) {
    case Precision::float32: return "float32";
    case Precision::bfloat16: return "bfloat16";
  }
  throw std::logic_error("name: unknown Precision");
}
std::string_view name(Balancing balancing) {
  switch (balancing) {
    case Balancing::bias: return "bias";
    case Balancing::none: return "none";
  }
  throw std::logic_error("name: unknown Balancing");
}
std::string_view name(FailureClass failure) {
  switch (failure) {
    case FailureClass::crash: return "crash";
    case FailureClass::oom_gpu: return "oom_gpu";
    case FailureClass::oom_host: return "oom_host";
    case FailureClass::stalled: return "stalled";
    case FailureClass::worker_lost: return "worker_lost";
    case FailureClass::user_error: return "user_error";
    case FailureClass::cancelled: return "cancelled";
    case FailureClass::gpu_lost: return "gpu_lost";
    case FailureClass::disk_full: return "disk_full";
  }
  throw std::logic_error("name: unknown FailureClass");
}

}  // namespace sweeps
