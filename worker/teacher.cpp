#include "worker/teacher.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

#include "models/ops/multiversion.h"
#include "worker/data.h"

namespace worker {
namespace {

// Chosen by trial at d = 64, L = 2, 600 steps of 1,024 tokens: an octave of LR off the best costs 0.014 nats
// while seeds differ by 0.001. With a first layer in saturation (gain 2, beta 3) they differ by 0.01 and hide
// the bowl.
constexpr double kBeta = 4;
constexpr double kFirstLayerGain = 1;
constexpr double kZipfExponent = 1;
constexpr std::int64_t kTogether = 64;  // documents drawn side by side

/// SplitMix64: the n-th number of a stream is a function of (key, n).
std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}
double uniform(std::uint64_t key, std::uint64_t n) {
  return (static_cast<double>(mix(key + mix(n)) >> 11) + 0.5) * 0x1p-53;
}

/// Normal numbers, in order.
class Gaussian {
 public:
  explicit Gaussian(std::uint64_t key) : key_(key) {}
  double operator()() {  // Box-Muller
    const double radius = std::sqrt(-2 * std::log(uniform(key_, next_)));
    const double angle = 2 * std::numbers::pi * uniform(key_, next_ + 1);
    next_ += 2;
    return radius * std::cos(angle);
  }
  std::vector<double> matrix(int rows, int columns, double std) {
    std::vector<double> values(static_cast<std::size_t>(rows * columns));
    for (double& value : values) value = std * (*this)();
    return values;
  }

 private:
  std::uint64_t key_;
  std::uint64_t next_ = 0;
};

/// A random rotation: the rows of a Gaussian matrix made orthonormal (Gram-Schmidt), [n, n].
std::vector<double> rotation(Gaussian& random, int n) {
  auto rows = random.matrix(n, n, 1);
  for (int i = 0; i < n; ++i) {
    double* row = &rows[static_cast<std::size_t>(i * n)];
    for (int j = 0; j < i; ++j) {
      const double* earlier = &rows[static_cast<std::size_t>(j * n)];
      double along = 0;
      for (int c = 0; c < n; ++c) along += row[c] * earlier[c];
      for (int c = 0; c < n; ++c) row[c] -= along * earlier[c];
    }
    double square = 0;
    for (int c = 0; c < n; ++c) square += row[c] * row[c];
    for (int c = 0; c < n; ++c) row[c] /= std::sqrt(square);
  }
  return rows;
}

/// e^x to about 1e-7, from additions and products alone: the same bits everywhere, and vectorised.
[[gnu::always_inline]] inline float exp_fast(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  const float clamped = x < -87.0f ? -87.0f : (x > 87.0f ? 87.0f : x);
  const float shifted = clamped * std::numbers::log2e_v<float> + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const auto exponent = (std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kRound)) + 127;
  return p * std::bit_cast<float>(exponent << 23);
}

typedef float Lanes __attribute__((vector_size(64)));
constexpr int kLanes = 16;

/// out[j] = prior[j] + sum_k tanh(hidden[k]) * weights[k][j], 128 by 128. The accumulators stay in registers.
TUNEONCE_MULTIVERSION
void output_layer(const float* hidden, const float* weights, const float* prior, float* out) {
  constexpr int kWidth = 128, kVectors = kWidth / kLanes;
  float active[kWidth];
  for (int k = 0; k < kWidth; ++k) active[k] = 1.0f - 2.0f / (exp_fast(2.0f * hidden[k]) + 1.0f);
  Lanes sums[kVectors];
  std::memcpy(sums, prior, sizeof sums);
  for (int k = 0; k < kWidth; ++k) {
    Lanes row[kVectors];
    std::memcpy(row, weights + k * kWidth, sizeof row);
    for (int j = 0; j < kVectors; ++j) sums[j] += active[k] * row[j];
  }
  std::memcpy(out, sums, sizeof sums);
}

TUNEONCE_MULTIVERSION
void exponentials(const float* logits, int count, float* out) {
  float highest = logits[0];
  for (int j = 1; j < count; ++j) highest = std::max(highest, logits[j]);
  for (int j = 0; j < count; ++j) out[j] = exp_fast(logits[j] - highest);
}

/// One token from softmax(logits) at u in (0, 1).
std::uint8_t sample(const float* logits, int count, double u) {
  float weights[Teacher::kVocab];
  exponentials(logits, count, weights);
  double total = 0;
  for (int j = 0; j < count; ++j) total += weights[j];
  double left = u * total;
  for (int j = 0; j < count - 1; ++j) {
    left -= weights[j];
    if (left < 0) return static_cast<std::uint8_t>(j);
  }
  return static_cast<std::uint8_t>(count - 1);
}

}  // namespace

