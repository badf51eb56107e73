#include "worker/protocol.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"

namespace {

using namespace worker;
using nlohmann::json;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

/// Every field differs from its default, so a field that is not carried shows.
sweeps::TrialSpec unusual_spec() {
  sweeps::TrialSpec spec;
  spec.name = "target lr=1.0e-03 \xc3\xa9";
  spec.role = sweeps::TrialRole::drift;
  spec.target = "8e2a1s";
  spec.run = {
      {models::ModelFamily::language_model, 64, 3, 16, 65, 50257, 77, 8, 2, 1, 2, 33}, 7, 123456789012};
  spec.proxy = {{models::ModelFamily::language_model, 32, 1, 8, 64, 99, 34, 0, 0, 3, 4, 5}, 9, 11};
  spec.rule = {models::Parameterization::mup, 0.5, 0.3, models::WdWidth::independent,
               models::HeadRule::complete_dp};
  spec.base = {1.0 / 3.0, 5e-324, 0.1, 0.8, 0.99999999999999989, 1.7976931348623157e308};
  spec.schedule = {sweeps::ScheduleKind::cosine, 0.01, 0.3};
  spec.clip = 0.25;
  spec.precision = sweeps::Precision::bfloat16;
  spec.balancing = sweeps::Balancing::none;
  spec.seed = std::numeric_limits<std::uint64_t>::max();
  spec.data = {sweeps::DataSource::tokens, "/tmp/a b.bin", "/tmp/v.bin", 0.07, 1ULL << 63, "abcdef"};
  spec.eval = {4096, 0.25};
  spec.branches = {0.1, 1.0 / 3, 1};
  return spec;
}

std::span<const std::uint8_t> payload(const std::vector<std::uint8_t>& frame) {
  const auto length = payload_length(std::span<const std::uint8_t, 4>(frame.data(), 4));
  REQUIRE(length == frame.size() - 4);
  return std::span(frame).subspan(4);
}

template <class T>
T through(const T& message) {
  if constexpr (std::is_constructible_v<WorkerMessage, T>) {
    return std::get<T>(decode_worker_message(payload(encode(WorkerMessage(message)))));
  } else {
    return std::get<T>(decode_orchestrator_message(payload(encode(OrchestratorMessage(message)))));
  }
}

/// A started message with one thing changed.
std::vector<std::uint8_t> started_with(const std::string& field, const json& value) {
  json message = {{"type", "started"}, {"trial", "ab"}, {"attempt", 1}, {"first_step", 0}};
  if (value.is_discarded()) {
    message.erase(field);
  } else {
    message[field] = value;
  }
  return json::to_cbor(message);
}

}  // namespace

TEST_CASE("a spec survives JSON text exactly", "[worker][protocol]") {
  const auto spec = unusual_spec();
  CHECK(spec_from_json(json::parse(to_json(spec).dump())) == spec);
  CHECK(spec_from_json(json::parse(to_json(sweeps::TrialSpec{}).dump())) == sweeps::TrialSpec{});
  auto diffusion = spec;
  diffusion.run.shape.family = models::ModelFamily::diffusion_model;
  diffusion.run.shape.image_size = 28;
  diffusion.run.shape.channels = 3;
  diffusion.run.shape.patch = 4;
  CHECK(spec_from_json(json::parse(to_json(diffusion).dump())) == diffusion);
}

TEST_CASE("a spec without branches reads and is written as before there were any", "[worker][protocol]") {
  CHECK_FALSE(to_json(sweeps::TrialSpec{}).contains("branches"));
  auto written = to_json(sweeps::TrialSpec{});
  written["branches"] = "0.5";
  CHECK_THROWS_WITH(spec_from_json(written), ContainsSubstring("spec.branches is not an array"));
}

