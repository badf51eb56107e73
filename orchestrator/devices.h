#pragma once

#include <optional>
#include <string>
#include <vector>

#include "orchestrator/nvml.h"
#include "sweeps/study.h"

namespace orchestrator {

/// Room for one worker.
struct DeviceSlot {
  std::string device;     // "cpu", "cuda:0"
  std::string uuid = {};  // of a GPU
  int place = 0;          // 0, 1, ... among the slots of its device
  bool measured = false;  // of place 1 and up: used when there is room for it beside the others, as the first trial
                          // on the device has shown
};

/// Cores this process may use: its affinity mask, and the cgroup's quota where there is one.
int usable_cores();

/// Slots of each GPU (`auto`, where there are any; or as named), else of each core: `workers_per_device` of them; or
/// floor(1 / device_share); or as many as have `memory` each; or, where that is not known, up to kMostMeasured that
/// are used as measured. On the host `memory` bounds the number, too. `num_workers` sets the number instead,
/// spread over the devices. Throws ExitError: kEnvironment for a GPU that is not there or too small, kUsage for a
/// name that is no device.
std::vector<DeviceSlot> device_slots(const sweeps::ResourceSpec& resources, std::optional<int> num_workers,
                                     const std::vector<Gpu>& gpus, int num_cores);
inline constexpr int kMostMeasured = 16;

/// "0,2" -> "cuda:0", "cuda:2". Throws ExitError{kUsage}.
std::vector<std::string> parse_gpus(const std::string& list);

}  // namespace orchestrator
