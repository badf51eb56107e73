#include "worker/data.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "worker/data_images.h"
#include "worker/data_teacher.h"
#include "worker/data_templates.h"
#include "worker/data_text.h"
#include "worker/data_tokens.h"

namespace worker {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kKeptSources = 3;

void add_stamp(const fs::path& file, std::string& out) {
  std::error_code error;
  const auto size = fs::file_size(file, error);
  if (error) return;
  const auto time = fs::last_write_time(file, error).time_since_epoch().count();
  out += file.string() + ':' + std::to_string(size) + ':' + std::to_string(time) + ';';
}

/// Changes when a file under `path` does, as far as sizes and times tell.
std::string stamp(const fs::path& path) {
  std::string out;
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    add_stamp(path, out);
    return out;
  }
  std::vector<fs::path> files;
  for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error)) {
    files.push_back(entry->path());
  }
  std::sort(files.begin(), files.end());
  for (const auto& file : files) add_stamp(file, out);
  return out;
}

std::string source_key(const sweeps::DataSpec& spec, const DataNeeds& needs) {
  const char separator = '\0';
  std::string key = std::string(sweeps::name(spec.source)) + separator + spec.path + separator +
                    spec.validation_path + separator;
  for (const auto number :
       {spec.teacher_seed, static_cast<std::uint64_t>(needs.context), static_cast<std::uint64_t>(needs.vocab),
        static_cast<std::uint64_t>(needs.eval_tokens), static_cast<std::uint64_t>(needs.image_size),
        static_cast<std::uint64_t>(needs.channels)}) {
    key += std::to_string(number) + separator;
  }
  char holdout[32];
  std::snprintf(holdout, sizeof holdout, "%a", spec.holdout);
  key += holdout;
  if (!spec.path.empty()) key += separator + stamp(spec.path);
  if (!spec.validation_path.empty()) key += separator + stamp(spec.validation_path);
  return key;
}

std::shared_ptr<Source> make_source(const sweeps::DataSpec& spec, const DataNeeds& needs) {
  switch (spec.source) {
    case sweeps::DataSource::teacher: return open_teacher_source(spec, needs);
    case sweeps::DataSource::text: return open_text_source(spec, needs);
    case sweeps::DataSource::tokens: return open_tokens_source(spec, needs);
    case sweeps::DataSource::templates: return open_templates_source(spec, needs);
    case sweeps::DataSource::images: return open_images_source(spec, needs);
    case sweeps::DataSource::command:
      throw UserError("the data of family \"command\" is read by its own program");
  }
  throw std::logic_error("make_source: unknown DataSource");
}

std::shared_ptr<Source> open_any(const sweeps::DataSpec& spec, const DataNeeds& needs) {
  static std::vector<std::pair<std::string, std::shared_ptr<Source>>> kept;  // last used last
  if (needs.context < 1) throw UserError("model.context must be at least 1");
  const std::string key = source_key(spec, needs);
  auto found = std::find_if(kept.begin(), kept.end(), [&](const auto& entry) { return entry.first == key; });
  if (found == kept.end()) {
    if (kept.size() == kKeptSources) kept.erase(kept.begin());
    kept.emplace_back(key, make_source(spec, needs));
    found = kept.end() - 1;
  }
  std::rotate(found, found + 1, kept.end());
  const auto& source = kept.back().second;
  if (!spec.fingerprint.empty() && spec.fingerprint != source->facts().fingerprint) {
    throw UserError("the data is not what the study was planned with: fingerprint " +
                    source->facts().fingerprint + " instead of " + spec.fingerprint +
                    (spec.path.empty() ? "" : " (" + spec.path + ")"));
  }
  return source;
}

}  // namespace

std::shared_ptr<TokenSource> open_source(const sweeps::DataSpec& spec, const DataNeeds& needs) {
  if (sweeps::has_images(spec.source)) {
    throw UserError("source \"" + std::string(sweeps::name(spec.source)) +
                    "\" has images; a language model needs tokens");
  }
  return std::static_pointer_cast<TokenSource>(open_any(spec, needs));
}

std::shared_ptr<ImageSource> open_image_source(const sweeps::DataSpec& spec, const DataNeeds& needs) {
  if (!sweeps::has_images(spec.source)) {
    throw UserError("source \"" + std::string(sweeps::name(spec.source)) +
                    "\" has tokens; a diffusion model needs images");
  }
  if (needs.image_size < 1 || needs.channels < 1) {
    throw UserError("image_size and channels must be at least 1");
  }
  return std::static_pointer_cast<ImageSource>(open_any(spec, needs));
}

std::int64_t num_holdout_sequences(const DataNeeds& needs) {
  return std::max<std::int64_t>(1, needs.eval_tokens / needs.context);
}

std::uint64_t window_start(std::uint64_t seed, std::int64_t step, std::int64_t row, std::uint64_t count) {
  const std::int64_t place[2] = {step, row};
  const std::uint64_t hash = XXH3_64bits_withSeed(place, sizeof place, seed);
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(hash) * count) >> 64);
}

bool is_held_out(std::span<const std::uint8_t> content, double share) {
  return static_cast<double>(XXH3_64bits(content.data(), content.size()) >> 11) * 0x1p-53 < share;
}

std::string fingerprint_of(std::span<const std::uint8_t> bytes) {
  const auto hash = XXH3_128bits(bytes.data(), bytes.size());
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text;
}

}  // namespace worker
