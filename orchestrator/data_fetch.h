#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace orchestrator {

/// `tuneonce data fetch NAME`: corpora that Debian packages carry, unpacked without root and without the
/// services the packages would start. gcide (dict-gcide): a dictionary as one text file. fashion-mnist
/// (dataset-fashion-mnist): 60,000 and 10,000 grey images of clothes, 28x28, as idx files.

/// GCIDE as plain text: one document per headword, all its senses together, paragraphs
/// on one line each, documents separated by a blank line; source tags and documents under 40 bytes dropped.
std::string clean_gcide(std::string_view dictionary);

struct Corpus {
  std::filesystem::path folder;
  std::uintmax_t bytes = 0;
  bool fetched = false;  // false: it was there already
};

/// $XDG_CACHE_HOME/tuneonce, or ~/.cache/tuneonce.
std::filesystem::path corpus_cache();

/// Fetches a corpus into `cache`/name unless it is there already. Throws std::invalid_argument for an unknown
/// name, std::runtime_error with what failed and what would help: no apt-get, no network, a full disk.
Corpus fetch_corpus(std::string_view name, const std::filesystem::path& cache);

}  // namespace orchestrator
