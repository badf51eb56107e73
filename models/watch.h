#pragma once

#include <cstddef>

namespace models {

class Recorder;

/// Where a forward pass is, for a Recorder that watches it. Without one nothing is recorded and nothing is
/// slower.
struct Watch {
  Recorder* recorder = nullptr;
  std::size_t block = 0;
  double multiplier = 1;  // of the branch
};

}  // namespace models
