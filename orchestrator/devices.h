#pragma once

#include <optional>
#include <string>
#include <vector>

#include "orchestrator/nvml.h"
#include "sweeps/study.h"

namespace orchestrator {

/// Room for one worker: "cpu" or "cuda:0".
struct DeviceSlot {
  std::string device;
};

/// Cores this process may use: its affinity mask, and the cgroup's quota where there is one.
int usable_cores();

/// One slot a GPU (`auto`, where there are any; or as named), else one a core; times `workers_per_device`.
/// `num_workers` sets the number of slots instead, spread over the devices. Throws ExitError: kEnvironment
/// for a GPU that is not there, kUsage for a name that is no device.
std::vector<DeviceSlot> device_slots(const sweeps::ResourceSpec& resources, std::optional<int> num_workers,
                                     const std::vector<Gpu>& gpus, int num_cores);

}  // namespace orchestrator
