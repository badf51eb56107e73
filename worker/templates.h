#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "worker/flow_noise.h"

namespace worker {

/// Images with an exact floor: x_0 = mu_m + s n, with m one of kCount templates picked evenly, n standard
/// normal noise in every pixel, s = kNoise. Templates are smooth random fields (a few low waves in each
/// direction, RMS kRms), everything a function of the seed and the size.
///
/// The best velocity. With x_t = a x_0 + t eps, a = 1 - t, the target is v = eps - x_0. Given m, x_t is
/// normal around a mu_m with variance V = a^2 s^2 + t^2 in every pixel, and with r_m = x_t - a mu_m
///   E[x_0 | x_t, m] = mu_m + (a s^2 / V) r_m,   E[eps | x_t, m] = (t / V) r_m,
/// so E[v | x_t, m] = ((t - a s^2) / V) r_m - mu_m. The posterior of m is softmax_m(-|r_m|^2 / 2V), and
///   v*(x_t, t) = sum_m p_m E[v | x_t, m]
/// is the minimum of the mean squared error over all functions of (x_t, t). A model's excess over it on the
/// same draws is mean (f - v*)^2 plus a term of mean zero: below zero by more than that term's noise means
/// that something leaks.
///
/// The constants were chosen by trial (8 x 8 pixels, patch 2, d = 64, L = 2, 800 steps of 32 images, init std
/// 0.1, linear decay): excess 0.106 at LR 3e-3, 0.073 at 6e-3, 0.068 and 0.070 (two seeds) at 1.2e-2, 0.098
/// at 2.4e-2. With 64 templates of two waves the curve was flat: 0.23 to 0.25 from 2e-3 to 1.6e-2 after 300
/// steps.
class Templates {
 public:
  static constexpr int kCount = 16;
  static constexpr double kNoise = 0.25;
  static constexpr double kRms = 0.5;
  static constexpr int kVersion = 1;  // another formula or another constant is another version

  Templates(std::uint64_t seed, std::int64_t image_size, std::int64_t channels);

  /// Which images: trained on and held out never meet.
  enum class Stream : std::uint64_t { train = 1, holdout = 2 };

  /// `out.size() / pixels` images of a stream that `key` tells from others, row by row.
  void draw(Stream stream, std::uint64_t key, std::span<float> out) const;

  /// v*(x_t, t) of one image, [pixels].
  std::vector<double> best_velocity(std::span<const double> x_t, double t) const;

  /// Mean squared error per pixel of v* on these images at these draws.
  double floor(std::span<const float> images, const FlowNoise& draws) const;

  /// Of the templates themselves.
  std::string fingerprint() const;

 private:
  std::uint64_t seed_;
  std::int64_t pixels_;
  std::vector<float> templates_;  // [kCount, pixels]
};

}  // namespace worker
