// A checkpoint file: its tensors can be looked at to the last byte, or it is refused.
#include <cstring>

#include "worker/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  try {
    const worker::Safetensors file(std::move(bytes));
    volatile std::byte last{};
    for (const auto& [name, tensor] : file.tensors())
      for (const std::byte byte : tensor.data) last = byte;
  } catch (const worker::SafetensorsError&) {
  }
  return 0;
}
