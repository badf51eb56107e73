#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace orchestrator {

struct Gpu {
  std::string name;
  std::string uuid;
  std::int64_t memory_bytes = 0;
  bool answers = true;  // false: it is there by number only
};

/// The NVIDIA GPUs of this machine in PCI order, through libnvidia-ml.so.1 opened at run time: no driver, no
/// GPUs, no error; and no CUDA context is ever made here. CUDA_VISIBLE_DEVICES hides what it hides from CUDA.
std::vector<Gpu> visible_gpus();

struct GpuMemory {
  std::int64_t total = 0, free = 0;  // bytes
};
/// Nothing when the GPU does not answer any more (or there is no driver).
std::optional<GpuMemory> gpu_memory(const std::string& uuid);

}  // namespace orchestrator
