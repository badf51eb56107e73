#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace orchestrator {

struct Gpu {
  std::string name;
  std::string uuid;
  std::int64_t memory_bytes = 0;
};

/// The NVIDIA GPUs of this machine in PCI order, through libnvidia-ml.so.1 opened at run time: no driver, no
/// GPUs, no error; and no CUDA context is ever made here. CUDA_VISIBLE_DEVICES hides what it hides from CUDA.
std::vector<Gpu> visible_gpus();

}  // namespace orchestrator
