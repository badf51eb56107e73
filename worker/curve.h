#pragma once

#include <cstdint>
#include <vector>

namespace worker {

/// One metric of one trial as it is kept and sent: at most kMaxPoints means over `stride` values, each at the
/// step of its last value. Part of a checkpoint, so a resumed trial has the same curve.
struct CurveRecorder {
  static constexpr std::int64_t kMaxPoints = 400;

  std::int64_t stride = 1;
  std::vector<std::int64_t> steps;
  std::vector<double> values;
  double sum = 0;  // of the values since the last point
  std::int64_t count = 0;
  std::size_t num_sent = 0;  // points; a resumed trial sends its whole curve again

  /// For a metric measured at every one of `steps` steps.
  static CurveRecorder every_step(std::int64_t num_steps) {
    return {.stride = (num_steps + kMaxPoints - 1) / kMaxPoints, .steps = {}, .values = {}};
  }
  void add(std::int64_t step, double value) {
    sum += value;
    if (++count == stride) end_point(step);
  }
  /// The values since the last point become one, too.
  void end_point(std::int64_t step) {
    if (count == 0) return;
    steps.push_back(step);
    values.push_back(sum / static_cast<double>(count));
    sum = 0;
    count = 0;
  }
};

}  // namespace worker
