#pragma once

#include <filesystem>

#include "sweeps/settings.h"
#include "sweeps/study.h"

namespace sweeps {

/// Whether [model] family is "command"; throws StudyError where it is none that is known.
bool has_command(const Section& root);

/// [model]: the shape of the dense proxy; of family "command" also what trains it, in `folder`. REQUIRES:
/// study.data.source is read (it may fix the vocabulary).
void read_model(const Section& root, const std::filesystem::path& folder, Study& study);

/// The rule that `key` names, or `otherwise`.
models::Parameterization read_rule(const Section& section, std::string_view key,
                                   models::Parameterization otherwise);

/// [[target]]: shapes to transfer to, the proxy's where they do not say otherwise; refused where the rule
/// refuses them; behind each its copies under the rules of [transfer] compare. REQUIRES: everything about the
/// proxy and the rule is read.
void read_targets(const Section& root, Study& study);

}  // namespace sweeps
