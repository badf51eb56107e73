#include "worker/templates.h"

#include <cmath>
#include <set>

#include "tests/support/catch.h"
#include "worker/data.h"

using namespace worker;

namespace {

constexpr std::int64_t kSize = 8, kPixels = kSize * kSize;
const DataNeeds kNeeds{16, 0, 16 * 512, kSize, 1};
const sweeps::DataSpec kSpec{.source = sweeps::DataSource::templates,
                             .path = {},
                             .validation_path = {},
                             .teacher_seed = 3,
                             .fingerprint = {}};

std::vector<float> held_out(const Templates& templates, std::int64_t count) {
  std::vector<float> images(static_cast<std::size_t>(count * kPixels));
  templates.draw(Templates::Stream::holdout, 0, images);
  return images;
}

/// Mean squared error per pixel, and its standard error over images, of `velocity(x_t, t)` less that of the
/// best.
struct Excess {
  double mean = 0, standard_error = 0;
};
template <class Velocity>
Excess excess(const Templates& templates, std::int64_t count, const Velocity& velocity) {
  const auto images = held_out(templates, count);
  const FlowNoise draws = holdout_noise(count, kPixels);
  double sum = 0, squares = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    std::vector<double> x_t, target;
    const double t = draws.times[static_cast<std::size_t>(i)];
    for (std::int64_t p = i * kPixels; p < (i + 1) * kPixels; ++p) {
      const double x = images[static_cast<std::size_t>(p)], e = draws.noise[static_cast<std::size_t>(p)];
      x_t.push_back((1 - t) * x + t * e);
      target.push_back(e - x);
    }
    const auto best = templates.best_velocity(x_t, t), found = velocity(x_t, t);
    double difference = 0;
    for (std::size_t p = 0; p < target.size(); ++p)
      difference += std::pow(found[p] - target[p], 2) - std::pow(best[p] - target[p], 2);
    difference /= kPixels;
    sum += difference;
    squares += difference * difference;
  }
  const auto n = static_cast<double>(count);
  return {sum / n, std::sqrt((squares / n - std::pow(sum / n, 2)) / n)};
}

}  // namespace

TEST_CASE("the closed-form velocity has the floor as its loss: excess zero", "[worker][templates]") {
  const Templates templates(3, kSize, 1);
  const auto source = open_image_source(kSpec, kNeeds);
  const auto& images = source->holdout();
  const FlowNoise draws = holdout_noise(512, kPixels);
  REQUIRE(images.size() == 512 * kPixels);
  double total = 0;
  for (std::size_t i = 0; i < 512; ++i) {
    std::vector<double> x_t;
    const double t = draws.times[i];
    for (std::size_t p = i * kPixels; p < (i + 1) * kPixels; ++p)
      x_t.push_back((1 - t) * images[p] + t * draws.noise[p]);
    const auto best = templates.best_velocity(x_t, t);
    for (std::size_t p = 0; p < kPixels; ++p)
      total += std::pow(draws.noise[i * kPixels + p] - images[i * kPixels + p] - best[p], 2);
  }
  REQUIRE(source->floor().has_value());
  CHECK_THAT(*source->floor(), WithinRel(total / (512.0 * kPixels), 1e-6));
}

TEST_CASE("no other velocity beats the closed form by more than its noise", "[worker][templates]") {
  const Templates templates(3, kSize, 1);
  const auto check_worse = [&](double bound, const auto& velocity) {
    const Excess found = excess(templates, 2000, velocity);
    INFO(found.mean << " +- " << found.standard_error);
    CHECK(found.mean > bound);
    CHECK(found.mean > -4 * found.standard_error);
  };
  const auto best = [&](double at, double times) {
    return [&templates, at, times](const std::vector<double>& x_t, double t) {
      auto velocity = templates.best_velocity(x_t, std::min(0.999, t * at));
      for (double& v : velocity) v *= times;
      return velocity;
    };
  };
  check_worse(1e-3, best(1, 0.95));
  check_worse(1e-3, best(1, 1.05));
  check_worse(1e-3, best(0.9, 1));
  check_worse(1e-3, best(1.1, 1));
  check_worse(0.5,
              [](const std::vector<double>& x_t, double) { return std::vector<double>(x_t.size(), 0.0); });
  // The best linear guess that knows no template: slope of the covariance, mean zero.
  check_worse(0.02, [](const std::vector<double>& x_t, double t) {
    const double a = 1 - t,
                 variance = Templates::kRms * Templates::kRms + Templates::kNoise * Templates::kNoise;
    auto velocity = x_t;
    for (double& v : velocity) v *= (t - a * variance) / (a * a * variance + t * t);
    return velocity;
  });
}

