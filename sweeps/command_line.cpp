#include "sweeps/command_line.h"

#include <algorithm>
#include <array>
#include <stdexcept>

namespace sweeps {
namespace {

constexpr std::array<std::string_view, 10> kPlaceholders = {
    "lr", "wd", "init_std", "seed", "steps", "config", "checkpoint_dir", "attempt", "metrics", "target"};

[[noreturn]] void refuse_brace(std::string_view word, char brace) {
  throw std::invalid_argument("\"" + std::string(word) + "\" has a " + brace +
                              " without its partner; write " + brace + brace + " for a plain one");
}

[[noreturn]] void refuse_name(std::string_view name) {
  std::string known;
  for (const auto one : kPlaceholders) known.append(known.empty() ? "{" : ", {").append(one).append("}");
  throw std::invalid_argument("unknown placeholder {" + std::string(name) + "}; known: " + known +
                              "; write {{ and }} for plain braces");
}

}  // namespace

std::span<const std::string_view> placeholders() { return kPlaceholders; }

std::string expand(std::string_view word, const std::function<std::string(std::string_view)>& value) {
  std::string result;
  for (std::size_t i = 0; i < word.size(); ++i) {
    const char c = word[i];
    if (c != '{' && c != '}') {
      result += c;
    } else if (i + 1 < word.size() && word[i + 1] == c) {
      result += c;
      ++i;
    } else if (const auto end = word.find_first_of("{}", i + 1);
               c == '{' && end != std::string_view::npos && word[end] == '}') {
      const auto name = word.substr(i + 1, end - i - 1);
      if (std::ranges::find(kPlaceholders, name) == kPlaceholders.end()) refuse_name(name);
      result += value(name);
      i = end;
    } else {
      refuse_brace(word, c);
    }
  }
  return result;
}

}  // namespace sweeps
