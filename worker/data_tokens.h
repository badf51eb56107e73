#pragma once

#include <filesystem>
#include <memory>

#include "worker/data.h"
#include "worker/data_windows.h"
#include "worker/mapped_file.h"

namespace worker {

/// Token files, mapped: nanoGPT's raw uint16 .bin, or llm.c and modded-nanogpt .bin with a header of 256
/// int32 (magic 20240520: uint16 tokens, 20240801: uint32; version; number of tokens). `path`: a file, or a
/// folder with train.bin and, if it is there, val.bin. Held out: `validation_path`, else val.bin, else the
/// last `holdout` share of the file: tokens do not show where documents begin, so this split can only be by
/// position.
std::shared_ptr<TokenSource> open_tokens_source(const sweeps::DataSpec& spec, const DataNeeds& needs);

/// One token file. Throws UserError naming the file: odd length, wrong version or count in the header, empty,
/// ids that `vocab` does not have.
class TokenFile {
 public:
  TokenFile(const std::filesystem::path& file, std::int64_t vocab);
  const TokenSpan& tokens() const { return tokens_; }
  std::string fingerprint() const { return fingerprint_of(mapped_.bytes()); }

 private:
  MappedFile mapped_;
  TokenSpan tokens_;
};

}  // namespace worker
