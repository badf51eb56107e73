#include "orchestrator/nvml.h"

#include <dlfcn.h>

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <sstream>

namespace orchestrator {
namespace {

// The few declarations needed of NVIDIA's management library; its header is not everywhere its library is.
using NvmlDevice = struct NvmlDeviceOpaque*;
struct NvmlMemory {
  unsigned long long total, free, used;
};
constexpr int kNvmlSuccess = 0;

template <class Function>
Function* find(void* library, const char* name) {
  return reinterpret_cast<Function*>(::dlsym(library, name));
}

/// The library, opened and initialised once; all null without a driver.
struct Nvml {
  int (*count)(unsigned*) = nullptr;
  int (*by_index)(unsigned, NvmlDevice*) = nullptr;
  int (*by_uuid)(const char*, NvmlDevice*) = nullptr;
  int (*name)(NvmlDevice, char*, unsigned) = nullptr;
  int (*uuid)(NvmlDevice, char*, unsigned) = nullptr;
  int (*memory)(NvmlDevice, NvmlMemory*) = nullptr;
  bool works = false;

  Nvml() {
    void* library = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return;
    auto* init = find<int()>(library, "nvmlInit_v2");
    count = find<int(unsigned*)>(library, "nvmlDeviceGetCount_v2");
    by_index = find<int(unsigned, NvmlDevice*)>(library, "nvmlDeviceGetHandleByIndex_v2");
    by_uuid = find<int(const char*, NvmlDevice*)>(library, "nvmlDeviceGetHandleByUUID");
    name = find<int(NvmlDevice, char*, unsigned)>(library, "nvmlDeviceGetName");
    uuid = find<int(NvmlDevice, char*, unsigned)>(library, "nvmlDeviceGetUUID");
    memory = find<int(NvmlDevice, NvmlMemory*)>(library, "nvmlDeviceGetMemoryInfo");
    works = init && count && by_index && by_uuid && name && uuid && memory && init() == kNvmlSuccess;
  }
};

const Nvml& nvml() {
  static const Nvml library;
  return library;
}

std::vector<Gpu> all_gpus() {
  std::vector<Gpu> gpus;
  unsigned size = 0;
  if (!nvml().works || nvml().count(&size) != kNvmlSuccess) return gpus;
  for (unsigned i = 0; i < size; ++i) {
    NvmlDevice device = nullptr;
    char text[96] = {};
    NvmlMemory bytes{};
    if (nvml().by_index(i, &device) != kNvmlSuccess) continue;
    Gpu& gpu = gpus.emplace_back();
    if (nvml().name(device, text, sizeof text) == kNvmlSuccess) gpu.name = text;
    gpu.answers = nvml().uuid(device, text, sizeof text) == kNvmlSuccess;
    if (gpu.answers) gpu.uuid = text;
    if (nvml().memory(device, &bytes) == kNvmlSuccess) gpu.memory_bytes = static_cast<std::int64_t>(bytes.total);
  }
  return gpus;
}

}  // namespace

std::vector<Gpu> visible_gpus() {
  const auto all = all_gpus();
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (!visible) return all;
  // As CUDA reads it: indices or UUIDs up to the first that names no device.
  std::vector<Gpu> gpus;
  std::istringstream list(visible);
  for (std::string item; std::getline(list, item, ',');) {
    std::size_t index = all.size();
    std::from_chars(item.data(), item.data() + item.size(), index);
    for (std::size_t i = 0; i < all.size(); ++i)
      if (!item.empty() && all[i].uuid.starts_with(item)) index = i;
    if (index >= all.size()) break;
    gpus.push_back(all[index]);
  }
  return gpus;
}

std::optional<GpuMemory> gpu_memory(const std::string& uuid) {
  NvmlDevice device = nullptr;
  NvmlMemory bytes{};
  if (!nvml().works || nvml().by_uuid(uuid.c_str(), &device) != kNvmlSuccess ||
      nvml().memory(device, &bytes) != kNvmlSuccess)
    return std::nullopt;
  return GpuMemory{static_cast<std::int64_t>(bytes.total), static_cast<std::int64_t>(bytes.free)};
}

}  // namespace orchestrator
