#include "worker/data_teacher.h"

#include <algorithm>

#include "worker/teacher.h"

namespace worker {
namespace {

constexpr std::int64_t kPoolTokens = 1 << 24;
constexpr std::int64_t kBlock = 64;  // documents drawn at a time

class TeacherSource : public TokenSource {
 public:
  TeacherSource(const sweeps::DataSpec& spec, const DataNeeds& needs)
      : teacher_(spec.teacher_seed), length_(needs.context + 1) {
    needs_ = needs;
    blocks_.resize(static_cast<std::size_t>(std::max<std::int64_t>(1, kPoolTokens / needs.context / kBlock)));
    facts_ = {.fingerprint = teacher_.fingerprint(),
              .train_tokens = num_documents() * needs.context,
              .holdout_tokens = num_holdout_sequences(needs) * needs.context,
              .description = "random teacher " + std::to_string(spec.teacher_seed) + ", vocabulary " +
                             std::to_string(Teacher::kVocab)};
  }

  void train_batch(std::uint64_t seed, std::int64_t step, std::int64_t batch,
                   std::span<std::int64_t> out) override {
    const auto count = static_cast<std::uint64_t>(num_documents());
    const std::uint64_t start = window_start(seed, 0, 0, count);
    for (std::int64_t row = 0; row < batch; ++row) {
      const auto document = (start + static_cast<std::uint64_t>(step * batch + row)) % count;
      const auto tokens = train_document(static_cast<std::int64_t>(document));
      std::copy(tokens.begin(), tokens.end(), out.begin() + row * length_);
    }
  }

  const std::vector<std::int64_t>& holdout() override {
    if (holdout_.empty()) {
      std::vector<std::uint8_t> tokens(static_cast<std::size_t>(num_holdout_sequences(needs_) * length_));
      teacher_.draw(Teacher::Stream::holdout, 0, num_holdout_sequences(needs_), length_, tokens);
      floor_ = teacher_.floor(tokens, length_);
      holdout_.assign(tokens.begin(), tokens.end());
    }
    return holdout_;
  }

  std::optional<double> floor() override {
    holdout();
    return floor_;
  }

 private:
  std::int64_t num_documents() const { return static_cast<std::int64_t>(blocks_.size()) * kBlock; }

  std::span<const std::uint8_t> train_document(std::int64_t document) {
    auto& block = blocks_[static_cast<std::size_t>(document / kBlock)];
    if (block.empty()) {
      block.resize(static_cast<std::size_t>(kBlock * length_));
      teacher_.draw(Teacher::Stream::train, static_cast<std::uint64_t>(document / kBlock * kBlock), kBlock,
                    length_, block);
    }
    return std::span(block).subspan(static_cast<std::size_t>(document % kBlock * length_),
                                    static_cast<std::size_t>(length_));
  }

  Teacher teacher_;
  std::int64_t length_;  // T+1
  std::vector<std::vector<std::uint8_t>> blocks_;
  std::vector<std::int64_t> holdout_;
  std::optional<double> floor_;
};

}  // namespace

std::shared_ptr<TokenSource> open_teacher_source(const sweeps::DataSpec& spec, const DataNeeds& needs) {
  if (needs.vocab < Teacher::kVocab) {
    throw UserError("model.vocab is " + std::to_string(needs.vocab) + ", but the teacher's tokens go up to " +
                    std::to_string(Teacher::kVocab - 1) + "; use vocab = " + std::to_string(Teacher::kVocab));
  }
  return std::make_shared<TeacherSource>(spec, needs);
}

}  // namespace worker
