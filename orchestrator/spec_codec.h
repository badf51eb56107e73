#pragma once

#include "db/reader.h"

namespace orchestrator {

/// Specs as the JSON that `tuneonce-worker --trial` reads.
db::SpecCodec spec_codec();

}  // namespace orchestrator
