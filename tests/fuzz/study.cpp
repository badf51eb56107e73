// A study file: it is understood, and then reads back from its resolved text, or is refused with its place.
#include <cstdlib>

#include "sweeps/study_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string resolved;
  try {
    resolved = sweeps::parse_study({reinterpret_cast<const char*>(data), size}, "study.toml").text;
  } catch (const sweeps::StudyError&) {
    return 0;
  }
  if (sweeps::parse_study(resolved, "study.toml").text != resolved) std::abort();
  return 0;
}