TEST_CASE("the loss of a branch survives", "[worker][protocol]") {
  const auto read = through(Branch{"ab", 2, 1.0 / 3, 333, 0.1 + 0.2});
  CHECK(read.trial == "ab");
  CHECK(read.attempt == 2);
  CHECK(read.fraction == 1.0 / 3);
  CHECK(read.steps == 333);
  CHECK(read.loss == 0.1 + 0.2);
}

TEST_CASE("every enumerator of a spec survives", "[worker][protocol]") {
  const auto check = [](const sweeps::TrialSpec& spec) { CHECK(spec_from_json(to_json(spec)) == spec); };
  sweeps::TrialSpec spec;
  for (int i = 0; i <= 4; ++i) spec.role = static_cast<sweeps::TrialRole>(i), check(spec);
  for (int i = 0; i <= 2; ++i) spec.schedule.kind = static_cast<sweeps::ScheduleKind>(i), check(spec);
  for (int i = 0; i <= 4; ++i) spec.data.source = static_cast<sweeps::DataSource>(i), check(spec);
  for (int i = 0; i <= 1; ++i) spec.run.shape.family = static_cast<models::ModelFamily>(i), check(spec);
  for (int i = 0; i <= 1; ++i) spec.precision = static_cast<sweeps::Precision>(i), check(spec);
  for (int i = 0; i <= 1; ++i) spec.balancing = static_cast<sweeps::Balancing>(i), check(spec);
  for (const auto rule : models::all_rules()) spec.rule.rule = rule, check(spec);
  spec.rule = {.rule = models::Parameterization::mssp, .mssp_regime = 3}, check(spec);
  for (int i = 0; i <= 2; ++i) spec.rule.wd_width = static_cast<models::WdWidth>(i), check(spec);
  for (int i = 0; i <= 2; ++i) spec.rule.head = static_cast<models::HeadRule>(i), check(spec);
}

TEST_CASE("a misspelt, missing or foreign field of a spec is refused by name", "[worker][protocol]") {
  json misspelt = to_json(sweeps::TrialSpec{});
  misspelt["schedule"]["wramup"] = 0.1;
  CHECK_THROWS_WITH(spec_from_json(misspelt), ContainsSubstring("spec.schedule"));
  json missing = to_json(sweeps::TrialSpec{});
  missing["base"].erase("lr");
  CHECK_THROWS_WITH(spec_from_json(missing), ContainsSubstring("spec.base has no field 'lr'"));
  json wrong = to_json(sweeps::TrialSpec{});
  wrong["run"]["steps"] = 1.5;
  CHECK_THROWS_WITH(spec_from_json(wrong), ContainsSubstring("spec.run.steps is not a whole number"));
  json unknown = to_json(sweeps::TrialSpec{});
  unknown["schedule"]["kind"] = "wds";
  CHECK_THROWS_WITH(spec_from_json(unknown), ContainsSubstring("spec.schedule.kind is not a known name"));
  CHECK_THROWS_AS(spec_from_json(json::array()), ProtocolError);
}

