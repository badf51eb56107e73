#include "orchestrator/nvml.h"

#include <dlfcn.h>

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <sstream>

namespace orchestrator {
namespace {

// The few declarations needed of NVIDIA's management library; its header is not everywhere its library is.
using NvmlDevice = struct NvmlDeviceOpaque*;
struct NvmlMemory {
  unsigned long long total, free, used;
};
constexpr int kNvmlSuccess = 0;

struct CloseLibrary {
  void operator()(void* library) const { ::dlclose(library); }
};

template <class Function>
Function* find(void* library, const char* name) {
  return reinterpret_cast<Function*>(::dlsym(library, name));
}

std::vector<Gpu> all_gpus() {
  const std::unique_ptr<void, CloseLibrary> library(::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL));
  if (!library) return {};
  auto* init = find<int()>(library.get(), "nvmlInit_v2");
  auto* shutdown = find<int()>(library.get(), "nvmlShutdown");
  auto* count = find<int(unsigned*)>(library.get(), "nvmlDeviceGetCount_v2");
  auto* handle = find<int(unsigned, NvmlDevice*)>(library.get(), "nvmlDeviceGetHandleByIndex_v2");
  auto* name = find<int(NvmlDevice, char*, unsigned)>(library.get(), "nvmlDeviceGetName");
  auto* uuid = find<int(NvmlDevice, char*, unsigned)>(library.get(), "nvmlDeviceGetUUID");
  auto* memory = find<int(NvmlDevice, NvmlMemory*)>(library.get(), "nvmlDeviceGetMemoryInfo");
  if (!init || !shutdown || !count || !handle || !name || !uuid || !memory || init() != kNvmlSuccess)
    return {};
  std::vector<Gpu> gpus;
  unsigned size = 0;
  if (count(&size) != kNvmlSuccess) size = 0;
  for (unsigned i = 0; i < size; ++i) {
    NvmlDevice device = nullptr;
    char text[96] = {};
    NvmlMemory bytes{};
    if (handle(i, &device) != kNvmlSuccess) continue;
    Gpu& gpu = gpus.emplace_back();
    if (name(device, text, sizeof text) == kNvmlSuccess) gpu.name = text;
    if (uuid(device, text, sizeof text) == kNvmlSuccess) gpu.uuid = text;
    if (memory(device, &bytes) == kNvmlSuccess) gpu.memory_bytes = static_cast<std::int64_t>(bytes.total);
  }
  shutdown();
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

}  // namespace orchestrator
