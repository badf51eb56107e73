#pragma once

#include <memory>

#include "worker/data.h"

namespace worker {

/// Images of the built-in templates, drawn afresh for every step: a run never sees one twice.
std::shared_ptr<ImageSource> open_templates_source(const sweeps::DataSpec& spec, const DataNeeds& needs);

}  // namespace worker
