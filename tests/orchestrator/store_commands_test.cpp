// doctor, recover, ownership and edited studies, as a person meets them.
#include <algorithm>
#include <csignal>
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

#include "db/query.h"
#include "db/sqlite.h"
#include "tests/db/database.h"
#include "tests/support/catch.h"
#include "tests/support/invariants.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

using test::Command;
using test::DisturbedSweep;
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

/// A table of DisturbedSweep without its last two columns.
std::string without_curves(const std::string& table) {
  std::istringstream lines(table);
  std::string kept;
  for (std::string line; std::getline(lines, line);)
    kept += line.substr(0, line.rfind(',', line.rfind(',') - 1)) + '\n';
  return kept;
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
          "[orchestrator][recover][faults][F9]") {
  const std::string lost = GENERATE("header", "page", "log", "log, another is there");
  CAPTURE(lost);
  const DisturbedSweep sweep, other;
  const auto stop = [](const DisturbedSweep& some, int signal, int num_ended) {
    const auto run = some.start({.behaviour = "sleep_ms=50"});
    REQUIRE(test::eventually([&] { return some.num_ended() >= num_ended; }));
    run->signal(signal);
    run->wait();
  };
  const auto file = sweep.database();
  const std::string log = file.string() + "-wal";
  stop(sweep, SIGINT, 2);
  stop(sweep, SIGKILL, 8);
  REQUIRE(fs::file_size(log) > 0);
  if (lost != "log") test::run_sql(file, "SELECT 1 FROM trial");  // the log goes into the file
  auto bytes = test::bytes(file);
  if (lost == "header") std::fill_n(bytes.begin(), 100, '\x5a');
  if (lost == "page") {
    const auto root = sweep.numbers("SELECT rootpage FROM sqlite_master WHERE name = 'curve_chunk'").at(0);
    std::fill_n(bytes.begin() + (root - 1) * 4096, 4096, '\x5a');
  }
  if (lost == "log") fs::remove(log);
  auto complete = sweep.num_ended();
  if (lost == "log") {  // what SQLite itself finds without it
    fs::copy_file(file, sweep.file("plain.db"));
    SQLite::Database plain(sweep.file("plain.db").string(), SQLite::OPEN_READWRITE);
    complete = plain.execAndGet("SELECT count(*) FROM trial WHERE state = 2").getInt64();
  }
  REQUIRE(complete >= 2);
  for (const char* suffix : {"-wal", "-shm"}) fs::remove(file.string() + suffix);
  std::ofstream(file, std::ios::binary) << bytes;
  if (lost == "log, another is there") {
    stop(other, SIGKILL, 5);
    fs::copy_file(other.database().string() + "-wal", log);
  }
  const auto log_bytes = test::bytes(log);

  const auto run = sweep.run();
  INFO(run.err);
  CHECK(run.code == 6);
  CHECK_THAT(run.err, ContainsSubstring("tuneonce recover five.db --out five.recovered.db"));
  CHECK(sweep.command({"doctor", "five.db"}).code == 6);
  CHECK(sweep.command({"recover", "five.db", "--out", "five.toml"}).code == 2);
  const auto saved = sweep.command({"recover", "five.db", "--out", "five.recovered.db", "--json"});
  INFO(saved.err);
  CHECK(saved.code == 0);
  CHECK(nlohmann::json::parse(saved.out).size() > 5);
  CHECK(test::bytes(file) == bytes);
  CHECK(test::bytes(log) == log_bytes);
  const auto recovered = sweep.file("five.recovered.db");
  CHECK(count(recovered, "results WHERE state = 'complete'") == complete);
  CHECK(sweep.command({"run", "five.toml", "--db", "five.recovered.db"}).code == 0);
  CHECK(count(recovered, "(SELECT 1 FROM attempt WHERE state = 2 GROUP BY trial_id HAVING count(*) > 1)") ==
        0);
  // Curves of trials that had ended may have lain on the page that is lost.
  CHECK(without_curves(sweep.table("five.recovered.db")) == without_curves(test::undisturbed_table()));
}

TEST_CASE(
    "an edit that gives finished trials another meaning is refused with the list, and nothing is written",
    "[orchestrator][edit][faults][F20]") {
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

TEST_CASE("a sixth LR of a 5 x 5 grid is five new trials and nothing else",
          "[orchestrator][edit][faults][F20]") {
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

TEST_CASE("targets, retries, resources and another number of workers change no trial",
          "[orchestrator][edit][faults][F20]") {
  const TemporaryFolder folder;
  write_study(folder.path(), grid_study());
  tuneonce(folder.path(), {"run", "small.toml", "-j", "1"});
  write_study(folder.path(), grid_study() + R"([[target]]
name = "8e2a"
moe = "8e2a"
[retry]
crash = 5
[resources]
workers_per_device = 2
)");
  const auto ended = tuneonce(folder.path(), {"run", "small.toml", "-j", "3"});
  INFO(ended.err);
  CHECK(ended.code != 2);
  CHECK(count(folder / "small.db", "attempt WHERE run_id = 1") == 25);
  CHECK(count(folder / "small.db", "attempt JOIN trial ON trial.id = trial_id WHERE run_id = 2 AND target IS NULL") == 0);
  CHECK(count(folder / "small.db", "attempt WHERE run_id = 2") >= 1);
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
