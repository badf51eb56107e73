#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "worker/data.h"

namespace worker {

/// Bytes of a text file, or of all files in a folder and its subfolders (hidden ones left out), in the order
/// of their paths. Vocabulary 256.
std::shared_ptr<TokenSource> open_text_source(const sweeps::DataSpec& spec, const DataNeeds& needs);

/// Both parts of a text, its documents in their order.
struct TextParts {
  std::string train;
  std::string holdout;
  std::int64_t num_documents = 0;
};
/// Adds one file's documents to `parts`. Documents are separated by a blank line or a form feed; the
/// separator stays with the document before it. Whether a document is held out depends on a hash of its text
/// alone, never on where it stands: equal documents fall on the same side.
void split_documents(std::string_view text, double holdout, TextParts& parts);

}  // namespace worker
