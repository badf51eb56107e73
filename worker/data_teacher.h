#pragma once

#include <memory>

#include "worker/data.h"

namespace worker {

/// Documents of the built-in random teacher, T+1 tokens each, drawn when first asked for and then kept: at
/// most 16 million training tokens (16 MB), after which a run starts to see them again. A seed picks the
/// document that a run starts with; from there on it reads in order.
std::shared_ptr<TokenSource> open_teacher_source(const sweeps::DataSpec& spec, const DataNeeds& needs);

}  // namespace worker
