#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace worker {

/// A random network that makes text with an exact floor. Next-token logits =
///   Zipf log-prior + beta * W2 tanh(W1 [e(x_t), sum_{i=1..6} 0.5^i R_i e(x_{t-i})]),
/// e: 32-dimensional Gaussian embeddings, R_i: random rotations, W1 and W2 Gaussian, fan-in
/// scaled, beta = 4.
/// Everything follows from the seed. Tokens are drawn by a counter: document i is the same whoever asks.
class Teacher {
 public:
  static constexpr int kVocab = 128;
  static constexpr int kVersion = 1;  // another formula or another constant is another version

  explicit Teacher(std::uint64_t seed);

  /// Which documents: trained on and held out never meet.
  enum class Stream : std::uint64_t { train = 1, holdout = 2 };

  /// Draws documents first .. first + count - 1 of `length` tokens each, row by row. A document starts
  /// afresh: terms of tokens before its start are zero, and its first token follows the prior.
  void draw(Stream stream, std::uint64_t first, std::int64_t count, std::int64_t length,
            std::span<std::uint8_t> tokens) const;

  /// Mean -log p of tokens 2 .. length of each document under the teacher, nats per token.
  double floor(std::span<const std::uint8_t> tokens, std::int64_t length) const;

  /// Of the weights themselves.
  std::string fingerprint() const;

 private:
  static constexpr int kEmbedding = 32;
  static constexpr int kLags = 6;
  static constexpr int kHidden = 128;

  /// Logits of `count` documents after their first t tokens (t >= 1), [count, V].
  void logits(std::span<const std::uint8_t> tokens, std::int64_t length, std::int64_t t, std::int64_t count,
              float* out) const;

  std::uint64_t seed_;
  std::vector<float> prior_;   // [V] log-probabilities
  std::vector<float> tables_;  // [1 + kLags, V, kHidden]: W1's share of every token at every lag
  std::vector<float> out_;     // [kHidden, V]: beta * W2, transposed
};

}  // namespace worker