TEST_CASE("worker messages survive a frame", "[worker][protocol]") {
  const auto hello = through(Hello{kProtocolVersion, "0.1.0", "cuda:1", "H200", 1LL << 40, 2, 64});
  CHECK(hello.build == "0.1.0");
  CHECK(hello.device == "cuda:1");
  CHECK(hello.device_name == "H200");
  CHECK(hello.memory_bytes == 1LL << 40);
  CHECK(hello.threads == 2);
  CHECK(hello.slots == 64);

  const auto inspected = through(Inspected{"fp", 5, 6, "text"});
  CHECK(inspected.fingerprint == "fp");
  CHECK(inspected.train_tokens == 5);
  CHECK(inspected.holdout_tokens == 6);
  CHECK(inspected.description == "text");

  const auto probed = through(Probed{{{"head", "effective", {0.1, kNan, 1.0 / 3.0}}, {"loss", "loss", {}}}});
  REQUIRE(probed.series.size() == 2);
  CHECK(probed.series[0].layer == "head");
  CHECK(probed.series[0].quantity == "effective");
  CHECK(std::isnan(probed.series[0].values.at(1)));
  CHECK(probed.series[0].values.at(2) == 1.0 / 3.0);
  CHECK(probed.series[1].values.empty());

  const auto measured = through(Measured{0.5, 1.25});
  CHECK(measured.seconds_per_step == 0.5);
  CHECK(measured.seconds_per_eval == 1.25);
  const auto refused = through(Refused{sweeps::FailureClass::oom_host, "no"});
  CHECK(refused.failure == sweeps::FailureClass::oom_host);
  CHECK(refused.message == "no");
  const auto started = through(Started{"k", 3, 17});
  CHECK(started.trial == "k");
  CHECK(started.attempt == 3);
  CHECK(started.first_step == 17);
  const auto progress = through(Progress{"k", 3, 18, 2.5});
  CHECK(progress.step == 18);
  CHECK(progress.seconds == 2.5);
  const auto checkpointed = through(Checkpointed{"k", 3, 19, "/tmp/c", "sum"});
  CHECK(checkpointed.step == 19);
  CHECK(checkpointed.file == "/tmp/c");
  CHECK(checkpointed.checksum == "sum");
  const sweeps::SampleSheet sheet{2, 1, 3, {1, 2, 3, 4, 5, 255}, {}};
  CHECK(through(Sampled{"k", 3, sheet}).sheet == sheet);
}

TEST_CASE("NaN and infinity survive in curves and outcomes", "[worker][protocol]") {
  const auto curve = through(Curve{"k", 1, "train_loss", {1, 2, 3, -4}, {kNan, kInf, -kInf, 0.1}});
  CHECK(curve.metric == "train_loss");
  CHECK(curve.steps == std::vector<std::int64_t>{1, 2, 3, -4});
  REQUIRE(curve.values.size() == 4);
  CHECK(std::isnan(curve.values[0]));
  CHECK(curve.values[1] == kInf);
  CHECK(curve.values[2] == -kInf);
  CHECK(curve.values[3] == 0.1);
  const auto ended = through(Ended{"k", 1, sweeps::Finished{kNan, kInf, 5, -kInf}});
  const auto& finished = std::get<sweeps::Finished>(ended.outcome);
  CHECK(std::isnan(finished.loss));
  CHECK(finished.floor == kInf);
  CHECK(finished.seconds == -kInf);
  CHECK(through(Curve{"k", 1, "empty", {}, {}}).values.empty());
}

TEST_CASE("the three outcomes survive", "[worker][protocol]") {
  const auto finished = std::get<sweeps::Finished>(
      through(Ended{"k", 2, sweeps::Finished{1.5, std::nullopt, 600, 9.5}}).outcome);
  CHECK(finished.loss == 1.5);
  CHECK(!finished.floor);
  CHECK(finished.steps == 600);
  const auto diverged = std::get<sweeps::Diverged>(through(Ended{"k", 2, sweeps::Diverged{41, 3.5}}).outcome);
  CHECK(diverged.step == 41);
  CHECK(diverged.seconds == 3.5);
  for (int i = 0; i <= 6; ++i) {
    const auto failure = static_cast<sweeps::FailureClass>(i);
    const auto failed =
        std::get<sweeps::Failed>(through(Ended{"k", 2, sweeps::Failed{failure, "why"}}).outcome);
    CHECK(failed.failure == failure);
    CHECK(failed.message == "why");
  }
}

