#pragma once

#include <utility>

#include <ATen/core/Tensor.h>

namespace models::ops {

/// Added to the mean square; far below unit-RMS activations, so it only guards all-zero rows.
inline constexpr double kNormEps = 1e-6;

/// y = x / sqrt(mean(x^2) + eps) * gain over the last axis. x [K, R, D] (float32 or float64), gain [K, D];
/// computed in x's type, returned as `out`.
at::Tensor rms_norm(const at::Tensor& x_KRD, const at::Tensor& gain_KD, at::ScalarType out);

/// The residual stream takes in a branch and is normalised: s = x + scale * branch, y = rms_norm(s, gain).
/// branch [K, R, D] in any floating type. Returns {s, y}.
std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x_KRD, const at::Tensor& branch_KRD,
                                               double scale, const at::Tensor& gain_KD, at::ScalarType out);

namespace composed {
at::Tensor rms_norm(const at::Tensor& x_KRD, const at::Tensor& gain_KD, at::ScalarType out);
std::pair<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x_KRD, const at::Tensor& branch_KRD,
                                               double scale, const at::Tensor& gain_KD, at::ScalarType out);
}  // namespace composed

}  // namespace models::ops
