#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "worker/protocol.h"

namespace worker {

/// Where an attempt's files lie, all in one folder that goes when its trial has ended.
struct CommandFiles {
  explicit CommandFiles(const std::filesystem::path& folder)
      : config(folder / "config.json"), metrics(folder / "metrics"), checkpoint(folder / "checkpoint") {}
  std::filesystem::path config, metrics, checkpoint;
};

/// What the user's program is told: shape, values per tensor group as `tuneonce transfer` has them, seed,
/// steps, files. The same keys for the proxy and for targets. Throws std::invalid_argument where the rule
/// refuses.
nlohmann::json command_config(const Assignment& assignment, const CommandFiles& files,
                              const std::string& device);

/// The words of the command with every placeholder filled in.
std::vector<std::string> command_words(const Assignment& assignment, const CommandFiles& files);

/// The variables that are set for it: TUNEONCE_*, CUDA_VISIBLE_DEVICES, PYTHONUNBUFFERED.
std::vector<std::string> command_environment(const Assignment& assignment, const CommandFiles& files,
                                             const std::string& device);

}  // namespace worker
