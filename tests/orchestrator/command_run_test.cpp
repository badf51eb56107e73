// `tuneonce run` of a study whose trials a program of the user's trains.
#include <csignal>
#include <fstream>

#include <nlohmann/json.hpp>

#include "db/query.h"
#include "db/sqlite.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

using test::Command;
using test::tuneonce;
namespace fs = std::filesystem;

namespace {

/// A trainer without a model: a skewed bowl around LR 2^-8.3 and WD 2^-3.3. Its first attempt at the lowest
/// WD breaks down at half of its steps, the next one wants to find what that left. SLOW makes it take its
/// time.
constexpr const char* kTrainer = R"(
import json, math, os, pathlib, sys, time
config = json.load(open(os.environ["TUNEONCE_CONFIG"]))
assert float(sys.argv[1]) == config["base"]["lr"]
saved = pathlib.Path(config["checkpoint_dir"], "half")
u = math.log2(config["base"]["lr"]) + 8.3
v = math.log2(config["base"]["wd"]) + 3.3
loss = 3 + 0.02 * (math.exp(0.3 * u) - 1 - 0.3 * u) / 0.09 + 0.006 * v * v
if config["shape"]["num_experts"]:
    loss -= 0.2
    assert config["groups"]["expert_up"]["lr"] > 0
    assert config["target"] == "8e2a"
if os.environ.get("SLOW"):
    time.sleep(0.3)
for step in range(config["steps"] // 2, config["steps"] + 1, config["steps"] // 2):
    print(json.dumps({"step": step, "val_loss": loss + (config["steps"] - step) / config["steps"]}))
    if config["base"]["wd"] < 0.06 and config["attempt"] == 1 and config["role"] == "proxy":
        saved.write_text("half")
        sys.exit(1)
if config["base"]["wd"] < 0.06 and config["role"] == "proxy" and not os.environ.get("SLOW"):
    sys.exit(0 if saved.read_text() == "half" else 64)
)";

constexpr const char* kStudy = R"(schema = 1
name = "own"
[model]
family = "command"
command = ["python3", "trainer.py", "{lr}"]
width = 64
depth = 2
head_size = 16
context = 32
[train]
steps = 40
[space]
lr = { min = 8e-4, max = 1.28e-2, count = 5 }
wd = { min = 0.05, max = 0.2, count = 3 }
[[target]]
name = "8e2a"
moe = "8e2a"
drift = true
[drift]
tolerance = "0.5%"
[retry]
backoff = "10ms"
)";

void write_study(const TemporaryFolder& folder) {
  folder.write("trainer.py", kTrainer);
  folder.write("own.toml", kStudy);
}

std::int64_t count(const fs::path& database, const std::string& what) {
  return std::get<std::int64_t>(db::run_query(database, "SELECT count(*) FROM " + what).rows.at(0).at(0));
}

std::string results(const TemporaryFolder& folder) {
  const auto ended = tuneonce(
      folder.path(),
      {"query", "SELECT name, state, loss, steps FROM results ORDER BY name", "own.db", "--format", "csv"});
  REQUIRE(ended.code == 0);
  return ended.out;
}

const Command::Environment kPlain = {{"TUNEONCE_WORKER", "/nonexistent"}};  // a command study needs none

}  // namespace

TEST_CASE("a study with a trainer of one's own gets an optimum, a target, a verdict and a report",
          "[orchestrator][command]") {
  const TemporaryFolder folder;
  write_study(folder);
  const auto ended = Command(folder.path(), {"run", "own.toml", "-j", "2"}, kPlain).wait(300);
  INFO(ended.out + ended.err);
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("LR*") && ContainsSubstring("PASS") && ContainsSubstring("8e2a"));
  CHECK(fs::exists(folder / "own.html"));
  CHECK(count(folder / "own.db", "results WHERE state = 'complete'") == count(folder / "own.db", "trial"));
  CHECK(count(folder / "own.db", "results WHERE role = 'proxy' AND wd < 0.06 AND attempts = 2") == 5);
  CHECK(count(folder / "own.db", "target") == 1);
  const auto fit = nlohmann::json::parse(tuneonce(folder.path(), {"fit", "own.db", "--json"}).out);
  CHECK_THAT(std::log2(fit[0]["lr"].get<double>()), WithinAbs(-8.3, 0.2));
  // What attempts leave for each other goes with their trial.
  CHECK(fs::is_empty(folder / "own.db.d" / "checkpoints"));
  const auto log = tuneonce(folder.path(), {"logs", "1", "own.db"});
  CHECK_THAT(log.out,
             ContainsSubstring("tuneonce: runs python3 trainer.py ") && ContainsSubstring("\"val_loss\""));
}