TEST_CASE("who sees the clean image shows as a loss below the floor", "[worker][templates]") {
  const Templates templates(3, kSize, 1);
  const auto images = held_out(templates, 500);
  std::size_t next = 0;
  const Excess leak = excess(templates, 500, [&](const std::vector<double>& x_t, double t) {
    auto velocity = x_t;  // eps - x_0 = (x_t - x_0) / t
    for (double& v : velocity) v = (v - images[next++]) / t;
    return velocity;
  });
  CHECK(leak.mean < -20 * leak.standard_error);
}

TEST_CASE("far from noise the best velocity is the shrunk difference, at pure noise it is the mean",
          "[worker][templates]") {
  const Templates templates(3, kSize, 1);
  const std::vector<double> zero(kPixels, 0.0);
  // t = 1: v = eps - E[x_0] with eps = x_t, and the mean of the templates is the same for every x_t.
  std::vector<double> one(kPixels, 1.0);
  const auto at_zero = templates.best_velocity(zero, 1), at_one = templates.best_velocity(one, 1);
  for (std::size_t p = 0; p < kPixels; ++p) CHECK_THAT(at_one[p] - at_zero[p], WithinAbs(1, 1e-9));
}

TEST_CASE("template images are drawn by seed and step, held-out ones once", "[worker][templates]") {
  const auto source = open_image_source(kSpec, kNeeds);
  const auto batch = [&](std::uint64_t seed, std::int64_t step) {
    std::vector<float> images(4 * kPixels);
    source->train_batch(seed, step, 4, images);
    return images;
  };
  CHECK(batch(1, 7) == batch(1, 7));
  CHECK(batch(1, 7) != batch(1, 8));
  CHECK(batch(1, 7) != batch(2, 7));
  CHECK(source->holdout() == held_out(Templates(3, kSize, 1), 512));
  double square = 0;
  for (const float pixel : source->holdout()) {
    CHECK(std::abs(pixel) < 3.5);
    square += pixel * pixel;
  }
  const double expected = Templates::kRms * Templates::kRms + Templates::kNoise * Templates::kNoise;
  CHECK_THAT(square / (512 * kPixels), WithinRel(expected, 0.02));  // 32,768 pixels
  auto other = kSpec;
  other.teacher_seed = 4;
  CHECK(open_image_source(other, kNeeds)->facts().fingerprint != source->facts().fingerprint);
}

TEST_CASE("training times fill the unit interval evenly in every step", "[worker][templates]") {
  const FlowNoise draws = training_noise(5, 3, 32, kPixels);
  REQUIRE(draws.noise.size() == 32 * kPixels);
  for (std::size_t row = 0; row < 32; ++row) {
    CHECK(draws.times[row] >= static_cast<float>(row) / 32);
    CHECK(draws.times[row] <= static_cast<float>(row + 1) / 32);
  }
  CHECK(draws.times == training_noise(5, 3, 32, kPixels).times);
  CHECK(draws.times != training_noise(5, 4, 32, kPixels).times);
  CHECK(draws.noise != training_noise(5, 4, 32, kPixels).noise);
  CHECK(draws.noise != training_noise(6, 3, 32, kPixels).noise);
  std::set<int> tenths;
  for (const float t : holdout_noise(20, 1).times) tenths.insert(static_cast<int>(t * 10));
  CHECK(tenths.size() == 10);
}

TEST_CASE("sources of tokens and of images are not taken for each other", "[worker][templates]") {
  CHECK_THROWS_WITH(open_source(kSpec, kNeeds), ContainsSubstring("a language model needs tokens"));
  auto teacher = kSpec;
  teacher.source = sweeps::DataSource::teacher;
  CHECK_THROWS_WITH(open_image_source(teacher, kNeeds), ContainsSubstring("a diffusion model needs images"));
  CHECK_THROWS_AS(open_image_source(kSpec, {16, 0, 64, 0, 1}), UserError);
}
