// doctor, recover, ownership and edited studies, as a person meets them.
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>

#include <nlohmann/json.hpp>

#include "db/query.h"
#include "db/sqlite.h"
#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

using test::Command;
using test::tuneonce;
namespace fs = std::filesystem;

namespace {

std::int64_t count(const fs::path& database, const std::string& what) {
  return std::get<std::int64_t>(db::run_query(database, "SELECT count(*) FROM " + what).rows.at(0).at(0));
}

/// A 5 x 5 grid without targets.
std::string grid_study(const std::string& lrs = "[1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]") {
  return test::study_head() + R"([space]
lr = { values = )" + lrs + R"( }
wd = { values = [0.025, 0.05, 0.1, 0.2, 0.4] }
[search]
method = "grid"
extensions = 0
early_stopping = false
)";
}

void write_study(const fs::path& folder, const std::string& text) { std::ofstream(folder / "small.toml") << text; }
std::string replaced(std::string text, const std::string& what, const std::string& with) {
  REQUIRE(text.find(what) != std::string::npos);
  return text.replace(text.find(what), what.size(), with);
}

std::vector<std::string> check_names(const std::string& json) {
  std::vector<std::string> names;
  for (const auto& row : nlohmann::json::parse(json)) names.push_back(row.at("check"));
  return names;
}

}  // namespace

TEST_CASE("doctor finds everything that a run needs, and a database sound", "[orchestrator][doctor]") {
  const TemporaryFolder folder;
  write_study(folder.path(), grid_study());
  tuneonce(folder.path(), {"run", "small.toml"});
  const auto ended = tuneonce(folder.path(), {"doctor", "small.db", "--json"});
  INFO(ended.out << ended.err);
  CHECK(ended.code == 0);
  const auto names = check_names(ended.out);
  for (const char* name : {"tuneonce", "worker", "command", "cores", "GPU", "SQLite", "disk", "locks", "database", "schema",
                           "owner"})
    CHECK(std::count(names.begin(), names.end(), name) >= 1);
  CHECK_THAT(ended.out, ContainsSubstring("25 trials"));
}

TEST_CASE("doctor names what is missing and ends with code 6", "[orchestrator][doctor]") {
  const TemporaryFolder folder;
  const auto worker = tuneonce(folder.path(), {"doctor"}, {{"TUNEONCE_WORKER", "/nowhere/worker"}});
  CHECK(worker.code == 6);
  CHECK_THAT(worker.out, ContainsSubstring("/nowhere/worker"));
  const auto mute = tuneonce(folder.path(), {"doctor"}, {{"TUNEONCE_WORKER", "/bin/true"}});
  CHECK(mute.code == 6);
  CHECK_THAT(mute.out, ContainsSubstring("did not begin with a hello"));
  const auto command = tuneonce(folder.path(), {"doctor"}, {{"TUNEONCE_COMMAND_WORKER", "/bin/true"}});
  CHECK(command.code == 6);
  CHECK_THAT(command.out, ContainsSubstring("/bin/true: did not begin with a hello"));
  CHECK(fs::is_empty(folder.path()) == false);  // only what the tests printed
  CHECK_FALSE(fs::exists(folder / "small.db"));
}

TEST_CASE("a database on a file system that machines share is warned of", "[orchestrator][doctor]") {
  const TemporaryFolder folder;
  write_study(folder.path(), grid_study());
  const Command::Environment nfs{{"LD_PRELOAD", TUNEONCE_FAULT_SHIM},
                                 {"TUNEONCE_FAULT", "who=tuneonce statfs=6969"}};
  const auto run = tuneonce(folder.path(), {"run", "small.toml"}, nfs);
  CHECK(run.code == 0);
  CHECK_THAT(run.err, ContainsSubstring("warning: it is on NFS; keep it on a local disk"));
  const auto doctor = tuneonce(folder.path(), {"doctor", "small.db"}, nfs);
  CHECK(doctor.code == 0);
  CHECK_THAT(doctor.out, ContainsSubstring("is on NFS: keep the database on a local disk"));
  CHECK_THAT(tuneonce(folder.path(), {"doctor", "small.db"}).out, !ContainsSubstring("NFS"));
}

