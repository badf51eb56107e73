#include "orchestrator/build_info.h"

#include <fstream>
#include <vector>

#define XXH_INLINE_ALL
#define XXH_NO_INLINE_HINTS 1  // g++ 12 cannot force all of it inline at -Og
#include <xxhash.h>
#include <fmt/format.h>

#include "git_commit.h"

namespace orchestrator {

std::string git_commit() { return TUNEONCE_GIT_COMMIT; }

std::string file_hash(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return "";
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  std::vector<char> block(1u << 20);
  while (stream.read(block.data(), static_cast<std::streamsize>(block.size())), stream.gcount() > 0)
    XXH3_128bits_update(&state, block.data(), static_cast<std::size_t>(stream.gcount()));
  const auto hash = XXH3_128bits_digest(&state);
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

db::ProgramInfo program_info(const std::filesystem::path& worker) {
  return {.git_commit = git_commit(), .program_hash = file_hash("/proc/self/exe"), .worker_hash = file_hash(worker)};
}

}  // namespace orchestrator
