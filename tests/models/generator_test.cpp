#include "models/generator.h"

#include <cmath>
#include <vector>

#include "models/model.h"
#include "tests/models/tiny.h"
#include "tests/support/catch.h"

using namespace models;

namespace {

std::vector<float> normals(std::size_t count, std::uint64_t seed, const char* tensor = "head",
                           double std = 1) {
  std::vector<float> values(count);
  fill_normal(values, tensor_key(seed, tensor), std);
  return values;
}

/// Mean of value^power.
double moment(const std::vector<float>& values, int power) {
  double sum = 0;
  for (const float value : values) sum += std::pow(static_cast<double>(value), power);
  return sum / static_cast<double>(values.size());
}

double correlation(const std::vector<float>& a, const std::vector<float>& b, std::size_t lag = 0) {
  double sum = 0;
  for (std::size_t i = lag; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i - lag];
  return sum / static_cast<double>(a.size() - lag);
}

}  // namespace

TEST_CASE("generated numbers have the moments of a normal distribution", "[models][generator]") {
  const auto values = normals(1 << 20, 7);
  // Five standard errors of each sample moment: sqrt(var/n) with var = 1, 2, 15, 96.
  const double unit = 5 / std::sqrt(static_cast<double>(values.size()));
  CHECK(std::abs(moment(values, 1)) < unit);
  CHECK_THAT(moment(values, 2), WithinAbs(1.0, unit * std::sqrt(2.0)));
  CHECK(std::abs(moment(values, 3)) < unit * std::sqrt(15.0));
  CHECK_THAT(moment(values, 4), WithinAbs(3.0, unit * std::sqrt(96.0)));
  double beyond_two = 0;
  for (const float value : values) beyond_two += std::abs(value) > 2;
  CHECK_THAT(beyond_two / static_cast<double>(values.size()), WithinAbs(0.0455003, unit * 0.21));
}

TEST_CASE("neighbours, seeds and tensors are uncorrelated", "[models][generator]") {
  const auto values = normals(1 << 18, 7);
  const double five_errors = 5 / std::sqrt(static_cast<double>(values.size()));
  for (const std::size_t lag : {1, 2, 3, 128, 512})
    CHECK(std::abs(correlation(values, values, lag)) < five_errors);
  CHECK(std::abs(correlation(values, normals(1 << 18, 8))) < five_errors);
  CHECK(std::abs(correlation(values, normals(1 << 18, 7, "heae"))) < five_errors);
}

TEST_CASE("number i depends on the key and on i only", "[models][generator]") {
  const auto whole = normals(5000, 3);
  for (const std::size_t count : {1, 2, 511, 512, 513, 4999})
    CHECK(normals(count, 3) == std::vector<float>(whole.begin(), whole.begin() + static_cast<long>(count)));
  const auto scaled = normals(100, 3, "head", 0.25);
  for (std::size_t i = 0; i < scaled.size(); ++i) CHECK(scaled[i] == whole[i] * 0.25f);  // a power of two
}

TEST_CASE("the first numbers of a stream never change", "[models][generator]") {
  // A changed generator would silently change every stored study.
  const auto values = normals(4, 1, "embedding");
  CHECK(values == std::vector<float>{1.97492301f, 0.843120098f, -0.423323095f, 0.458562464f});
}

TEST_CASE("initial weights depend on seed and name, not on slot or number of slots", "[models][generator]") {
  const auto shape = tiny::moe("8e2a1s");
  auto solo = make_model(tiny::options(shape));
  auto stack = make_model(tiny::options(shape, 3));
  solo->initialise(0, 42, 0.05);
  for (std::int64_t k = 0; k < 3; ++k) stack->initialise(k, k == 1 ? 42 : 9, 0.05);
  bool differs = false;
  for (std::size_t i = 0; i < solo->parameters().size(); ++i) {
    INFO(solo->parameters()[i].spec.name);
    const at::Tensor& values = stack->parameters()[i].value;
    CHECK(at::equal(solo->parameters()[i].value[0], values[1]));
    CHECK(at::equal(values[0], values[2]));
    differs = differs || !at::equal(values[0], values[1]);
  }
  CHECK(differs);
}

TEST_CASE("initialising one slot leaves the others as they were", "[models][generator]") {
  auto stack = make_model(tiny::options(tiny::moe("4e2a"), 2));
  stack->initialise(0, 1, 0.1);
  stack->initialise(1, 2, 0.1);
  stack->buffers()[0].value.fill_(3);
  std::vector<at::Tensor> before;
  for (const auto& parameter : stack->parameters()) before.push_back(parameter.value[0].clone());
  stack->initialise(1, 3, 0.2);
  for (std::size_t i = 0; i < before.size(); ++i)
    CHECK(at::equal(before[i], stack->parameters()[i].value[0]));
  CHECK(stack->buffers()[0].value[0].eq(3).all().item<bool>());
  CHECK(stack->buffers()[0].value[1].eq(0).all().item<bool>());
}

TEST_CASE("the experts of a block start alike under MSSP regime 3 and differ otherwise",
          "[models][generator]") {
  auto options = tiny::options(tiny::moe("4e2a", 48));
  for (const int regime : {1, 3}) {
    options.rule = {.rule = Parameterization::mssp, .mssp_regime = regime};
    auto model = make_model(options);
    model->initialise(0, 5, 0.07);
    for (const auto& [spec, value] : model->parameters()) {
      if (spec.group != TensorGroup::expert_up && spec.group != TensorGroup::expert_down) continue;
      INFO(spec.name << ", regime " << regime);
      CHECK(at::equal(value[0][0], value[0][3]) == (regime == 3));
    }
  }
}

TEST_CASE("a rule whose forward pass is not here makes no model", "[models][generator]") {
  auto options = tiny::options(tiny::dense());
  options.rule.rule = Parameterization::u_mup;
  CHECK_THROWS_WITH(make_model(options), ContainsSubstring("u-mup"));
}

TEST_CASE("every tensor starts with the std the rule gives it, gains with one", "[models][generator]") {
  auto options = tiny::options(tiny::moe("8e2a1s", 64));
  options.run.shape.width = 64;  // twice the proxy's
  auto model = make_model(options);
  model->initialise(0, 5, 0.07);
  for (const auto& [spec, value] : model->parameters()) {
    INFO(spec.name);
    if (spec.group == TensorGroup::norm || spec.group == TensorGroup::final_norm) {
      CHECK(value.eq(1).all().item<bool>());
      continue;
    }
    const double factor = group_scaling(spec.group, options.run, options.proxy, options.rule).init_std;
    // Five standard errors of a sample std: 5 / sqrt(2n).
    const double error = 5 / std::sqrt(2.0 * static_cast<double>(spec.numel()));
    CHECK_THAT(value.std().item<double>(), WithinRel(0.07 * factor, error));
  }
}
