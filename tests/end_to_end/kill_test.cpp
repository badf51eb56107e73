// The whole pipeline with the real worker, cut again and again.
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <random>

#include "db/query.h"
#include "db/sqlite.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

namespace fs = std::filesystem;
using test::Command;

namespace {

const Command::Environment kRealWorker = {{"TUNEONCE_WORKER", TUNEONCE_REAL_WORKER}};

void write_tiny_study(const fs::path& folder) {
  std::ofstream(folder / "small.toml") << R"(
schema = 1
name = "small"
[data]
source = "teacher"
[model]
width = 32
depth = 1
head_size = 16
context = 32
[train]
steps = 150
batch = 4
eval = { tokens = 2048, every = 0.5 }
[space]
lr = { min = 2e-3, max = 3.2e-2, count = 5 }
wd = { min = 0.05, max = 0.2, count = 3 }
[search]
extensions = 0
[[target]]
name = "4e2a"
moe = "4e2a"
)";
}

/// Pids of the workers that train now; none while there is no database.
std::vector<pid_t> busy_workers(const fs::path& database) {
  std::vector<pid_t> pids;
  try {
    for (const auto& row :
         db::run_query(database, "SELECT DISTINCT worker_pid FROM attempt WHERE state = 1").rows)
      pids.push_back(static_cast<pid_t>(std::get<std::int64_t>(row[0])));
  } catch (const db::StoreError&) {
    // The database is not there yet.
  }
  return pids;
}

}  // namespace

TEST_CASE(
    "killing orchestrator and workers in the middle leaves the results table the same to the last digit",
    "[end_to_end][slow]") {
  const TemporaryFolder unbroken, broken;
  write_tiny_study(unbroken.path());
  write_tiny_study(broken.path());
  const auto whole = test::tuneonce(unbroken.path(), {"run", "small.toml", "-j", "2"}, kRealWorker);
  INFO(whole.err);
  REQUIRE((whole.code == 0 || whole.code == 4));  // whether the optimum is bracketed is not the question

  std::mt19937 generator(20260122);
  for (int kill = 0; kill < 6; ++kill) {
    Command run(broken.path(), {"run", "small.toml", "-j", "2", "--checkpoint-every", "0.02"}, kRealWorker);
    if (!test::eventually([&] { return run.has_ended() || !busy_workers(broken / "small.db").empty(); }))
      break;
    ::usleep(std::uniform_int_distribution<useconds_t>(20'000, 400'000)(generator));
    if (run.has_ended()) break;
    if (kill % 3 == 2)
      for (const auto pid : busy_workers(broken / "small.db")) ::kill(pid, SIGKILL);
    else
      run.signal(SIGKILL);
    if (kill % 3 == 2) ::usleep(200'000);
  }
  const auto ended = test::tuneonce(broken.path(), {"run", "small.toml"}, kRealWorker);
  INFO(ended.err);
  CHECK(ended.code == whole.code);
  CHECK(ended.out == whole.out);
  CHECK(test::results(broken.path()) == test::results(unbroken.path()));
}
