#include "worker/data_windows.h"

#include <algorithm>

namespace worker {
namespace {

void copy_tokens(const TokenSpan& tokens, std::int64_t start, std::int64_t count, std::int64_t* out) {
  std::visit(
      [&](const auto& span) {
        const auto part = span.subspan(static_cast<std::size_t>(start), static_cast<std::size_t>(count));
        std::copy(part.begin(), part.end(), out);
      },
      tokens);
}

}  // namespace

std::int64_t num_tokens(const TokenSpan& tokens) {
  return std::visit([](const auto& span) { return static_cast<std::int64_t>(span.size()); }, tokens);
}

void WindowSource::set_tokens(TokenSpan train, TokenSpan holdout, const DataNeeds& needs,
                              const std::string& where, const std::string& remedy) {
  needs_ = needs;
  train_ = train;
  holdout_ = holdout;
  facts_.train_tokens = num_tokens(train);
  facts_.holdout_tokens = num_tokens(holdout);
  if (facts_.train_tokens < needs.context + 1) {
    throw UserError(where + ": model.context = " + std::to_string(needs.context) +
                    " is longer than the text (" + std::to_string(facts_.train_tokens) +
                    " tokens to train on)");
  }
  const std::int64_t wanted = num_holdout_sequences(needs) * needs.context + 1;
  if (facts_.holdout_tokens < wanted) {
    throw UserError(where + ": the held-out part has " + std::to_string(facts_.holdout_tokens) +
                    " tokens, train.eval.tokens = " + std::to_string(needs.eval_tokens) + " needs " +
                    std::to_string(wanted) + "; " + remedy);
  }
}

void WindowSource::train_batch(std::uint64_t seed, std::int64_t step, std::int64_t batch,
                               std::span<std::int64_t> out) {
  const std::int64_t length = needs_.context + 1;
  const auto places = static_cast<std::uint64_t>(num_tokens(train_) - needs_.context);
  for (std::int64_t row = 0; row < batch; ++row) {
    const auto start = static_cast<std::int64_t>(window_start(seed, step, row, places));
    copy_tokens(train_, start, length, out.data() + row * length);
  }
}

const std::vector<std::int64_t>& WindowSource::holdout() {
  if (!holdout_sequences_.empty()) return holdout_sequences_;
  const std::int64_t count = num_holdout_sequences(needs_), length = needs_.context + 1;
  const std::int64_t stride =
      (num_tokens(holdout_) - 1) / count;  // at least the context: set_tokens saw to it
  holdout_sequences_.resize(static_cast<std::size_t>(count * length));
  for (std::int64_t i = 0; i < count; ++i) {
    copy_tokens(holdout_, i * stride, length, &holdout_sequences_[static_cast<std::size_t>(i * length)]);
  }
  return holdout_sequences_;
}

}  // namespace worker
