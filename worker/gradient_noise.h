#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/model.h"

namespace worker {

/// How noisy the gradient of the FFN matrices (routed experts, or the dense FFN; not shared experts) is against
/// its mean over the data: rms noise over rms signal, from the gradients of n independent batches at one point.
/// Both squares are unbiased, with S = |sum g|^2 and Q = sum |g|^2 over all of these matrices:
///   signal^2 = (S - Q) / (n (n - 1)),   noise^2 = Q / n - signal^2.
/// An expert sees a/N of the batch, so the ratio grows as sqrt(N/a): sigma_exp of Complete-muE
/// (arXiv:2605.23893) in units of the gradient.
class GradientNoise {
 public:
  /// Takes in the gradients that lie in the parameters, [K, dims...].
  void add(const std::vector<models::Parameter>& parameters);

  /// Of slot k; empty while fewer than two batches are in, and where the noise hides the signal.
  std::optional<double> ratio(std::int64_t k) const;

 private:
  std::vector<at::Tensor> sums_;  // one a matrix
  at::Tensor squares_K_;           // Q, float64 on the CPU
  std::int64_t num_batches_ = 0;
};

}  // namespace worker
