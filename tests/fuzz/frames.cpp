// The frames between orchestrator and worker: whatever arrives, decoding gives a message or a ProtocolError.
#include "worker/protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::uint8_t> bytes(data, size);
  if (size >= 4) {
    try {
      worker::payload_length(bytes.first<4>());
    } catch (const worker::ProtocolError&) {
    }
  }
  try {
    worker::encode(worker::decode_worker_message(bytes));
  } catch (const worker::ProtocolError&) {
  }
  try {
    worker::encode(worker::decode_orchestrator_message(bytes));
  } catch (const worker::ProtocolError&) {
  }
  return 0;
}
