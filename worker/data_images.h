#pragma once

#include <memory>

#include "worker/data.h"

namespace worker {

/// Grey images of idx3-ubyte files (MNIST, Fashion-MNIST), .gz or not, pixels scaled to [-1, 1]. `path`: a
/// file, or a folder, of which every file with "idx3-ubyte" in its name counts. Held out: the files of a
/// folder that begin with "t10k" or "test"; where there are none the share `holdout` (0: 0.02) of the images,
/// by a hash of their pixels, so that equal images fall on the same side. A training step draws its images
/// evenly from all.
std::shared_ptr<ImageSource> open_images_source(const sweeps::DataSpec& spec, const DataNeeds& needs);

}  // namespace worker