TEST_CASE("orchestrator messages survive a frame", "[worker][protocol]") {
  const auto assign = through(Assign{{{"k1", 2, unusual_spec(), "/tmp/ck", 30.5}, {"k2", 1, {}, "", 0}}});
  REQUIRE(assign.trials.size() == 2);
  CHECK(assign.trials[0].trial == "k1");
  CHECK(assign.trials[0].attempt == 2);
  CHECK(assign.trials[0].spec == unusual_spec());
  CHECK(assign.trials[0].checkpoint == "/tmp/ck");
  CHECK(assign.trials[0].checkpoint_seconds == 30.5);
  CHECK(assign.trials[1].spec == sweeps::TrialSpec{});
  CHECK(through(Cancel{"k"}).trial == "k");
  through(Drain{});
  const auto inspect = through(Inspect{unusual_spec().data, 128, 256, 4096});
  CHECK(inspect.data == unusual_spec().data);
  CHECK(inspect.context == 128);
  CHECK(inspect.vocab == 256);
  CHECK(inspect.eval_tokens == 4096);
  const auto probe = through(Probe{unusual_spec(), 7, false});
  CHECK(probe.spec == unusual_spec());
  CHECK(probe.steps == 7);
  CHECK_FALSE(probe.layers);

  const auto measure = through(Measure{unusual_spec(), 5});
  CHECK(measure.spec == unusual_spec());
  CHECK(measure.steps == 5);
}

TEST_CASE("messages that do not follow the protocol are refused", "[worker][protocol]") {
  CHECK_NOTHROW(decode_worker_message(started_with("attempt", 1)));
  const auto bad = [](const std::string& field, const json& value) {
    INFO(field << " = " << value);
    CHECK_THROWS_AS(decode_worker_message(started_with(field, value)), ProtocolError);
  };
  bad("type", "strated");
  bad("type", 5);
  bad("type", json(json::value_t::discarded));
  bad("trial", json(json::value_t::discarded));
  bad("trial", 1);
  bad("attempt", "1");
  bad("attempt", 1.0);
  bad("attempt", std::numeric_limits<std::uint64_t>::max());
  bad("attempt", nullptr);
  bad("extra", 1);
  CHECK_THROWS_AS(decode_worker_message(json::to_cbor(json(5))), ProtocolError);
  CHECK_THROWS_AS(decode_orchestrator_message(started_with("attempt", 1)), ProtocolError);
  CHECK_THROWS_AS(decode_orchestrator_message(json::to_cbor({{"type", "assign"}, {"trials", json::array()}})),
                  ProtocolError);
}

TEST_CASE("a curve whose steps and values differ in length is refused", "[worker][protocol]") {
  CHECK_THROWS_AS(decode_worker_message(payload(encode(WorkerMessage(Curve{"k", 1, "m", {1, 2}, {1.0}})))),
                  ProtocolError);
  const json odd = {{"type", "curve"},
                    {"trial", "k"},
                    {"attempt", 1},
                    {"metric", "m"},
                    {"steps", json::binary({1, 2, 3})},
                    {"values", json::binary({})}};
  CHECK_THROWS_AS(decode_worker_message(json::to_cbor(odd)), ProtocolError);
}

TEST_CASE("a sheet that holds no whole pictures is refused", "[worker][protocol]") {
  const auto refused = [](const sweeps::SampleSheet& sheet) {
    CHECK_THROWS_AS(decode_worker_message(payload(encode(WorkerMessage(Sampled{"k", 1, sheet})))),
                    ProtocolError);
  };
  refused({2, 2, 1, {1, 2, 3, 4, 5}, {}});
  refused({2, 2, 1, {1, 2, 3, 4}, {1}});
  refused({2, 2, 1, {}, {}});
  refused({0, 2, 1, {1, 2}, {}});
  refused({1LL << 40, 1LL << 40, 1, {1, 2}, {}});
}

TEST_CASE("a worker of another version can still say which", "[worker][protocol]") {
  const json hello = {{"type", "hello"}, {"protocol", kProtocolVersion + 1}, {"build", "9.0"}, {"new", true}};
  const auto read = std::get<Hello>(decode_worker_message(json::to_cbor(hello)));
  CHECK(read.protocol == kProtocolVersion + 1);
  CHECK(read.build == "9.0");
}