Teacher::Teacher(std::uint64_t seed) : seed_(seed) {
  Gaussian random(mix(seed + kVersion));
  const auto embedding = random.matrix(kVocab, kEmbedding, 1);
  const auto first = random.matrix(kHidden, 2 * kEmbedding, kFirstLayerGain / std::sqrt(2.0 * kEmbedding));
  const auto second = random.matrix(kVocab, kHidden, kBeta / std::sqrt(1.0 * kHidden));

  tables_.resize((1 + kLags) * kVocab * kHidden);
  for (int lag = 0; lag <= kLags; ++lag) {
    const auto turn = lag == 0 ? std::vector<double>() : rotation(random, kEmbedding);
    const double weight = std::pow(0.5, lag);
    for (int v = 0; v < kVocab; ++v) {
      double rotated[kEmbedding];
      for (int c = 0; c < kEmbedding; ++c) {
        const double* e = &embedding[static_cast<std::size_t>(v * kEmbedding)];
        rotated[c] = lag == 0 ? e[c] : 0;
        for (int i = 0; lag > 0 && i < kEmbedding; ++i) {
          rotated[c] += turn[static_cast<std::size_t>(c * kEmbedding + i)] * e[i];
        }
      }
      for (int h = 0; h < kHidden; ++h) {
        const double* row = &first[static_cast<std::size_t>(h * 2 * kEmbedding + (lag > 0 ? kEmbedding : 0))];
        double sum = 0;
        for (int c = 0; c < kEmbedding; ++c) sum += row[c] * weight * rotated[c];
        tables_[static_cast<std::size_t>((lag * kVocab + v) * kHidden + h)] = static_cast<float>(sum);
      }
    }
  }
  out_.resize(kHidden * kVocab);
  for (int h = 0; h < kHidden; ++h) {
    for (int v = 0; v < kVocab; ++v) {
      out_[static_cast<std::size_t>(h * kVocab + v)] =
          static_cast<float>(second[static_cast<std::size_t>(v * kHidden + h)]);
    }
  }
  double total = 0;
  for (int v = 0; v < kVocab; ++v) total += std::pow(v + 1.0, -kZipfExponent);
  for (int v = 0; v < kVocab; ++v) {
    prior_.push_back(static_cast<float>(-kZipfExponent * std::log(v + 1.0) - std::log(total)));
  }
}

void Teacher::logits(std::span<const std::uint8_t> tokens, std::int64_t length, std::int64_t t,
                     std::int64_t count, float* out) const {
  for (std::int64_t d = 0; d < count; ++d) {
    float hidden[kHidden] = {};
    for (std::int64_t lag = 0; lag <= std::min<std::int64_t>(kLags, t - 1); ++lag) {
      const auto token = tokens[static_cast<std::size_t>(d * length + t - 1 - lag)];
      const float* row = &tables_[static_cast<std::size_t>((lag * kVocab + token) * kHidden)];
      for (int h = 0; h < kHidden; ++h) hidden[h] += row[h];
    }
    output_layer(hidden, out_.data(), prior_.data(), out + d * kVocab);
  }
}

void Teacher::draw(Stream stream, std::uint64_t first, std::int64_t count, std::int64_t length,
                   std::span<std::uint8_t> tokens) const {
  const std::uint64_t stream_key = mix(mix(seed_) + static_cast<std::uint64_t>(stream));
  std::vector<float> scores(static_cast<std::size_t>(kTogether * kVocab));
  for (std::int64_t start = 0; start < count; start += kTogether) {
    const std::int64_t group = std::min(kTogether, count - start);
    const auto part =
        tokens.subspan(static_cast<std::size_t>(start * length), static_cast<std::size_t>(group * length));
    for (std::int64_t t = 0; t < length; ++t) {
      if (t > 0) logits(part, length, t, group, scores.data());
      for (std::int64_t d = 0; d < group; ++d) {
        const std::uint64_t key = mix(stream_key + first + static_cast<std::uint64_t>(start + d));
        part[static_cast<std::size_t>(d * length + t)] =
            sample(t > 0 ? &scores[static_cast<std::size_t>(d * kVocab)] : prior_.data(), kVocab,
                   uniform(key, static_cast<std::uint64_t>(t)));
      }
    }
  }
}

double Teacher::floor(std::span<const std::uint8_t> tokens, std::int64_t length) const {
  const std::int64_t count = static_cast<std::int64_t>(tokens.size()) / length;
  std::vector<float> scores(static_cast<std::size_t>(count * kVocab));
  double total = 0;
  for (std::int64_t t = 1; t < length; ++t) {
    logits(tokens, length, t, count, scores.data());
    for (std::int64_t d = 0; d < count; ++d) {
      const float* row = &scores[static_cast<std::size_t>(d * kVocab)];
      double sum = 0;
      for (int v = 0; v < kVocab; ++v) sum += std::exp(static_cast<double>(row[v]));
      total += std::log(sum) - row[tokens[static_cast<std::size_t>(d * length + t)]];
    }
  }
  return total / static_cast<double>(count * (length - 1));
}

std::string Teacher::fingerprint() const {
  std::vector<std::uint8_t> bytes;
  const auto add = [&](const void* data, std::size_t size) {
    const auto* start = static_cast<const std::uint8_t*>(data);
    bytes.insert(bytes.end(), start, start + size);
  };
  add(&seed_, sizeof seed_);
  for (const auto* values : {&prior_, &tables_, &out_}) add(values->data(), values->size() * sizeof(float));
  return fingerprint_of(bytes);
}

}  // namespace worker
