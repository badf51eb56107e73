#include "worker/feed.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

#include "worker/flow_noise.h"

namespace worker {
namespace {

constexpr double kUnusableNats = 3;
constexpr double kUnusableFactor = 4;

DataNeeds needs_of(const sweeps::TrialSpec& spec) {
  const auto& shape = spec.run.shape;
  return {shape.context, shape.vocab, spec.eval.tokens, shape.image_size, shape.channels};
}

class TokenFeed : public Feed {
 public:
  TokenFeed(const sweeps::TrialSpec& spec, std::int64_t slots)
      : source_(open_source(spec.data, needs_of(spec))),
        vocab_(spec.run.shape.vocab),
        tokens_KBT_(at::zeros({slots, spec.run.batch, spec.run.shape.context + 1}, at::kLong)) {}

  Source& source() override { return *source_; }
  void load(std::int64_t k, std::uint64_t seed, std::int64_t step) override {
    const at::Tensor row = tokens_KBT_[k];
    source_->train_batch(seed, step, row.size(0),
                         {row.mutable_data_ptr<std::int64_t>(), static_cast<std::size_t>(row.numel())});
  }
  models::Batch training_batch(c10::Device device) const override { return tokens_KBT_.to(device); }
  models::Batch holdout_batch(std::int64_t start, std::int64_t rows, c10::Device device) override {
    const auto slots = tokens_KBT_.size(0), length = tokens_KBT_.size(2);
    const auto& all = source_->holdout();
    at::Tensor tokens = at::empty({1, rows, length}, at::kLong);
    std::copy_n(all.begin() + start * length, rows * length, tokens.mutable_data_ptr<std::int64_t>());
    return tokens.to(device).expand({slots, rows, length}).contiguous();
  }
  double unusable_loss() override { return std::log(static_cast<double>(vocab_)) + kUnusableNats; }

 private:
  std::shared_ptr<TokenSource> source_;
  std::int64_t vocab_;
  at::Tensor tokens_KBT_;  // on the CPU
};

class ImageFeed : public Feed {
 public:
  ImageFeed(const sweeps::TrialSpec& spec, std::int64_t slots)
      : source_(open_image_source(spec.data, needs_of(spec))),
        holdout_noise_(holdout_noise(num_holdout_sequences(source_->needs()), source_->needs().pixels())) {
    const auto& shape = spec.run.shape;
    const auto S = shape.image_size;
    images_KBCSS_ = at::zeros({slots, spec.run.batch, shape.channels, S, S}, at::kFloat);
    noise_KBCSS_ = at::zeros_like(images_KBCSS_);
    times_KB_ = at::zeros({slots, spec.run.batch}, at::kFloat);
  }

  Source& source() override { return *source_; }
  void load(std::int64_t k, std::uint64_t seed, std::int64_t step) override {
    const at::Tensor row = images_KBCSS_[k];
    source_->train_batch(seed, step, row.size(0),
                         {row.mutable_data_ptr<float>(), static_cast<std::size_t>(row.numel())});
    const FlowNoise draws = training_noise(seed, step, row.size(0), source_->needs().pixels());
    std::copy(draws.noise.begin(), draws.noise.end(), noise_KBCSS_[k].mutable_data_ptr<float>());
    std::copy(draws.times.begin(), draws.times.end(), times_KB_[k].mutable_data_ptr<float>());
  }
  models::Batch training_batch(c10::Device device) const override {
    return {images_KBCSS_.to(device), noise_KBCSS_.to(device), times_KB_.to(device)};
  }
  models::Batch holdout_batch(std::int64_t start, std::int64_t rows, c10::Device device) override {
    auto sizes = images_KBCSS_.sizes().vec();
    sizes[1] = rows;
    const auto part = [&](const std::vector<float>& all, std::int64_t each,
                          const std::vector<std::int64_t>& to) {
      auto one = to;
      one[0] = 1;
      at::Tensor values = at::empty(one, at::kFloat);
      std::copy_n(all.begin() + start * each, rows * each, values.mutable_data_ptr<float>());
      return values.to(device).expand(to).contiguous();
    };
    const auto pixels = source_->needs().pixels();
    return {part(source_->holdout(), pixels, sizes), part(holdout_noise_.noise, pixels, sizes),
            part(holdout_noise_.times, 1, {sizes[0], rows})};
  }
  double unusable_loss() override {
    const auto& images = source_->holdout();
    double square = 0;
    for (std::size_t i = 0; i < images.size(); ++i) {
      const double velocity = static_cast<double>(holdout_noise_.noise[i]) - images[i];
      square += velocity * velocity;
    }
    return kUnusableFactor * square / static_cast<double>(images.size());
  }

 private:
  std::shared_ptr<ImageSource> source_;
  FlowNoise holdout_noise_;
  at::Tensor images_KBCSS_, noise_KBCSS_, times_KB_;  // on the CPU
};

}  // namespace

std::unique_ptr<Feed> make_feed(const sweeps::TrialSpec& spec, std::int64_t slots) {
  if (spec.run.shape.is_diffusion()) return std::make_unique<ImageFeed>(spec, slots);
  return std::make_unique<TokenFeed>(spec, slots);
}

}  // namespace worker
