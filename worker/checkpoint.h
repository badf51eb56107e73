#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/model.h"
#include "sweeps/trial.h"
#include "worker/curve.h"
#include "worker/optimizer.h"
#include "worker/runaway.h"

namespace worker {

/// How far a trial has come, apart from its tensors. Data order and schedule are functions of the step, so
/// the step is also the data cursor and there is no generator to save.
struct TrialProgress {
  std::int64_t step = 0;  // updates done, of the trunk
  RunawayWatch runaway;
  std::vector<sweeps::BranchLoss> branches;  // done
  std::int64_t branch_updates = 0;           // of the branch under way
  double seconds = 0;     // spent so far, over all attempts
  std::map<std::string, CurveRecorder> curves;
};

/// A slot's weights, both moments, buffers and update count, kept while a branch decays.
struct SlotState {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  std::int64_t updates = 0;
};
SlotState copy_of(std::int64_t slot, models::Model& model, AdamW& optimizer);
void restore(const SlotState& state, std::int64_t slot, models::Model& model, AdamW& optimizer);

/// Writes slot k and, inside a branch, the trunk it will go back to: weights, both moments, buffers,
/// progress. The file is written whole (see write_safetensors); the one before is kept beside it, its name ending
/// in kPreviousCheckpoint. Returns the checksum. Throws std::runtime_error where it cannot be written.
std::string save_checkpoint(const std::filesystem::path& file, const sweeps::TrialKey& trial,
                            std::int64_t slot, models::Model& model, AdamW& optimizer,
                            const TrialProgress& progress, const std::optional<SlotState>& trunk);

/// Fills slot k (and `trunk`, where the file was written inside a branch) from the file. One that is damaged, of
/// another trial or of another format changes nothing and is reported on stderr; then, or where there is no file,
/// the one before is taken and becomes the file. Nothing where neither is of use: the trial starts from step 0.
std::optional<TrialProgress> load_checkpoint(const std::filesystem::path& file, const sweeps::TrialKey& trial,
                                             std::int64_t num_steps, std::int64_t slot, models::Model& model,
                                             AdamW& optimizer, std::optional<SlotState>& trunk);

}  // namespace worker
