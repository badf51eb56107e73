#include "sweeps/coord_check.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace sweeps {
namespace {

constexpr std::int64_t kTokens = 8, kSmallWidth = 64, kSmallDepth = 2;
constexpr std::int64_t kInitSequences = 8, kInitTokens = 32;
constexpr double kStandardErrors = 2;

models::ModelShape moe(models::ModelShape shape, std::int64_t experts, std::int64_t active,
                       std::int64_t shared) {
  shape.num_experts = experts;
  shape.num_active = active;
  shape.num_shared = shared;
  shape.expert_width = shape.ffn_width;
  return shape;
}

models::ModelShape stretched(const models::ModelShape& proxy, Axis axis, int scale, int largest) {
  auto shape = proxy;
  switch (axis) {
    case Axis::width:
      shape.width *= scale;
      shape.ffn_width *= scale;
      return moe(shape, 4, 2, 1);
    case Axis::depth: shape.depth *= scale; return moe(shape, 4, 2, 1);
    case Axis::experts: return moe(shape, 4 * scale, 2, 1);
    case Axis::active: return moe(shape, 2 * largest, 2 * scale, 0);
    case Axis::granularity: {
      shape = moe(shape, 8 * scale, 2 * scale, 0);
      shape.expert_width = std::max<std::int64_t>(1, shape.ffn_width / scale);
      return shape;
    }
    case Axis::shared: return moe(shape, 8, 2, scale);
  }
  throw std::logic_error("stretched: unknown Axis");
}

void check(const CoordOptions& options) {
  if (options.scales.size() < 3)
    throw std::invalid_argument("a slope needs at least 3 scales, found " +
                                std::to_string(options.scales.size()));
  for (std::size_t i = 0; i < options.scales.size(); ++i) {
    const int scale = options.scales[i];
    if (scale < 1 || (scale & (scale - 1)) != 0 || (i > 0 && scale <= options.scales[i - 1]))
      throw std::invalid_argument("scales must be rising powers of two, such as 1,2,4; found " +
                                  std::to_string(scale));
  }
  if (options.seeds < 3)
    throw std::invalid_argument("a slope needs at least 3 seeds, found " + std::to_string(options.seeds));
  if (options.steps < 2)
    throw std::invalid_argument("at least 2 steps are needed, found " + std::to_string(options.steps));
}

std::vector<CoordRun> plan(const TrialSpec& base, const CoordOptions& options, std::int64_t batch,
                           std::int64_t tokens) {
  std::vector<CoordRun> runs;
  for (const Axis axis : options.axes)
    for (const int scale : options.scales)
      for (int seed = 0; seed < options.seeds; ++seed) {
        CoordRun run{axis, scale, base};
        auto& spec = run.spec;
        spec.role = TrialRole::check;
        spec.name = std::string(name(axis)) + " x" + std::to_string(scale) + " seed " + std::to_string(seed);
        spec.run.batch = batch;
        spec.run.steps = options.steps + 1;
        spec.run.shape.context = tokens;
        spec.proxy = spec.run;
        spec.run.shape = stretched(spec.proxy.shape, axis, scale, options.scales.back());
        spec.schedule = {.kind = ScheduleKind::wsd, .warmup = 0, .decay = 0};
        spec.clip = 0;
        spec.eval = {.tokens = tokens, .every = 1};
        spec.seed = derived_seed(base.seed, "check/" + std::to_string(seed));
        models::validate(spec.run.shape);
        runs.push_back(std::move(run));
      }
  return runs;
}

/// alpha of the branches under this rule; one without depth control is held to CompleteP's 1.
double branch_exponent(const models::RuleOptions& rule) {
  return models::uses(rule.rule).depth_exponent ? rule.depth_exponent : 1.0;
}

bool is_any(const std::string& layer, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* name) { return layer == name; });
}

/// How far a slope lies outside its band; below 0: how far inside.
double excess(const Band& band, double slope) { return std::max(band.lo - slope, slope - band.hi); }

}  // namespace

std::string_view name(Axis axis) {
  switch (axis) {
    case Axis::width: return "width";
    case Axis::depth: return "depth";
    case Axis::experts: return "experts";
    case Axis::active: return "active";
    case Axis::granularity: return "granularity";
    case Axis::shared: return "shared";
  }
  throw std::logic_error("name: unknown Axis");
}

