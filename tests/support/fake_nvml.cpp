// A libnvidia-ml.so.1 of four GPUs that are not there, for machines without any. It answers what
// orchestrator/nvml.cpp asks. $TUNEONCE_FAKE_NVML names a file that is read at every call, so that a test can
// change it while a run is on; one line a GPU:
//   UUID NAME TOTAL_MIB USED_MIB [ok|lost|error=CODE]
// The line "no driver" makes nvmlInit fail. Without the variable: GPU-fake-0 to GPU-fake-3 of 24 GiB, 1 GiB
// used.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace {

enum : int { kSuccess = 0, kInvalidArgument = 2, kNotFound = 6, kDriverNotLoaded = 9, kGpuIsLost = 15 };

struct Gpu {
  std::string uuid, name;
  unsigned long long total_mib = 0, used_mib = 0;
  int problem = kSuccess;  // what every question about it is answered with
};

struct Machine {
  bool has_driver = true;
  std::vector<Gpu> gpus;
};

Machine machine() {
  Machine result;
  const char* file = std::getenv("TUNEONCE_FAKE_NVML");
  if (!file) {
    for (const char* number : {"0", "1", "2", "3"})
      result.gpus.push_back({std::string("GPU-fake-") + number, "Fake-24G", 24 * 1024, 1024, kSuccess});
    return result;
  }
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (line == "no driver") result.has_driver = false;
    Gpu gpu;
    std::string state = "ok";
    std::istringstream words(line);
    if (!(words >> gpu.uuid >> gpu.name >> gpu.total_mib >> gpu.used_mib)) continue;
    words >> state;
    if (state == "lost") gpu.problem = kGpuIsLost;
    if (state.starts_with("error=")) gpu.problem = std::stoi(state.substr(6));
    result.gpus.push_back(gpu);
  }
  return result;
}

/// A handle is the GPU's number + 1.
using Device = std::uintptr_t;

int answer(Device device, Gpu& gpu) {
  const auto all = machine().gpus;
  if (device == 0 || device > all.size()) return kInvalidArgument;
  gpu = all[device - 1];
  return gpu.problem;
}

int copy_text(const std::string& text, char* to, unsigned size) {
  if (text.size() + 1 > size) return kInvalidArgument;
  std::memcpy(to, text.c_str(), text.size() + 1);
  return kSuccess;
}

}  // namespace

extern "C" {

struct Memory {
  unsigned long long total, free, used;
};
struct Memory2 {
  unsigned version;
  unsigned long long total, reserved, free, used;
};

int nvmlInit_v2() { return machine().has_driver ? kSuccess : kDriverNotLoaded; }
int nvmlShutdown() { return kSuccess; }

int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(machine().gpus.size());
  return kSuccess;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device* device) {
  if (index >= machine().gpus.size()) return kInvalidArgument;
  *device = index + 1;
  return kSuccess;
}
int nvmlDeviceGetHandleByUUID(const char* uuid, Device* device) {
  const auto all = machine().gpus;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i].uuid == uuid) {
      *device = i + 1;
      return kSuccess;
    }
  return kNotFound;
}
int nvmlDeviceGetName(Device device, char* name, unsigned size) {
  Gpu gpu;
  const int problem = answer(device, gpu);
  return problem ? problem : copy_text(gpu.name, name, size);
}
int nvmlDeviceGetUUID(Device device, char* uuid, unsigned size) {
  Gpu gpu;
  const int problem = answer(device, gpu);
  return problem ? problem : copy_text(gpu.uuid, uuid, size);
}
int nvmlDeviceGetMemoryInfo(Device device, Memory* memory) {
  Gpu gpu;
  const int problem = answer(device, gpu);
  if (problem) return problem;
  *memory = {gpu.total_mib << 20, (gpu.total_mib - gpu.used_mib) << 20, gpu.used_mib << 20};
  return kSuccess;
}
int nvmlDeviceGetMemoryInfo_v2(Device device, Memory2* memory) {
  Gpu gpu;
  const int problem = answer(device, gpu);
  if (problem) return problem;
  *memory = {memory->version, gpu.total_mib << 20, 0, (gpu.total_mib - gpu.used_mib) << 20,
             gpu.used_mib << 20};
  return kSuccess;
}
const char* nvmlErrorString(int result) {
  switch (result) {
    case kSuccess: return "Success";
    case kGpuIsLost: return "GPU is lost";
    case kDriverNotLoaded: return "Driver Not Loaded";
    default: return "Unknown Error";
  }
}

}  // extern "C"
