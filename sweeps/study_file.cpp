#include "sweeps/study_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include <fmt/format.h>
#include <toml++/toml.h>

#include "sweeps/study_sections.h"
#include "sweeps/study_text.h"

namespace sweeps {
namespace {

Position position(const toml::source_region& region) {
  return {static_cast<int>(region.begin.line), static_cast<int>(region.begin.column)};
}

/// The parsed file as plain values, so that nothing else of this room needs toml++.
Setting plain(const toml::node& node) {
  Setting setting{position(node.source()), OtherValue{"a date or time"}};
  if (const auto* flag = node.as_boolean()) setting.value = flag->get();
  if (const auto* whole = node.as_integer()) setting.value = whole->get();
  if (const auto* decimal = node.as_floating_point()) setting.value = decimal->get();
  if (const auto* text = node.as_string()) setting.value = text->get();
  if (const auto* array = node.as_array()) {
    SettingList list;
    for (const auto& item : *array) list.push_back(plain(item));
    setting.value = std::move(list);
  }
  if (const auto* table = node.as_table()) {
    SettingTable entries;
    for (const auto& [key, value] : *table)
      entries.push_back({std::string(key.str()), position(key.source()), plain(value)});
    setting.value = std::move(entries);
  }
  return setting;
}

Setting parse(std::string_view text, const std::string& file) {
  try {
    return plain(toml::parse(text, file));
  } catch (const toml::parse_error& error) {
    throw StudyError(fmt::format("{}:{}:{}: {}", file, error.source().begin.line, error.source().begin.column,
                                 error.description()));
  }
}

}  // namespace

Study parse_study(std::string_view toml, const std::filesystem::path& file) {
  Study study = read_sections(parse(toml, file.string()), file.string(), file.parent_path());
  study.text = study_text(study);
  study.hash = fmt::format("{:016x}", derived_seed(0, study.text));
  return study;
}

Study load_study(const std::filesystem::path& file) {
  if (std::filesystem::is_directory(file))
    throw StudyError(fmt::format("{}: is a folder; name a study file", file.string()));
  std::ifstream in(file, std::ios::binary);
  if (!in)
    throw StudyError(
        fmt::format("{}: cannot be opened ({}); name a study file", file.string(), std::strerror(errno)));
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  if (text.starts_with("SQLite format 3"))
    throw StudyError(fmt::format("{}: is a database; name the study file", file.string()));
  return parse_study(text, file);
}

}  // namespace sweeps
