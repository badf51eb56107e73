#include "worker/data_text.h"

#include <algorithm>
#include <filesystem>

#include "worker/data_windows.h"
#include "worker/mapped_file.h"

namespace worker {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kVocab = 256;

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\n") == std::string_view::npos; }

/// Length of the first document of `text`, its separator (all blank lines after it) included.
std::size_t first_document(std::string_view text) {
  bool has_words = false, separated = false;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find_first_of("\n\f", at), text.size() - 1);
    const bool blank = is_blank(text.substr(at, end + 1 - at)) || text.substr(at, end + 1 - at) == "\f";
    if (separated && !blank) return at;
    has_words |= !blank;
    separated |= has_words && (blank || text[end] == '\f');
    at = end + 1;
  }
  return text.size();
}

std::span<const std::uint8_t> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::span<const std::uint8_t> words_of(std::string_view document) {
  const auto last = document.find_last_not_of(" \t\r\n\f");
  return as_bytes(document.substr(0, last == std::string_view::npos ? 0 : last + 1));
}

std::vector<fs::path> text_files(const fs::path& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::exists(status)) throw UserError("data.path: " + path.string() + " does not exist");
  if (!fs::is_directory(status)) return {path};
  std::vector<fs::path> files;
  for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error)) {
    const bool hidden = entry->path().filename().string().starts_with('.');
    if (hidden && entry->is_directory()) entry.disable_recursion_pending();
    if (!hidden && entry->is_regular_file()) files.push_back(entry->path());
  }
  if (error) throw UserError("cannot read " + path.string() + ": " + error.message());
  if (files.empty()) throw UserError("data.path: no files in " + path.string());
  std::sort(files.begin(), files.end());
  return files;
}

void refuse_empty(const TextParts& parts, const std::string& path) {
  const std::string_view some = parts.train.empty() ? parts.holdout : parts.train;
  if (some.empty()) throw UserError(path + ": the text is empty");
  const auto only = some.front();
  for (const std::string_view part : {std::string_view(parts.train), std::string_view(parts.holdout)}) {
    if (part.find_first_not_of(only) != std::string_view::npos) return;
  }
  throw UserError(path + ": the text is one byte repeated (" +
                  std::to_string(static_cast<unsigned char>(only)) + "); there is nothing to learn");
}

class TextSource : public WindowSource {
 public:
  TextSource(const sweeps::DataSpec& spec, const DataNeeds& needs) {
    const auto files = text_files(spec.path);
    std::string contents;  // fingerprint of every file, so that moving a boundary shows
    for (const auto& file : files) {
      const MappedFile mapped(file);
      const auto bytes = mapped.bytes();
      contents += fingerprint_of(bytes);
      split_documents({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, spec.holdout, parts_);
    }
    refuse_empty(parts_, spec.path);
    facts_.fingerprint = fingerprint_of(as_bytes(contents));
    facts_.description = "text, " + std::to_string(files.size()) +
                         (files.size() == 1 ? " file, " : " files, ") + std::to_string(parts_.num_documents) +
                         " documents";
    if (parts_.num_documents < 2) {
      throw UserError(spec.path +
                      ": the text is one document, so none can be held out; separate its documents by "
                      "blank lines");
    }
    set_tokens(as_bytes(parts_.train), as_bytes(parts_.holdout), needs, spec.path,
               "raise data.holdout or lower train.eval.tokens");
  }

 private:
  TextParts parts_;
};

}  // namespace

void split_documents(std::string_view text, double holdout, TextParts& parts) {
  while (!text.empty()) {
    const std::string_view document = text.substr(0, first_document(text));
    text.remove_prefix(document.size());
    if (is_blank(document) && document.find('\f') == std::string_view::npos) continue;
    (is_held_out(words_of(document), holdout) ? parts.holdout : parts.train).append(document);
    ++parts.num_documents;
  }
}

std::shared_ptr<TokenSource> open_text_source(const sweeps::DataSpec& spec, const DataNeeds& needs) {
  if (spec.path.empty()) throw UserError("data.path is missing: source = \"text\" needs a file or a folder");
  if (needs.vocab < kVocab) {
    throw UserError("model.vocab is " + std::to_string(needs.vocab) +
                    ", but text has bytes up to 255; use vocab = 256");
  }
  return std::make_shared<TextSource>(spec, needs);
}

}  // namespace worker