TEST_CASE("a length above the limit is refused", "[worker][protocol]") {
  const std::uint8_t small[4] = {1, 2, 0, 0};
  CHECK(payload_length(small) == 513);
  const std::uint8_t limit[4] = {0, 0, 0, 4};
  CHECK(payload_length(limit) == kMaxFrameBytes);
  const std::uint8_t above[4] = {1, 0, 0, 4};
  CHECK_THROWS_AS(payload_length(above), ProtocolError);
  const std::uint8_t huge[4] = {255, 255, 255, 255};
  CHECK_THROWS_AS(payload_length(huge), ProtocolError);
}

TEST_CASE("every cut of a frame is refused, no cut crashes", "[worker][protocol]") {
  const auto frame = encode(OrchestratorMessage(Assign{{{"k1", 2, unusual_spec(), "/tmp/ck", 30.5}}}));
  const auto whole = payload(frame);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    REQUIRE_THROWS_AS(decode_orchestrator_message(whole.first(length)), ProtocolError);
  }
  std::vector<std::uint8_t> longer(whole.begin(), whole.end());
  longer.push_back(0);
  CHECK_THROWS_AS(decode_orchestrator_message(longer), ProtocolError);
}

TEST_CASE("garbage bytes give an error or a message, never a crash", "[worker][protocol]") {
  const auto frame = encode(WorkerMessage(Ended{"k", 2, sweeps::Finished{1.5, 1.0, 600, 9.5}}));
  std::mt19937_64 random(20240607);
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::uint8_t> bytes(frame.begin() + 4, frame.end());
    if (i % 2 == 0) {
      bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
    } else {
      bytes.resize(1 + random() % 64);
      for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
    }
    try {
      decode_worker_message(bytes);
    } catch (const ProtocolError&) {
      ++refused;
    }
  }
  CHECK(refused > 15000);
}

TEST_CASE("a frame that nests a million deep is refused without recursion", "[worker][protocol]") {
  const std::vector<std::uint8_t> arrays(1 << 20, 0x81);
  CHECK_THROWS_WITH(decode_worker_message(arrays), ContainsSubstring("nested too deeply"));
  const std::vector<std::uint8_t> tags(1 << 20, 0xC1);
  CHECK_THROWS_AS(decode_worker_message(tags), ProtocolError);
}

TEST_CASE("strings within strings of indefinite length are refused without recursion", "[worker][protocol]") {
  for (const std::uint8_t head : {0x5F, 0x7F}) {
    const std::vector<std::uint8_t> strings(8 << 20, head);
    CHECK_THROWS_WITH(decode_worker_message(strings), ContainsSubstring("indefinite length"));
    auto within = started_with("attempt", 1);  // as the value of a message's last field
    within.pop_back();
    within.insert(within.end(), strings.begin(), strings.end());
    CHECK_THROWS_WITH(decode_worker_message(within), ContainsSubstring("indefinite length"));
  }
}

TEST_CASE("a curve may hold any bytes", "[worker][protocol]") {
  for (const int byte : {0x5F, 0x7F, 0x9F, 0xBF, 0xFF}) {
    std::int64_t step = 0;
    std::memset(&step, byte, sizeof step);
    const auto value = std::bit_cast<double>(step);
    const Curve sent{"k", 1, std::string(300, static_cast<char>(byte & 0x7F)),
                     std::vector<std::int64_t>(1000, step), std::vector<double>(1000, value)};
    const auto curve = through(sent);
    CHECK(curve.metric == sent.metric);
    CHECK(curve.steps == sent.steps);
    REQUIRE(curve.values.size() == 1000);
    CHECK(std::bit_cast<std::int64_t>(curve.values[999]) == step);
  }
}

TEST_CASE("a JSON line shows a curve as plain numbers", "[worker][protocol]") {
  const json line = to_json(WorkerMessage(Curve{"k", 1, "train_loss", {1, 2}, {0.5, 0.25}}));
  CHECK(
      line.dump() ==
      R"({"attempt":1,"metric":"train_loss","steps":[1,2],"trial":"k","type":"curve","values":[0.5,0.25]})");
}
