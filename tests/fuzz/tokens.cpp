// A token file: every id is in the vocabulary, or the file is refused.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

#include "worker/data_tokens.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const int memory = ::memfd_create("tokens.bin", 0);
  if (memory < 0 || ::write(memory, data, size) != static_cast<ssize_t>(size)) std::abort();
  try {
    const worker::TokenFile file("/proc/self/fd/" + std::to_string(memory), 1000);
    std::visit(
        [](const auto& tokens) {
          for (const auto token : tokens)
            if (token >= 1000) std::abort();
        },
        file.tokens());
  } catch (const worker::UserError&) {
  }
  ::close(memory);
  return 0;
}
