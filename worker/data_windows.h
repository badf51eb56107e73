#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "worker/data.h"

namespace worker {

/// Token ids as they lie in memory.
using TokenSpan = std::variant<std::span<const std::uint8_t>, std::span<const std::uint16_t>,
                               std::span<const std::uint32_t>>;

std::int64_t num_tokens(const TokenSpan& tokens);

/// Sequences cut out of one long run of tokens. Training: uniform random places. Held out: places spread
/// evenly over the held-out part, none overlapping in its targets.
class WindowSource : public TokenSource {
 public:
  void train_batch(std::uint64_t seed, std::int64_t step, std::int64_t batch,
                   std::span<std::int64_t> out) override;
  const std::vector<std::int64_t>& holdout() override;

 protected:
  /// Throws UserError where the context is longer than the training part or the held-out part is too small
  /// for needs.eval_tokens. `where` names the data in messages; `remedy` is what a larger held-out part
  /// takes. The tokens must live as long as this.
  void set_tokens(TokenSpan train, TokenSpan holdout, const DataNeeds& needs, const std::string& where,
                  const std::string& remedy);

 private:
  TokenSpan train_;
  TokenSpan holdout_;
  std::vector<std::int64_t> holdout_sequences_;
};

}  // namespace worker
