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
  int num_kills = 0;
  for (const char* width :
       {"2", "1", "8", "2", "1", "8"}) {  // how many train at once changes no digit either
    Command run(broken.path(), {"run", "small.toml", "-j", width, "--checkpoint-every", "0.02"}, kRealWorker);
    if (!test::eventually([&] { return run.has_ended() || !busy_workers(broken / "small.db").empty(); }))
      break;
    ::usleep(std::uniform_int_distribution<useconds_t>(20'000, 400'000)(generator));
    const auto busy = busy_workers(broken / "small.db");
    if (run.has_ended() || busy.empty()) continue;
    const bool workers_only = ++num_kills % 3 == 0;
    if (workers_only)
      for (const auto pid : busy) ::kill(pid, SIGKILL);
    else
      run.signal(SIGKILL);
    if (workers_only) ::usleep(200'000);
  }
  CHECK(num_kills >= 3);
  CHECK(std::get<std::int64_t>(
            db::run_query(broken / "small.db", "SELECT count(*) FROM attempt WHERE first_step > 0")
                .rows[0][0]) > 0);
  const auto ended = test::tuneonce(broken.path(), {"run", "small.toml"}, kRealWorker);
  INFO(ended.err);
  CHECK(ended.code == whole.code);
  CHECK(ended.out == whole.out);
  CHECK(test::results(broken.path()) == test::results(unbroken.path()));
}
