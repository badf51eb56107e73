#include "orchestrator/devices.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

#include "orchestrator/exit_code.h"
#include "orchestrator/process_tree.h"
#include "sweeps/settings.h"

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
  if (!gpus[index].answers)
    throw ExitError(kEnvironment, fmt::format("resources.devices: {} does not answer; see nvidia-smi", device));
}

/// How many workers a device takes.
struct Room {
  int slots = 1;
  std::string uuid = {};
  bool measured = false;
};
Room room(const std::string& device, const sweeps::ResourceSpec& resources, const std::vector<Gpu>& gpus, int num_cores) {
  const int by_share =
      resources.device_share > 0 ? static_cast<int>(std::floor(1 / resources.device_share + 1e-9)) : 0;
  const int asked = by_share > 0 ? by_share : resources.workers_per_device;  // 0: as many as fit
  if (device == "cpu") {
    Room host{.slots = std::max(num_cores, 1) * std::max(asked, 1)};
    if (resources.memory > 0) {
      const auto left = host_memory_left() - resources.host_reserve;
      host.slots = static_cast<int>(std::clamp<std::int64_t>(left / resources.memory, 1, host.slots));
    }
    return host;
  }
  const Gpu& gpu = gpus[static_cast<std::size_t>(std::stoul(device.substr(5)))];
  Room on_gpu{.slots = asked, .uuid = gpu.uuid};
  if (resources.memory > 0 && gpu.memory_bytes > 0) {
    const auto fit = gpu.memory_bytes / resources.memory;
    if (fit == 0)
      throw ExitError(kEnvironment,
                      fmt::format("resources.memory = \"{}\": {} has {} only", sweeps::bytes_text(resources.memory),
                                  device, sweeps::bytes_text(gpu.memory_bytes)));
    on_gpu.slots = static_cast<int>(asked == 0 ? fit : std::min<std::int64_t>(asked, fit));
  } else if (asked == 0) {
    on_gpu = {kMostMeasured, gpu.uuid, true};
  }
  return on_gpu;
}

}  // namespace

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const int cores = ::sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return std::max(1, std::min(cores, quota_cores()));
}

std::vector<std::string> parse_gpus(const std::string& list) {
  std::vector<std::string> devices;
  std::istringstream stream(list);
  for (std::string item; std::getline(stream, item, ',');) {
    if (item.empty() || item.find_first_not_of("0123456789") != item.npos)
      throw ExitError(kUsage, fmt::format("--gpus {}: \"{}\" is no number of a GPU; write for example 0,2", list, item));
    devices.push_back("cuda:" + item);
    if (std::count(devices.begin(), devices.end(), devices.back()) > 1)
      throw ExitError(kUsage, fmt::format("--gpus {}: {} is there twice", list, item));
  }
  if (devices.empty()) throw ExitError(kUsage, "--gpus: the list is empty; write for example 0,2");
  return devices;
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
      for (std::size_t i = 0; i < gpus.size(); ++i)
        if (gpus[i].answers) devices.push_back(fmt::format("cuda:{}", i));
      if (devices.empty())
        throw ExitError(kEnvironment, fmt::format("none of the {} GPUs answers; see nvidia-smi", gpus.size()));
    }
  }
  if (devices.empty()) devices.push_back("cpu");
  std::vector<Room> rooms;
  for (const auto& device : devices) rooms.push_back(room(device, resources, gpus, num_cores));
  // Round by round, so that a smaller number of workers still uses every device.
  std::vector<DeviceSlot> slots;
  const auto most = std::max_element(rooms.begin(), rooms.end(), [](auto& a, auto& b) { return a.slots < b.slots; });
  for (int place = 0; place < most->slots; ++place)
    for (std::size_t i = 0; i < devices.size(); ++i)
      if (place < rooms[i].slots) slots.push_back({devices[i], rooms[i].uuid, place, rooms[i].measured && place > 0});
  if (!num_workers) return slots;
  std::vector<DeviceSlot> chosen;
  for (int i = 0; i < *num_workers; ++i) {
    chosen.push_back(slots[static_cast<std::size_t>(i) % slots.size()]);
    chosen.back().measured = false;  // so many are asked for
  }
  return chosen;
}

}  // namespace orchestrator
