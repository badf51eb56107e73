#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include <c10/core/Device.h>

namespace worker {

/// Where trials are trained.
struct Device {
  c10::Device device = c10::kCPU;
  std::string name = "cpu";  // "cpu", "cuda:0"
  std::string description;   // "Intel(R) Xeon(R)", "NVIDIA H200"
  std::int64_t memory_bytes = 0;
  int slots = 1;  // trials side by side; a CPU core gains nothing from more than one
};

/// The device is not there; what() says what was asked for and what there is.
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// "cpu" or "cuda:N". Throws DeviceError.
Device open_device(const std::string& name);

/// One compute thread per process: the orchestrator starts one worker a core, and results do not depend on a
/// thread count. Keeps freed memory in the process, too: giving large blocks back to the system after every
/// operation costs a page fault each time they are touched again. Call first in main.
void use_one_thread();

}  // namespace worker
