#include "worker/device.h"

#include <dlfcn.h>
#include <malloc.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <limits>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>

namespace worker {
namespace {

constexpr int kCudaSlots = 16;

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "CPU";
}

/// The driver's own calls, found at run time: its headers come with no package that we need otherwise.
template <class Function>
Function driver_call(void* library, const char* name) {
  return reinterpret_cast<Function>(::dlsym(library, name));
}

void describe_cuda(int index, Device& device) {
  void* driver = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!driver) return;
  const auto get_device = driver_call<int (*)(int*, int)>(driver, "cuDeviceGet");
  const auto get_name = driver_call<int (*)(char*, int, int)>(driver, "cuDeviceGetName");
  const auto get_memory = driver_call<int (*)(std::size_t*, int)>(driver, "cuDeviceTotalMem_v2");
  int handle = 0;
  char name[256] = {};
  std::size_t bytes = 0;
  if (get_device && get_name && get_memory && get_device(&handle, index) == 0) {
    if (get_name(name, sizeof name, handle) == 0) device.description = name;
    if (get_memory(&bytes, handle) == 0) device.memory_bytes = static_cast<std::int64_t>(bytes);
  }
}

Device open_cuda(const std::string& name) {
  char* end = nullptr;
  const std::string digits = name.substr(5);
  const long index = std::strtol(digits.c_str(), &end, 10);
  if (digits.empty() || *end != '\0' || index < 0 || index > std::numeric_limits<c10::DeviceIndex>::max()) {
    throw DeviceError("device \"" + name + "\" is not of the form cuda:N");
  }
  const int count = at::hasCUDA() ? at::detail::getCUDAHooks().getNumGPUs() : 0;
  if (index >= count) {
    throw DeviceError("device " + name + " is not there: this program sees " +
                      (count == 0 ? std::string("no GPU") : std::to_string(count) + " GPUs") +
                      "; use devices = [\"cpu\"], or check the driver (nvidia-smi) and CUDA_VISIBLE_DEVICES");
  }
  Device device{.device = {c10::kCUDA, static_cast<c10::DeviceIndex>(index)},
                .name = name,
                .description = "CUDA device",
                .slots = kCudaSlots};
  at::globalContext().lazyInitDevice(c10::kCUDA);
  describe_cuda(static_cast<int>(index), device);
  return device;
}

}  // namespace

Device open_device(const std::string& name) {
  if (name == "cpu") {
    return {.description = cpu_name(), .memory_bytes = ::sysconf(_SC_PHYS_PAGES) * ::sysconf(_SC_PAGESIZE)};
  }
  if (name.starts_with("cuda:")) return open_cuda(name);
  throw DeviceError("unknown device \"" + name + "\"; known: cpu, cuda:N");
}

void use_one_thread() {
  ::setenv("OMP_NUM_THREADS", "1", 1);
  ::setenv("MKL_NUM_THREADS", "1", 1);
  at::set_num_threads(1);
  at::set_num_interop_threads(1);
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

}  // namespace worker
