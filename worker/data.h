#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "sweeps/trial.h"
#include "worker/protocol.h"

namespace worker {

/// The user's input is wrong; what() is one line for them and names the file or key.
struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What a trial asks of its data.
struct DataNeeds {
  std::int64_t context = 0;  // T
  std::int64_t vocab = 0;    // V of the model
  std::int64_t eval_tokens =
      0;  // predicted tokens in the fixed held-out set, rounded down to whole sequences (whole images)
  std::int64_t image_size = 0;  // S, where the data are images; context is then the patches of one
  std::int64_t channels = 0;    // C

  std::int64_t pixels() const { return channels * image_size * image_size; }
};

/// What every source has. Which sequences or images a training step sees is a function of (seed, step) alone,
/// so every trial of a sweep sees the same data in the same order and a trial goes on at any step without a
/// replay. The held-out ones are fixed and never trained on.
class Source {
 public:
  virtual ~Source() = default;

  const Inspected& facts() const { return facts_; }
  const DataNeeds& needs() const { return needs_; }

  /// The lowest loss that any model can have on the held-out set, where it is known exactly.
  virtual std::optional<double> floor() { return std::nullopt; }

 protected:
  Inspected facts_;
  DataNeeds needs_;
};

/// Sequences of T+1 tokens: inputs are the first T, targets the last T. The floor is the mean -log p of the
/// process that made the held-out targets, nats per token.
class TokenSource : public Source {
 public:
  /// Training sequences of one step, [batch, T+1] row by row.
  virtual void train_batch(std::uint64_t seed, std::int64_t step, std::int64_t batch,
                           std::span<std::int64_t> out) = 0;

  /// The held-out set, [max(1, eval_tokens / T), T+1] row by row.
  virtual const std::vector<std::int64_t>& holdout() = 0;
};

/// Images [C, S, S] of the size that was asked for, pixels in about [-1, 1]. Noise and times are not the
/// source's: worker/flow_noise.h draws them, for training by (seed, step) and for the held-out images once
/// and for all. The floor is the mean squared error per pixel of the best velocity on the held-out images at
/// those fixed draws.
class ImageSource : public Source {
 public:
  /// Training images of one step, [batch, C, S, S] row by row.
  virtual void train_batch(std::uint64_t seed, std::int64_t step, std::int64_t batch,
                           std::span<float> out) = 0;

  /// The held-out images, [max(1, eval_tokens / context), C, S, S] row by row.
  virtual const std::vector<float>& holdout() = 0;
};

/// Held-out sequences or images.
std::int64_t num_holdout_sequences(const DataNeeds& needs);

/// Opens and checks the data; throws UserError. Keeps the last few sources open, so the next trial on the
/// same data starts at once; a source whose files changed is read again. Not for use from several threads. A
/// spec whose fingerprint is filled in and differs from the data's is refused.
std::shared_ptr<TokenSource> open_source(const sweeps::DataSpec& spec, const DataNeeds& needs);
/// The same for a source of images (sweeps::has_images). Either refuses the other kind.
std::shared_ptr<ImageSource> open_image_source(const sweeps::DataSpec& spec, const DataNeeds& needs);

/// Where a training sequence of (seed, step, row) starts, uniform in [0, count).
std::uint64_t window_start(std::uint64_t seed, std::int64_t step, std::int64_t row, std::uint64_t count);

/// Whether a document or an image belongs to the held-out share: a hash of what it holds decides, so that
/// equal ones fall on the same side.
bool is_held_out(std::span<const std::uint8_t> content, double share);

/// 32 hex digits of XXH3-128.
std::string fingerprint_of(std::span<const std::uint8_t> bytes);

}  // namespace worker
