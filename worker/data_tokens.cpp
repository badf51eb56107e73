#include "worker/data_tokens.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

namespace worker {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kHeaderBytes = 256 * sizeof(std::int32_t);
constexpr std::int32_t kMagic16 = 20240520, kMagic32 = 20240801;

[[noreturn]] void fail(const fs::path& file, const std::string& what) {
  throw UserError(file.string() + ": " + what);
}

template <class T>
TokenSpan whole_tokens(const fs::path& file, std::span<const std::uint8_t> bytes) {
  if (bytes.size() % sizeof(T) != 0) {
    fail(file, "a length of " + std::to_string(bytes.size()) + " bytes is not a whole number of " +
                   std::to_string(8 * sizeof(T)) + "-bit tokens");
  }
  return std::span(reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T));
}

TokenSpan parse(const fs::path& file, std::span<const std::uint8_t> bytes) {
  std::int32_t header[3] = {};  // magic, version, number of tokens
  if (bytes.size() >= sizeof header) std::memcpy(header, bytes.data(), sizeof header);
  if (header[0] != kMagic16 && header[0] != kMagic32) return whole_tokens<std::uint16_t>(file, bytes);
  if (bytes.size() < kHeaderBytes) fail(file, "cut off in its header of 256 numbers");
  const auto body = bytes.subspan(kHeaderBytes);
  const TokenSpan tokens = header[0] == kMagic16 ? whole_tokens<std::uint16_t>(file, body)
                                                 : whole_tokens<std::uint32_t>(file, body);
  if (header[2] != num_tokens(tokens)) {
    fail(file, "its header promises " + std::to_string(header[2]) + " tokens, the file holds " +
                   std::to_string(num_tokens(tokens)));
  }
  return tokens;
}

void refuse_beyond_vocab(const fs::path& file, const TokenSpan& tokens, std::int64_t vocab) {
  const std::int64_t highest = std::visit(
      [](const auto& span) { return static_cast<std::int64_t>(*std::max_element(span.begin(), span.end())); },
      tokens);
  if (highest >= vocab) {
    fail(file, "has token " + std::to_string(highest) + ", beyond model.vocab = " + std::to_string(vocab));
  }
}

class TokensSource : public WindowSource {
 public:
  TokensSource(const sweeps::DataSpec& spec, const DataNeeds& needs) {
    fs::path train = spec.path, validation = spec.validation_path;
    if (fs::is_directory(train)) {
      if (validation.empty() && fs::exists(train / "val.bin")) validation = train / "val.bin";
      train /= "train.bin";
    }
    if (!fs::exists(train)) throw UserError("data.path: " + train.string() + " does not exist");
    train_.emplace(train, needs.vocab);
    facts_.fingerprint = train_->fingerprint();
    facts_.description = "tokens, " + train.string();
    if (validation.empty()) {
      hold_out_tail(spec, needs);
      return;
    }
    validation_.emplace(validation, needs.vocab);
    if (validation_->fingerprint() == train_->fingerprint())
      fail(validation, "holds the tokens of the training file " + train.string() +
                           "; nothing would be held out: give another file, or none");
    const std::string both = facts_.fingerprint + validation_->fingerprint();
    facts_.fingerprint = fingerprint_of({reinterpret_cast<const std::uint8_t*>(both.data()), both.size()});
    facts_.description += " and " + validation.string();
    set_tokens(train_->tokens(), validation_->tokens(), needs, validation.string(),
               "lower train.eval.tokens or give a larger file");
  }

 private:
  void hold_out_tail(const sweeps::DataSpec& spec, const DataNeeds& needs) {
    facts_.description += ", held out by position: the last " + std::to_string(spec.holdout * 100) + " %";
    std::visit(
        [&](const auto& all) {
          const auto size = static_cast<double>(all.size());
          const auto tail = static_cast<std::size_t>(std::ceil(std::clamp(spec.holdout, 0.0, 1.0) * size));
          set_tokens(all.first(all.size() - tail), all.last(tail), needs, spec.path,
                     "raise data.holdout, lower train.eval.tokens, or give data.validation_path");
        },
        train_->tokens());
  }

  std::optional<TokenFile> train_;
  std::optional<TokenFile> validation_;
};

}  // namespace

TokenFile::TokenFile(const fs::path& file, std::int64_t vocab)
    : mapped_(file), tokens_(parse(file, mapped_.bytes())) {
  if (num_tokens(tokens_) == 0) fail(file, "has no tokens");
  refuse_beyond_vocab(file, tokens_, vocab);
}

std::shared_ptr<TokenSource> open_tokens_source(const sweeps::DataSpec& spec, const DataNeeds& needs) {
  if (spec.path.empty())
    throw UserError("data.path is missing: source = \"tokens\" needs a .bin file or a folder");
  return std::make_shared<TokensSource>(spec, needs);
}

}  // namespace worker
