// Data that cannot be trained on, through both programs: exit code 2, one clear line, nothing written.
#include <fstream>
#include <set>

#include <fmt/format.h>

#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

namespace fs = std::filesystem;

namespace {

/// Runs a study of `data` with a model of `context` tokens (vocabulary 100 for token files).
test::Ended run_with(const fs::path& folder, const std::string& source, const std::string& data,
                     int context) {
  std::ofstream(folder / "data.bin", std::ios::binary) << data;
  const std::string vocab = source == "tokens" ? "vocab = 100\n" : "";
  std::ofstream(folder / "small.toml") << fmt::format(R"(
schema = 1
name = "small"
[data]
source = "{}"
path = "data.bin"
[model]
width = 32
depth = 1
head_size = 16
context = {}
{}[train]
steps = 10
batch = 2
eval = {{ tokens = 4096 }}
[space]
lr = {{ min = 1e-3, max = 1e-2 }}
wd = {{ values = [0.1] }}
)",
                                                      source, context, vocab);
  return test::tuneonce(folder, {"run", "small.toml"}, {{"TUNEONCE_WORKER", TUNEONCE_REAL_WORKER}});
}

std::string documents(int count, const std::string& words = "the quick brown fox jumps over document ") {
  std::string text;
  for (int i = 0; i < count; ++i) text += fmt::format("{}{}\n\n", words, i);
  return text;
}

void check_refused(const std::string& source, const std::string& data, int context, const std::string& part) {
  const TemporaryFolder folder;
  const auto ended = run_with(folder.path(), source, data, context);
  INFO(ended.err);
  CHECK(ended.code == 2);
  CHECK_THAT(ended.err, ContainsSubstring("data.bin") && ContainsSubstring(part));
  std::set<std::string> left;
  for (const auto& entry : fs::directory_iterator(folder.path())) {
    const auto file = entry.path().filename().string();
    if (!file.starts_with("out-") && !file.starts_with("err-"))
      left.insert(file);  // the command's own output
  }
  CHECK(left == std::set<std::string>{"data.bin", "small.toml"});
}

}  // namespace

TEST_CASE("an empty text is refused and nothing is written", "[end_to_end][bad_input]") {
  check_refused("text", "", 16, "empty");
}

TEST_CASE("a text that is all one byte is refused and nothing is written", "[end_to_end][bad_input]") {
  check_refused("text", std::string(5000, 'a'), 16, "one byte");
}

TEST_CASE("a context longer than the text is refused and nothing is written", "[end_to_end][bad_input]") {
  check_refused("text", documents(40), 4096, "context");
}

TEST_CASE("a token file of odd length is refused and nothing is written", "[end_to_end][bad_input]") {
  check_refused("tokens", std::string(9001, '\1'), 16, "whole number");
}

TEST_CASE("token ids beyond the vocabulary are refused and nothing is written", "[end_to_end][bad_input]") {
  std::string tokens;
  for (int i = 0; i < 5000; ++i) tokens += {static_cast<char>(i % 120), '\0'};
  check_refused("tokens", tokens, 16, "vocab");
}
