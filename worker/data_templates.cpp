#include "worker/data_templates.h"

#include "models/generator.h"
#include "worker/flow_noise.h"
#include "worker/templates.h"

namespace worker {
namespace {

class TemplatesSource : public ImageSource {
 public:
  TemplatesSource(const sweeps::DataSpec& spec, const DataNeeds& needs)
      : templates_(spec.teacher_seed, needs.image_size, needs.channels) {
    needs_ = needs;
    facts_ = {.fingerprint = templates_.fingerprint(),
              .train_tokens = 0,
              .holdout_tokens = num_holdout_sequences(needs),
              .description = std::to_string(Templates::kCount) + " templates " +
                             std::to_string(spec.teacher_seed) + ", " + std::to_string(needs.image_size) +
                             "x" + std::to_string(needs.image_size)};
  }

  void train_batch(std::uint64_t seed, std::int64_t step, std::int64_t batch, std::span<float> out) override {
    const std::uint64_t key = models::tensor_key(seed, "step " + std::to_string(step));
    templates_.draw(Templates::Stream::train, key,
                    out.first(static_cast<std::size_t>(batch * needs_.pixels())));
  }

  const std::vector<float>& holdout() override {
    if (holdout_.empty()) {
      const auto count = num_holdout_sequences(needs_);
      holdout_.resize(static_cast<std::size_t>(count * needs_.pixels()));
      templates_.draw(Templates::Stream::holdout, 0, holdout_);
      floor_ = templates_.floor(holdout_, holdout_noise(count, needs_.pixels()));
    }
    return holdout_;
  }

  std::optional<double> floor() override {
    holdout();
    return floor_;
  }

 private:
  Templates templates_;
  std::vector<float> holdout_;
  std::optional<double> floor_;
};

}  // namespace

std::shared_ptr<ImageSource> open_templates_source(const sweeps::DataSpec& spec, const DataNeeds& needs) {
  return std::make_shared<TemplatesSource>(spec, needs);
}

}  // namespace worker
