#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "models/model.h"
#include "sweeps/trial.h"
#include "worker/curve.h"
#include "worker/optimizer.h"

namespace worker {

/// How far a trial has come, apart from its tensors. Data order and schedule are functions of the step, so
/// the step is also the data cursor and there is no generator to save.
struct TrialProgress {
  std::int64_t step = 0;  // updates done
  double seconds = 0;     // spent so far, over all attempts
  std::map<std::string, CurveRecorder> curves;
};

/// Writes slot k: weights, both moments, buffers, progress. The file is replaced whole (see
/// write_safetensors). Returns its checksum. Throws std::runtime_error where it cannot be written.
std::string save_checkpoint(const std::filesystem::path& file, const sweeps::TrialKey& trial,
                            std::int64_t slot, models::Model& model, AdamW& optimizer,
                            const TrialProgress& progress);

/// Fills slot k from the file. Nothing where there is no file. A file that is damaged, of another trial or of
/// another format changes nothing and is reported on stderr; the trial then starts from step 0.
std::optional<TrialProgress> load_checkpoint(const std::filesystem::path& file, const sweeps::TrialKey& trial,
                                             std::int64_t num_steps, std::int64_t slot, models::Model& model,
                                             AdamW& optimizer);

}  // namespace worker
