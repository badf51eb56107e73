// examples/own_trainer as a person runs it, with the Python that tests/python_env.sh finds.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

namespace fs = std::filesystem;
using test::Command;
using test::tuneonce;

namespace {

/// A Python that can import torch.
std::string python_with_torch() {
  std::FILE* pipe = ::popen(TUNEONCE_SOURCE_DIR "/tests/python_env.sh torch", "r");
  REQUIRE(pipe);
  std::string path;
  for (int c; (c = std::fgetc(pipe)) != EOF && c != '\n';) path += static_cast<char>(c);
  REQUIRE(::pclose(pipe) == 0);
  return path;
}

}  // namespace

TEST_CASE("the example of one's own trainer is tuned and transferred with PyTorch",
          "[orchestrator][command][slow]") {
  const TemporaryFolder folder;
  fs::copy(fs::path(TUNEONCE_SOURCE_DIR) / "examples/own_trainer", folder / "own_trainer");
  const auto python = folder.write("bin/python3", "#!/bin/sh\nexec '" + python_with_torch() + "' \"$@\"\n");
  fs::permissions(python, fs::perms::owner_all);
  const auto ended = Command(folder.path(), {"run", "own_trainer/study.toml"},
                             {{"PATH", (folder / "bin").string() + ":" + std::getenv("PATH")},
                              {"TUNEONCE_WORKER", "/nonexistent"}})
                         .wait(1500);
  INFO(ended.out + ended.err);
  CHECK((ended.code == 0 || ended.code == 4));
  CHECK_THAT(ended.out, ContainsSubstring("LR*") && ContainsSubstring("4e2a1s-wide"));
  CHECK(fs::exists(folder / "own-trainer.html"));
  const auto table = tuneonce(folder.path(), {"results", "own-trainer.db", "--json"});
  int num_targets = 0;
  double best_proxy = 100;
  const auto rows = nlohmann::json::parse(table.out);
  for (const auto& row : rows) {
    INFO(row.dump());
    const bool is_proxy = row["role"] == "proxy";
    REQUIRE((row["state"] == "complete" || (is_proxy && row["state"] == "pruned")));
    if (is_proxy && row["state"] == "complete") best_proxy = std::min(best_proxy, row["loss"].get<double>());
  }
  for (const auto& row : rows) {
    if (row["role"] != "target") continue;
    ++num_targets;
    // Eight bits are 5.5 nats; a model that has learnt nothing but letter frequencies has some 3.3.
    CHECK(row["loss"].get<double>() < 3.0);
    CHECK(row["loss"].get<double>() < best_proxy + 0.2);
  }
  CHECK(num_targets == 2);
}