TEST_CASE("a damaged database ends run and doctor with code 6, untouched, and recover saves its rows",
          "[orchestrator][recover]") {
  const TemporaryFolder folder;
  write_study(folder.path(), grid_study());
  REQUIRE(tuneonce(folder.path(), {"run", "small.toml"}).code != 2);
  auto bytes = test::bytes(folder / "small.db");
  for (std::size_t i = 0; i < 100; ++i) bytes[i] = '\x5a';
  std::ofstream(folder / "small.db", std::ios::binary) << bytes;
  const auto run = tuneonce(folder.path(), {"run", "small.toml"});
  CHECK(run.code == 6);
  CHECK_THAT(run.err, ContainsSubstring("tuneonce recover small.db --out small.recovered.db"));
  CHECK(tuneonce(folder.path(), {"doctor", "small.db"}).code == 6);
  CHECK(tuneonce(folder.path(), {"recover", "small.db", "--out", "small.toml"}).code == 2);
  const auto saved = tuneonce(folder.path(), {"recover", "small.db", "--out", "small.recovered.db", "--json"});
  INFO(saved.err);
  CHECK(saved.code == 0);
  CHECK(nlohmann::json::parse(saved.out).size() > 5);
  CHECK(test::bytes(folder / "small.db") == bytes);
  CHECK(count(folder / "small.recovered.db", "results WHERE state = 'complete'") == 25);
  const auto again = tuneonce(folder.path(), {"run", "small.toml", "--db", "small.recovered.db"});
  INFO(again.err);
  CHECK(again.code != 6);
  CHECK(count(folder / "small.recovered.db", "attempt") == 25);
}

TEST_CASE("thirty-two runs started at once on a path that does not exist: one owner, the others are told who",
          "[orchestrator][owner][slow]") {
  const TemporaryFolder folder;
  write_study(folder.path(), grid_study());
  std::vector<std::unique_ptr<Command>> runs;
  for (int i = 0; i < 32; ++i)
    runs.push_back(std::make_unique<Command>(folder.path(), std::vector<std::string>{"run", "small.toml", "-j", "1"},
                                             Command::Environment{{"TUNEONCE_FAKE", "sleep_ms=1000"}}));
  int owners = 0, refused = 0;
  for (auto& run : runs) {
    const auto pid = std::to_string(run->pid());
    const auto ended = run->wait(300);
    INFO(ended.err);
    if (ended.code != 5) {
      ++owners;
      CHECK(count(folder / "small.db", "run WHERE pid = " + pid) == 1);
    } else {
      ++refused;
      CHECK_THAT(ended.err, ContainsSubstring("pid ") && ContainsSubstring(" on "));
    }
  }
  CHECK(owners == 1);
  CHECK(refused == 31);
  CHECK(count(folder / "small.db", "attempt") == 25);
  CHECK(count(folder / "small.db", "run") == 1);
  CHECK(tuneonce(folder.path(), {"doctor", "small.db"}).code == 0);
}

TEST_CASE("an owner that was stopped while another took over writes nothing more", "[orchestrator][owner]") {
  const TemporaryFolder folder;
  write_study(folder.path(), grid_study());
  Command stale(folder.path(), {"run", "small.toml", "-j", "2"}, {{"TUNEONCE_FAKE", "sleep_ms=300"}});
  REQUIRE(test::eventually([&] {
    return fs::exists(folder / "small.db") && fs::file_size(folder / "small.db") > 0 &&
           count(folder / "small.db", "attempt WHERE state = 2") >= 2;
  }));
  // Not within a transaction, which would keep everybody out.
  REQUIRE(test::eventually([&] {
    stale.signal(SIGSTOP);
    try {
      test::run_sql(folder / "small.db", "BEGIN IMMEDIATE; ROLLBACK");
      return true;
    } catch (const SQLite::Exception&) {
      stale.signal(SIGCONT);
      return false;
    }
  }));
  fs::remove(folder / "small.db.lock");  // by hand, say
  Command owner(folder.path(), {"run", "small.toml", "-j", "2"}, {{"TUNEONCE_FAKE", "sleep_ms=100"}});
  REQUIRE(test::eventually([&] { return count(folder / "small.db", "run") == 2; }));
  stale.signal(SIGCONT);
  const auto late = stale.wait();
  INFO(late.err);
  CHECK(late.code == 5);
  CHECK_THAT(late.err, ContainsSubstring("pid " + std::to_string(owner.pid())));
  owner.wait();
  CHECK(count(folder / "small.db", "results WHERE state = 'complete'") == 25);
  CHECK(count(folder / "small.db", "(SELECT 1 FROM attempt WHERE state = 2 GROUP BY trial_id HAVING count(*) > 1)") == 0);
  CHECK(count(folder / "small.db", "attempt WHERE state = 1") == 0);
  CHECK(tuneonce(folder.path(), {"doctor", "small.db"}).code == 0);
}