TEST_CASE("a command study that was stopped goes on to the same results", "[orchestrator][command]") {
  const TemporaryFolder unbroken, folder;
  for (const auto* one : {&unbroken, &folder}) write_study(*one);
  Command::Environment slow = kPlain;
  slow["SLOW"] = "1";
  REQUIRE(Command(unbroken.path(), {"run", "own.toml", "-j", "2"}, kPlain).wait(300).code == 0);
  {
    Command run(folder.path(), {"run", "own.toml", "-j", "2"}, slow);
    REQUIRE(test::eventually(
        [&] {
          try {
            return count(folder / "own.db", "trial WHERE state = 2") >= 2;
          } catch (const db::StoreError&) {
            return false;
          }
        },
        120));
    run.signal(SIGTERM);
    const auto ended = run.wait(120);
    CHECK(ended.code == 143);
  }
  CHECK(count(folder / "own.db", "trial WHERE state = 1") == 0);
  const auto ended = Command(folder.path(), {"run", "own.toml", "-j", "2"}, slow).wait(300);
  INFO(ended.out + ended.err);
  CHECK(ended.code == 0);
  CHECK(results(folder) == results(unbroken));
}

TEST_CASE("plan shows a command study without times, checks refuse it", "[orchestrator][command]") {
  const TemporaryFolder folder;
  write_study(folder);
  const auto plan = Command(folder.path(), {"plan", "own.toml"}, kPlain).wait();
  INFO(plan.err);
  CHECK(plan.code == 0);
  CHECK_THAT(plan.out, ContainsSubstring("command = [\"python3\", \"trainer.py\", \"{lr}\"]") &&
                           ContainsSubstring("FLOPs/trial") && !ContainsSubstring("ms/step"));
  for (const char* check : {"coord", "init", "loss"}) {
    const auto ended = tuneonce(folder.path(), {"check", check, "own.toml"});
    CHECK(ended.code == 2);
    CHECK_THAT(ended.err, ContainsSubstring("own.toml: only language models can be checked"));
  }
}

TEST_CASE("a trainer that is nowhere is missed before anything is run or written",
          "[orchestrator][command]") {
  const TemporaryFolder folder;
  write_study(folder);
  const auto text = test::read_text(folder / "own.toml");
  for (const std::string program : {"./no-python", "no-python", "."}) {
    auto changed = text;
    folder.write("own.toml", changed.replace(changed.find("\"python3\""), 9, '"' + program + '"'));
    for (const char* command : {"plan", "run"}) {
      const auto ended = Command(folder.path(), {command, "own.toml"}, kPlain).wait();
      INFO(program << ": " << ended.err);
      CHECK(ended.code == 2);
      CHECK_THAT(ended.err, ContainsSubstring("own.toml: [model] command: there is no program " + program));
    }
  }
  CHECK_FALSE(fs::exists(folder / "own.db"));
}

TEST_CASE("a trainer that stops early, or heeds nothing it is given, is told of", "[orchestrator][command]") {
  const TemporaryFolder folder;
  write_study(folder);
  folder.write("trainer.py", R"(print('{"step": 20, "val_loss": 3.5}'))");
  auto study = test::read_text(folder / "own.toml");
  folder.write("own.toml", study.substr(0, study.find("[[target]]")));
  const auto ended = Command(folder.path(), {"run", "own.toml"}, kPlain).wait(120);
  CHECK_THAT(ended.err, ContainsSubstring("ended after step 20 of 40"));
  CHECK(ended.err.find("ended after step") ==
        ended.err.rfind("ended after step"));  // once, not for every trial
  CHECK_THAT(ended.out, ContainsSubstring("every loss is 3.5 whatever the LR"));
  CHECK(count(folder / "own.db", "results WHERE steps != 20") == 0);
  CHECK(count(folder / "own.db", "curves WHERE metric = 'eval_loss' AND step != 20") == 0);
}