Axis parse_axis(std::string_view text) {
  std::string known;
  for (const Axis axis : kAxes) {
    if (name(axis) == text) return axis;
    known += (known.empty() ? "" : ", ") + std::string(name(axis));
  }
  throw std::invalid_argument("unknown axis \"" + std::string(text) + "\"; known: " + known);
}

TrialSpec small_proxy(const TrialSpec& proxy) {
  TrialSpec spec = proxy;
  auto& shape = spec.run.shape;
  const double expansion = static_cast<double>(shape.ffn_width) / static_cast<double>(shape.width);
  const std::int64_t width = std::min(shape.width, kSmallWidth);
  spec.base.init_std *= std::sqrt(static_cast<double>(shape.width) / static_cast<double>(width));
  shape.width = width;
  shape.ffn_width = std::max<std::int64_t>(1, std::llround(expansion * static_cast<double>(width)));
  shape.depth = std::min(shape.depth, kSmallDepth);
  if (width % shape.head_size != 0 || width / shape.head_size < 2)
    shape.head_size = width % 16 == 0 ? 16 : width;
  spec.proxy = spec.run;
  return spec;
}

std::vector<CoordRun> plan_coord(const TrialSpec& base, const CoordOptions& options) {
  check(options);
  return plan(base, options, 1, kTokens);
}

std::vector<CoordRun> plan_init(const TrialSpec& base, const CoordOptions& options) {
  check(options);
  return plan(base, options, kInitSequences, kInitTokens);
}

Band expected_slope(Axis axis, const QuantityKey& key, const models::RuleOptions& rule) {
  const auto& [layer, quantity] = key;
  const bool is_down = is_any(layer, {"attention_out", "ffn_down", "expert_down", "shared_down"});
  if (quantity == "loss") return {.gated = false, .why = "shown only"};
  if (quantity == "gradient") return {.gated = false, .why = "shown only: Adam divides by it"};
  if (quantity == "entropy") return {};

  if (axis == Axis::depth) {
    const double alpha = branch_exponent(rule);
    if (layer == "stream")
      return {.lo = -0.6, .why = "may shrink: each of L independent branches is m^-alpha at the start"};
    if (quantity == "activation" && is_any(layer, {"attention", "ffn"}))
      return {-alpha - 0.25, -alpha + 0.25, true, "m^-alpha on each branch"};
    if (quantity == "effective" && is_down)
      return {-1.35, -0.75, true, "m^-alpha on the branch, LR m^(alpha-1): 1/m"};
    if (quantity == "propagating" && is_down)
      return {-alpha - 0.25, -alpha + 0.6, true, "m^-alpha on the branch; more as the stream is smaller"};
    if (quantity == "propagating")
      return {-0.1, 0.6, true, "the embedding's share of a stream that starts smaller"};
    if (quantity == "effective" && layer != "head")
      return {alpha - 1 - 0.35, alpha - 1 + 0.1, true, "LR m^(alpha-1); the stream differs"};
  }
  if (axis == Axis::shared && is_any(layer, {"expert_down", "shared_down"}))
    return {.gated = false, .why = "its share of the branch, a/(a+s) or s/(a+s), moves by design"};
  if (layer == "logits" || (layer == "head" && quantity == "propagating"))
    return axis == Axis::width
               ? Band{.lo = -0.6, .why = "the initial head's part may shrink by width^-1/2; must not grow"}
               : Band{};
  if (quantity == "effective")
    return {.lo = axis == Axis::depth ? -0.45 : -0.35,
            .why = "narrow: part of an update adds up by chance only (-1/2) until the width outweighs the tokens"};
  return {};
}

std::pair<double, double> slope_of(const std::vector<std::pair<double, double>>& points) {
  const auto n = static_cast<double>(points.size());
  double mean_x = 0, mean_y = 0;
  for (const auto& [x, y] : points) mean_x += x / n, mean_y += y / n;
  double xx = 0, xy = 0;
  for (const auto& [x, y] : points) {
    xx += (x - mean_x) * (x - mean_x);
    xy += (x - mean_x) * (y - mean_y);
  }
  const double slope = xy / xx;
  double residual = 0;
  for (const auto& [x, y] : points) {
    const double r = y - mean_y - slope * (x - mean_x);
    residual += r * r;
  }
  return {slope, std::sqrt(residual / (n - 2) / xx)};
}

