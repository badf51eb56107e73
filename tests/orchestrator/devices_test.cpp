#include "orchestrator/devices.h"

#include "orchestrator/exit_code.h"
#include "tests/support/catch.h"

using namespace orchestrator;

namespace {

std::vector<std::string> slots(const std::vector<std::string>& devices, std::optional<int> workers,
                               std::size_t gpus, int cores, int per_device = 1) {
  std::vector<std::string> names;
  for (const auto& slot : device_slots({.devices = devices, .workers_per_device = per_device}, workers,
                                       std::vector<Gpu>(gpus), cores))
    names.push_back(slot.device);
  return names;
}
using Names = std::vector<std::string>;

int code(const std::vector<std::string>& devices, std::size_t gpus) {
  try {
    slots(devices, std::nullopt, gpus, 2);
  } catch (const ExitError& error) {
    return error.code;
  }
  return 0;
}

}  // namespace

TEST_CASE("without GPUs there is one worker a core", "[orchestrator][devices]") {
  CHECK(slots({"auto"}, std::nullopt, 0, 3) == Names{"cpu", "cpu", "cpu"});
}

TEST_CASE("with GPUs there is one worker a GPU and none on the cores", "[orchestrator][devices]") {
  CHECK(slots({"auto"}, std::nullopt, 2, 8) == Names{"cuda:0", "cuda:1"});
  CHECK(slots({"auto"}, std::nullopt, 2, 8, 2) == Names{"cuda:0", "cuda:1", "cuda:0", "cuda:1"});
}

TEST_CASE("only the named GPUs are used", "[orchestrator][devices]") {
  CHECK(slots({"cuda:0", "cuda:2"}, std::nullopt, 4, 8) == Names{"cuda:0", "cuda:2"});
}

TEST_CASE("a number of workers goes round the devices", "[orchestrator][devices]") {
  CHECK(slots({"auto"}, 3, 2, 8) == Names{"cuda:0", "cuda:1", "cuda:0"});
  CHECK(slots({"cpu"}, 5, 0, 2) == Names(5, "cpu"));
  CHECK(slots({"auto"}, 1, 0, 8) == Names{"cpu"});
}

TEST_CASE("a GPU that is not there is the machine's fault, a name that is none the user's",
          "[orchestrator][devices]") {
  CHECK(code({"cuda:0"}, 0) == kEnvironment);
  CHECK(code({"cuda:2"}, 2) == kEnvironment);
  CHECK(code({"cuda:"}, 2) == kUsage);
  CHECK(code({"gpu"}, 2) == kUsage);
  CHECK(code({"cuda:1x"}, 2) == kUsage);
}

TEST_CASE("some core may be used", "[orchestrator][devices]") { CHECK(usable_cores() >= 1); }

namespace {

/// How many slots each GPU gets, of eight with 24 GiB.
std::vector<int> packed(const sweeps::ResourceSpec& resources, std::size_t gpus = 8) {
  std::vector<Gpu> all(gpus);
  for (std::size_t i = 0; i < gpus; ++i) all[i] = {"Fake", "GPU-" + std::to_string(i), std::int64_t{24} << 30};
  std::vector<int> counts(gpus);
  for (const auto& slot : device_slots(resources, std::nullopt, all, 2)) {
    const auto index = static_cast<std::size_t>(std::stoul(slot.device.substr(5)));
    CHECK(slot.uuid == all[index].uuid);
    CHECK(slot.place == counts[index]);
    ++counts[index];
  }
  return counts;
}

}  // namespace

TEST_CASE("a share of a GPU is packed GPU by GPU: 0.15 on eight makes 48, not 53", "[orchestrator][devices]") {
  CHECK(packed({.devices = {"auto"}, .device_share = 0.15}) == std::vector<int>(8, 6));
  CHECK(packed({.devices = {"auto"}, .device_share = 1.0 / 3}) == std::vector<int>(8, 3));
  CHECK(packed({.devices = {"auto"}, .device_share = 1}) == std::vector<int>(8, 1));
}

TEST_CASE("a GPU of 24 GiB takes four workers of 6 GiB, and fewer where fewer are asked for",
          "[orchestrator][devices]") {
  const auto memory = std::int64_t{6} << 30;
  CHECK(packed({.devices = {"auto"}, .workers_per_device = 0, .memory = memory}, 2) == std::vector{4, 4});
  CHECK(packed({.devices = {"auto"}, .workers_per_device = 3, .memory = memory}, 2) == std::vector{3, 3});
  CHECK(packed({.devices = {"auto"}, .workers_per_device = 9, .memory = memory}, 2) == std::vector{4, 4});
}

TEST_CASE("a GPU that is too small for one worker is refused with its size", "[orchestrator][devices]") {
  const std::vector<Gpu> small = {{"Fake", "GPU-0", std::int64_t{4} << 30}};
  CHECK_THROWS_WITH(device_slots({.devices = {"auto"}, .workers_per_device = 0, .memory = std::int64_t{6} << 30},
                                 std::nullopt, small, 2),
                    ContainsSubstring("6GiB") && ContainsSubstring("4GiB"));
}

TEST_CASE("without a known need the further workers of a GPU wait for what the first one takes",
          "[orchestrator][devices]") {
  const std::vector<Gpu> gpus = {{"Fake", "GPU-0", std::int64_t{24} << 30}};
  const auto slots = device_slots({.devices = {"auto"}, .workers_per_device = 0}, std::nullopt, gpus, 2);
  REQUIRE(slots.size() == kMostMeasured);
  CHECK(!slots[0].measured);
  CHECK(slots[1].measured);
  CHECK(!device_slots({.devices = {"auto"}, .workers_per_device = 0}, 2, gpus, 2)[1].measured);
}

TEST_CASE("a GPU that does not answer is left out, and refused where it is asked for by name",
          "[orchestrator][devices]") {
  std::vector<Gpu> gpus(3);
  gpus[1].answers = false;
  const auto slots = device_slots({.devices = {"auto"}}, std::nullopt, gpus, 2);
  REQUIRE(slots.size() == 2);
  CHECK(slots[1].device == "cuda:2");
  CHECK_THROWS_AS(device_slots({.devices = {"cuda:1"}}, std::nullopt, gpus, 2), ExitError);
}

TEST_CASE("memory bounds the number of workers on the cores, too", "[orchestrator][devices]") {
  CHECK(device_slots({.devices = {"cpu"}, .memory = std::int64_t{1} << 50}, std::nullopt, {}, 8).size() == 1);
  CHECK(device_slots({.devices = {"cpu"}, .memory = 1}, std::nullopt, {}, 8).size() == 8);
}

TEST_CASE("a list of GPUs on the command line names each once", "[orchestrator][devices]") {
  CHECK(parse_gpus("0,2") == Names{"cuda:0", "cuda:2"});
  for (const char* wrong : {"", "0,0", "0,x", "cuda:0", "0,,1"}) {
    INFO(wrong);
    CHECK_THROWS_AS(parse_gpus(wrong), ExitError);
  }
}