TEST_CASE("an edit that gives finished trials another meaning is refused with the list, and nothing is written",
          "[orchestrator][edit]") {
  const TemporaryFolder folder;
  const auto original = grid_study();
  write_study(folder.path(), original);
  tuneonce(folder.path(), {"run", "small.toml"});
  REQUIRE(count(folder / "small.db", "attempt") == 25);
  for (const auto& [what, with, named] :
       {std::tuple{"steps = 40", "steps = 60", "train.steps: 40 -> 60"},
        std::tuple{"width = 64", "width = 128", "model.width: 64 -> 128"}, std::tuple{"seed = 1", "seed = 2", "seed: 1 -> 2"},
        std::tuple{"source = \"teacher\"", "source = \"teacher\"\nteacher_seed = 9", "data.teacher_seed: "}}) {
    INFO(with);
    write_study(folder.path(), replaced(original, what, with));
    const auto ended = tuneonce(folder.path(), {"run", "small.toml"});
    INFO(ended.err);
    CHECK(ended.code == 2);
    CHECK_THAT(ended.err, ContainsSubstring(named) && ContainsSubstring("25 finished trials") &&
                              ContainsSubstring("--accept-change"));
    CHECK(count(folder / "small.db", "study") == 1);
    CHECK(count(folder / "small.db", "trial") == 25);
  }
  write_study(folder.path(), replaced(original, "steps = 40", "steps = 60"));
  CHECK(tuneonce(folder.path(), {"run", "small.toml", "--accept-change"}).code != 2);
  CHECK(count(folder / "small.db", "attempt") == 50);
}

TEST_CASE("a sixth LR of a 5 x 5 grid is five new trials and nothing else", "[orchestrator][edit]") {
  const TemporaryFolder folder;
  write_study(folder.path(), grid_study());
  tuneonce(folder.path(), {"run", "small.toml"});
  write_study(folder.path(), grid_study("[1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]"));
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"});
  CHECK(ended.code != 2);
  CHECK_THAT(ended.err, ContainsSubstring("space.lr"));
  CHECK(count(folder / "small.db", "trial") == 30);
  CHECK(count(folder / "small.db", "attempt") == 30);
  CHECK(count(folder / "small.db", "attempt JOIN trial ON trial.id = trial_id WHERE run_id = 2 AND lr = 3.2e-2") == 5);
}

TEST_CASE("targets, retries, resources, another worker program and another number of workers change no trial",
          "[orchestrator][edit]") {
  const TemporaryFolder folder;
  write_study(folder.path(), grid_study());
  tuneonce(folder.path(), {"run", "small.toml", "-j", "1"});
  fs::copy_file(TUNEONCE_FAKE_WORKER, folder / "another-worker");
  write_study(folder.path(), grid_study() + R"([[target]]
name = "8e2a"
moe = "8e2a"
[retry]
crash = 5
[resources]
workers_per_device = 2
)");
  const auto ended =
      tuneonce(folder.path(), {"run", "small.toml", "-j", "3"}, {{"TUNEONCE_WORKER", (folder / "another-worker").string()}});
  INFO(ended.err);
  CHECK(ended.code != 2);
  CHECK(count(folder / "small.db", "attempt WHERE run_id = 1") == 25);
  CHECK(count(folder / "small.db", "attempt JOIN trial ON trial.id = trial_id WHERE run_id = 2 AND target IS NULL") == 0);
  CHECK(count(folder / "small.db", "attempt WHERE run_id = 2") >= 1);
  CHECK(count(folder / "small.db", "run WHERE length(worker_hash) = 32 AND length(program_hash) = 32") == 2);
}

TEST_CASE("an Optuna storage is exported to a new file only", "[orchestrator][optuna]") {
  const TemporaryFolder folder;
  write_study(folder.path(), grid_study());
  tuneonce(folder.path(), {"run", "small.toml"});
  CHECK(tuneonce(folder.path(), {"export", "optuna", "small.db", "--out", "o.db"}).code == 0);
  const auto before = test::bytes(folder / "o.db");
  CHECK(tuneonce(folder.path(), {"export", "optuna", "small.db", "--out", "o.db"}).code == 2);
  CHECK(test::bytes(folder / "o.db") == before);
  CHECK(tuneonce(folder.path(), {"export", "optuna", "small.db", "--out", "none/o.db"}).code == 6);
}
