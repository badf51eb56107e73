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
