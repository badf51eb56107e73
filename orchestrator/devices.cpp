#include "orchestrator/devices.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>

#include <fmt/format.h>

#include "orchestrator/exit_code.h"

namespace orchestrator {
namespace {

/// Cores that the cgroup's quota is worth, rounded up; as many as there are without one.
int quota_cores() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota = 0, period = 0;
  if (file >> quota >> period && period > 0) return std::max(1, static_cast<int>(std::ceil(quota / period)));
  return CPU_SETSIZE;
}

void check(const std::string& device, const std::vector<Gpu>& gpus) {
  if (device == "cpu") return;
  constexpr std::string_view kPrefix = "cuda:";
  std::size_t index = 0;
  const char* const end = device.data() + device.size();
  if (!device.starts_with(kPrefix) ||
      std::from_chars(device.data() + kPrefix.size(), end, index).ptr != end ||
      device.size() == kPrefix.size())
    throw ExitError(
        kUsage,
        fmt::format("resources.devices: \"{}\" is no device; known: \"auto\", \"cpu\", \"cuda:0\", ...",
                    device));
  if (index >= gpus.size())
    throw ExitError(kEnvironment,
                    fmt::format("resources.devices: {} is asked for, but this machine has {}", device,
                                gpus.empty() ? std::string("no NVIDIA GPU (or no driver)")
                                             : fmt::format("{} GPU(s)", gpus.size())));
}

}  // namespace

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int cores = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return std::max(1, std::min(cores, quota_cores()));
}

std::vector<DeviceSlot> device_slots(const sweeps::ResourceSpec& resources, std::optional<int> num_workers,
                                     const std::vector<Gpu>& gpus, int num_cores) {
  std::vector<std::string> devices;
  for (const auto& device : resources.devices) {
    if (device != "auto") {
      check(device, gpus);
      devices.push_back(device);
    } else if (gpus.empty()) {
      devices.push_back("cpu");
    } else {
      for (std::size_t i = 0; i < gpus.size(); ++i) devices.push_back(fmt::format("cuda:{}", i));
    }
  }
  if (devices.empty()) devices.push_back("cpu");
  // Round by round, so that a smaller number of workers still uses every device.
  std::vector<DeviceSlot> slots;
  const int rounds = std::max(num_cores, 1) * resources.workers_per_device;
  for (int round = 0; round < rounds; ++round)
    for (const auto& device : devices)
      if (device == "cpu" || round < resources.workers_per_device) slots.push_back({device});
  if (num_workers) {
    std::vector<DeviceSlot> chosen;
    for (int i = 0; i < *num_workers; ++i)
      chosen.push_back(slots[static_cast<std::size_t>(i) % slots.size()]);
    return chosen;
  }
  return slots;
}

}  // namespace orchestrator