std::vector<CoordRow> judge_coord(const std::vector<CoordRun>& runs, const std::vector<Quantities>& seen,
                                  const CoordOptions& options) {
  if (runs.size() != seen.size()) throw std::logic_error("judge_coord: a run without an answer");
  std::vector<CoordRow> rows;
  const auto loss_length = [](const Quantities& one) {
    const auto it = one.find({"loss", "loss"});
    return it == one.end() ? std::size_t{0} : it->second.size();
  };
  for (const Axis axis : options.axes) {
    std::vector<std::size_t> members;
    bool whole = true;
    for (std::size_t i = 0; i < runs.size(); ++i) {
      if (runs[i].axis != axis) continue;
      members.push_back(i);
      whole = whole && loss_length(seen[i]) == static_cast<std::size_t>(options.steps) + 1;
    }
    if (members.empty()) continue;
    for (const auto& [key, first] : seen[members.front()]) {
      CoordRow row{.axis = axis, .key = key, .band = expected_slope(axis, key, runs[members.front()].spec.rule)};
      std::size_t length = first.size();
      for (const auto i : members) {
        const auto it = seen[i].find(key);
        length = it == seen[i].end() ? 0 : std::min(length, it->second.size());
      }
      const bool needs_update = key.second == "effective" || key.second == "propagating";
      row.first_step = needs_update ? 1 : 0;
      row.pass = whole || !row.band.gated;
      double worst = -std::numeric_limits<double>::infinity();
      row.mean_log.assign(options.scales.size(), std::vector<double>(length, 0));
      for (std::size_t t = 0; t < length; ++t) {
        std::vector<std::pair<double, double>> points;
        for (const auto i : members) {
          // Exactly zero is a layer that never learns: as far from flat as can be.
          const double y = std::log(std::max(seen[i].at(key)[t], std::numeric_limits<double>::min()));
          points.emplace_back(std::log(static_cast<double>(runs[i].scale)), y);
          const auto at = std::find(options.scales.begin(), options.scales.end(), runs[i].scale);
          row.mean_log[static_cast<std::size_t>(at - options.scales.begin())][t] += y / options.seeds;
        }
        const auto [slope, error] = slope_of(points);
        row.slope.push_back(slope);
        row.standard_error.push_back(error);
        if (static_cast<int>(t) + row.first_step < 1) continue;
        const double outside = excess(row.band, slope) - kStandardErrors * error;
        if (outside > worst) worst = outside, row.worst = t;
        if (row.band.gated && !(outside <= 0)) row.pass = false;
      }
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

std::vector<InitRow> judge_init(const std::vector<CoordRun>& runs, const std::vector<Quantities>& seen,
                                const CoordOptions& options) {
  if (runs.size() != seen.size()) throw std::logic_error("judge_init: a run without an answer");
  std::vector<InitRow> rows;
  for (const Axis axis : options.axes)
    for (const char* layer : {"attention", "ffn"}) {
      double first = 0;
      for (const int scale : options.scales) {
        double square = 0, branch = 1;
        for (std::size_t i = 0; i < runs.size(); ++i) {
          if (runs[i].axis != axis || runs[i].scale != scale) continue;
          const double rms = seen[i].at({layer, "activation"}).at(0);
          square += rms * rms / options.seeds;
          if (axis == Axis::depth) branch = std::pow(scale, -branch_exponent(runs[i].spec.rule));
        }
        InitRow row{.axis = axis, .layer = layer, .scale = scale, .rms = std::sqrt(square)};
        if (first == 0) first = row.rms / branch;
        row.ratio = row.rms / branch / first;
        const bool mixed = axis == Axis::depth && row.layer == "attention";
        row.pass = std::abs(row.ratio - 1) <= (mixed ? kInitDepthTolerance : kInitTolerance);
        rows.push_back(std::move(row));
      }
    }
  return rows;
}

}  // namespace sweeps
