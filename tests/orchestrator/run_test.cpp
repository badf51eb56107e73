// `tuneonce run` from the study file to the exit code, with the fake worker.
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <random>

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
/// Trials that have ended so far; 0 while there is no database.
std::int64_t num_ended(const fs::path& database) {
  try {
    return count(database, "trial WHERE state IN (2, 3)");
  } catch (const db::StoreError&) {
    return 0;
  }
}

/// What an unbroken run of the same study comes to.
const std::string& unbroken_results() {
  static const std::string table = [] {
    const TemporaryFolder folder;
    test::write_study(folder.path());
    REQUIRE(tuneonce(folder.path(), {"run", "small.toml", "-j", "2"}).code == 0);
    return test::results(folder.path());
  }();
  return table;
}

std::vector<std::string> files(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto name = entry.path().filename().string();
    if (!name.starts_with("out-") && !name.starts_with("err-")) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}
using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("run goes from the study to a verdict and a report", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("LR*") && ContainsSubstring("PASS") &&
                            ContainsSubstring("report: small.html"));
  CHECK(fs::exists(folder / "small.html"));
  CHECK(count(folder / "small.db", "results WHERE state = 'complete'") ==
        count(folder / "small.db", "trial"));
  CHECK(count(folder / "small.db", "optimum") == 2);
  CHECK(count(folder / "small.db", "target") == 2);
  CHECK(count(folder / "small.db", "drift_check WHERE verdict = 0") == 1);
  CHECK(count(folder / "small.db", "target_group WHERE target = 'wide'") > 5);
}

TEST_CASE("a report made from the database alone shows the pictures, too", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"}, {{"TUNEONCE_FAKE", "samples=1"}});
  INFO(ended.err);
  CHECK(ended.code == 0);
  const auto page = test::read_text(folder / "small.html");
  CHECK_THAT(page, ContainsSubstring("data:image/png;base64,"));
  CHECK(tuneonce(folder.path(), {"report", "small.db", "--report", "again.html"}).code == 0);
  CHECK(test::read_text(folder / "again.html") == page);
}

TEST_CASE("running a finished study again trains nothing and says the same", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto first = tuneonce(folder.path(), {"run", "small.toml"});
  const auto attempts = count(folder / "small.db", "attempt");
  const auto second = tuneonce(folder.path(), {"run", "small.toml"});
  CHECK(second.code == first.code);
  CHECK(second.out == first.out);
  CHECK(count(folder / "small.db", "attempt") == attempts);
}

TEST_CASE("the results are the same at any number of workers", "[orchestrator][run]") {
  for (const char* workers : {"1", "5"}) {
    const TemporaryFolder folder;
    test::write_study(folder.path());
    REQUIRE(tuneonce(folder.path(), {"run", "small.toml", "-j", workers}).code == 0);
    CHECK(test::results(folder.path()) == unbroken_results());
  }
}

TEST_CASE("hopeless trials are stopped in time or not, the results are the same at any number of workers",
          "[orchestrator][run]") {
  // One worker trains low LRs first, with nothing to compare them with; of many at once some are stopped.
  std::string alone;
  std::int64_t num_stopped = 0;
  for (const auto& [workers, behaviour] :
       {std::pair{"1", "lag=8.5e-4"}, std::pair{"15", "lag=8.5e-4 wait_ms=20000"}}) {
    const TemporaryFolder folder;
    test::write_study(folder.path());
    const auto ended =
        tuneonce(folder.path(), {"run", "small.toml", "-j", workers}, {{"TUNEONCE_FAKE", behaviour}});
    INFO(ended.out + ended.err);
    CHECK(ended.code == 0);
    CHECK_THAT(ended.out, ContainsSubstring("stopped early and kept out of the fit"));
    CHECK_THAT(test::read_text(folder / "small.html"), ContainsSubstring("; 1 pruned"));
    num_stopped += count(folder / "small.db", "attempt WHERE state = 5");
    CHECK(count(folder / "small.db", "censored") == 3);
    CHECK(count(folder / "small.db", "results WHERE state = 'pruned' AND loss IS NULL AND steps = 20") == 3);
    if (alone.empty()) alone = test::results(folder.path());
    CHECK(test::results(folder.path()) == alone);
    const auto attempts = count(folder / "small.db", "attempt");
    const auto again = tuneonce(folder.path(), {"run", "small.toml"});
    CHECK(again.out == ended.out);
    CHECK(count(folder / "small.db", "attempt") == attempts);
    CHECK(test::results(folder.path()) == alone);
  }
  CHECK(num_stopped > 0);
}

TEST_CASE("early stopping can be turned off", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path(), "[search]\nearly_stopping = false\n");
  CHECK(tuneonce(folder.path(), {"run", "small.toml"}, {{"TUNEONCE_FAKE", "lag=8.5e-4"}}).code == 0);
  CHECK(count(folder / "small.db", "results WHERE state = 'complete'") ==
        count(folder / "small.db", "trial"));
}

TEST_CASE("branches give an optimum per horizon and its trend, in text, json, database and report",
          "[orchestrator][run][branches]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  auto text = test::read_text(folder / "small.toml");
  text.replace(text.find("batch = 4"), 9, "batch = 4\nbranches = [0.25, 0.5, 1.0]");
  std::ofstream(folder / "small.toml") << text;
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"});
  INFO(ended.out + ended.err);
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("octaves per doubling of the steps"));
  CHECK(count(folder / "small.db", "(SELECT name FROM branches GROUP BY name HAVING count(*) = 3)") == 15);
  CHECK(count(folder / "small.db", "optimum WHERE model IN ('proxy@0.25', 'proxy@0.5')") == 2);
  const auto fit = nlohmann::json::parse(tuneonce(folder.path(), {"fit", "--format", "json"}).out);
  REQUIRE(fit.size() == 4);  // proxy, two horizons, one target
  CHECK(fit[0]["model"] == "proxy");
  CHECK_THAT(fit[0]["trend"].get<double>(), WithinAbs(-0.2, 0.15));
  CHECK(fit[1]["model"] == "proxy@0.25");
  CHECK(fit[1]["steps"] == 10);
  CHECK(fit[1]["lr"].get<double>() > fit[0]["lr"].get<double>());
  CHECK_THAT(test::read_text(folder / "small.html"), ContainsSubstring("octaves per doubling"));
  CHECK_THAT(tuneonce(folder.path(), {"plan", "small.toml"}).out,
             ContainsSubstring("branches = [0.25, 0.5, 1]"));
}

TEST_CASE("a drifted optimum ends with exit code 3 and the correction", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"}, {{"TUNEONCE_FAKE", "shift=-1.5"}});
  INFO(ended.out + ended.err);
  CHECK(ended.code == 3);
  CHECK_THAT(ended.out, ContainsSubstring("DRIFT") && ContainsSubstring("use LR x0.3"));
  CHECK_THAT(ended.out, ContainsSubstring("\nsummary: 1 DRIFT -> exit 3\n"));
}

TEST_CASE("three targets of different width have a line through their drifts", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path(),
                    "[[target]]\nname = \"twice\"\nmoe = \"8e2a\"\nwidth = 128\ndrift = true\n"
                    "[[target]]\nname = \"thrice\"\nmoe = \"8e2a\"\nwidth = 192\ndrift = true\n");
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"});
  INFO(ended.out + ended.err);
  CHECK_THAT(ended.out, ContainsSubstring("\ntrend over log2(width): dLR slope ") &&
                            ContainsSubstring(" -> exit "));
  const auto table = tuneonce(folder.path(), {"drift", "--trend", "--json"});
  CHECK(table.code == ended.code);
  const auto rows = nlohmann::json::parse(table.out);
  REQUIRE(rows.size() == 1);
  CHECK(rows[0]["rule"] == "complete-mue");
  CHECK(rows[0]["axis"] == "width");
  CHECK(rows[0]["num_targets"] == 3);
  CHECK(rows[0]["slope_low"].get<double>() < rows[0]["slope"].get<double>());
  CHECK(rows[0].size() == 11);
}

TEST_CASE("a rule to compare with has trials, a verdict and rows of its own", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path(), "[transfer]\ncompare = [\"sp\", \"mup\"]\n");
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"});
  INFO(ended.out + ended.err);
  CHECK_THAT(ended.out, ContainsSubstring("\n8e2a@sp ") && ContainsSubstring("\n8e2a@mup "));
  CHECK(count(folder / "small.db", "target") == 4);
  CHECK(count(folder / "small.db", "drift_check") == 3);
  CHECK(count(folder / "small.db", "results WHERE target = '8e2a@mup' AND role = 'target'") == 1);
  CHECK(count(folder / "small.db", "results WHERE target = '8e2a@sp' AND role = 'target'") ==
        0);  // the baseline
  CHECK(count(folder / "small.db",
              "(SELECT DISTINCT seed FROM results WHERE target IN ('8e2a', '8e2a@sp', '8e2a@mup'))") == 1);
  const auto table = tuneonce(folder.path(), {"drift", "small.db", "--json"});
  CHECK_THAT(table.out, ContainsSubstring("\"rule\": \"mup\""));
}

TEST_CASE(
    "a trial that fails for good gives exit code 1, is printed once with its log, and is tried again when it is "
    "asked for",
    "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"}, {{"TUNEONCE_FAKE", "fail_name=wide"}});
  CHECK(ended.code == 1);
  CHECK_THAT(ended.err,
             ContainsSubstring("user_error: the context is too long; log: small.db.d/logs/trial-"));
  CHECK(tuneonce(folder.path(), {"run", "small.toml"}).code == 1);
  CHECK(tuneonce(folder.path(), {"retry", "--failed"}).code == 0);
  CHECK(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  CHECK(test::results(folder.path()) == unbroken_results());
}

TEST_CASE("when every trial fails the run stops early with exit code 1", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"}, {{"TUNEONCE_FAKE", "fail_name=lr"}});
  CHECK(ended.code == 1);
  CHECK_THAT(ended.err, ContainsSubstring("5 trials failed in a row"));
}

TEST_CASE("the first Ctrl-C drains, the same command finishes with the same results", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "2"}, {{"TUNEONCE_FAKE", "sleep_ms=200"}});
  REQUIRE(test::eventually([&] { return num_ended(folder / "small.db") >= 3; }));
  run.signal(SIGINT);
  const auto ended = run.wait();
  CHECK(ended.code == 130);
  CHECK_THAT(ended.err, ContainsSubstring("go on with: tuneonce run small.toml"));
  CHECK(count(folder / "small.db", "trial WHERE state = 1") == 0);
  CHECK(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  CHECK(test::results(folder.path()) == unbroken_results());
}

TEST_CASE("the second signal stops at once, also with workers that do not listen", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "1"},
              {{"TUNEONCE_FAKE", "hang=4 dir=" + folder.path().string()}});
  REQUIRE(test::eventually([&] {
    return test::read_text(folder / "started").find("\n") != std::string::npos &&
           num_ended(folder / "small.db") >= 3;
  }));
  ::usleep(100'000);
  run.signal(SIGTERM);
  ::usleep(100'000);
  run.signal(SIGTERM);
  CHECK(run.wait(10).code == 143);
  CHECK(count(folder / "small.db", "trial WHERE state = 1") == 0);
  CHECK(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  CHECK(test::results(folder.path()) == unbroken_results());
}

TEST_CASE("kill -9 at random moments, then the same command: the same results to the last digit",
          "[orchestrator][run][slow]") {
  std::mt19937 generator(20260117);
  for (int round = 0; round < 4; ++round) {
    const TemporaryFolder folder;
    test::write_study(folder.path());
    int kills = 0;
    for (bool finished = false; !finished && kills < 40;) {
      Command run(folder.path(), {"run", "small.toml", "-j", "2", "--checkpoint-every", "0.001"},
                  {{"TUNEONCE_FAKE", "sleep_ms=20"}});
      const auto milliseconds = std::uniform_int_distribution<int>(30, 250)(generator);
      const auto before = num_ended(folder / "small.db");
      finished = test::eventually([&] { return run.has_ended(); }, milliseconds * 1e-3);
      if (!finished) {
        run.signal(SIGKILL);
        ++kills;
      }
      CHECK(num_ended(folder / "small.db") >= before);
    }
    INFO("kills: " << kills);
    CHECK(kills > 0);
    CHECK(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
    CHECK(test::results(folder.path()) == unbroken_results());
    CHECK(count(folder / "small.db",
                "(SELECT trial, metric, step FROM curves GROUP BY 1, 2, 3 HAVING count(*) > 1)") == 0);
  }
}

TEST_CASE("the workers of a killed run are gone at once", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "2"}, {{"TUNEONCE_FAKE", "sleep_ms=60000"}});
  REQUIRE(test::eventually([&] {
    return fs::exists(folder / "small.db") && count(folder / "small.db", "attempt WHERE state = 1") == 2;
  }));
  const auto pids = db::run_query(folder / "small.db", "SELECT worker_pid FROM attempt WHERE state = 1");
  run.signal(SIGKILL);
  for (const auto& row : pids.rows) {
    const auto pid = static_cast<pid_t>(std::get<std::int64_t>(row[0]));
    CHECK(test::eventually(
        [&] {
          return ::kill(pid, 0) != 0 ||
                 test::read_text("/proc/" + std::to_string(pid) + "/stat").find(") Z") != std::string::npos;
        },
        5));
  }
}

TEST_CASE("a worker killed from outside costs an attempt, not a result", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "2"}, {{"TUNEONCE_FAKE", "sleep_ms=100"}});
  REQUIRE(test::eventually([&] {
    return num_ended(folder / "small.db") >= 2 && count(folder / "small.db", "attempt WHERE state = 1") > 0;
  }));
  const auto pids =
      db::run_query(folder / "small.db", "SELECT worker_pid FROM attempt ORDER BY started DESC LIMIT 1");
  ::kill(static_cast<pid_t>(std::get<std::int64_t>(pids.rows.at(0).at(0))), SIGKILL);
  const auto ended = run.wait();
  CHECK(ended.code == 0);
  CHECK_THAT(ended.err, ContainsSubstring("will be tried again"));
  CHECK(test::results(folder.path()) == unbroken_results());
}

TEST_CASE("a study that changed between two runs: the change is shown, what is done stays done",
          "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  REQUIRE(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  const auto before = count(folder / "small.db", "attempt");
  auto text = test::read_text(folder / "small.toml");
  text.replace(text.find("tolerance = \"0.2%\""), 18, "tolerance = \"0.3%\"");
  std::ofstream(folder / "small.toml") << text;
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"});
  CHECK(ended.code == 0);
  CHECK_THAT(ended.err, ContainsSubstring("drift.tolerance: \"0.2%\" -> \"0.3%\""));
  CHECK(count(folder / "small.db", "attempt") == before);
  CHECK(count(folder / "small.db", "study") == 2);
}

TEST_CASE("a database of another study is refused", "[orchestrator][run]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  REQUIRE(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  auto text = test::read_text(folder / "small.toml");
  text.replace(text.find("\"small\""), 7, "\"large\"");
  std::ofstream(folder / "large.toml") << text;
  const auto ended = tuneonce(folder.path(), {"run", "large.toml", "--db", "small.db"});
  CHECK(ended.code == 2);
  CHECK_THAT(ended.err, ContainsSubstring("holds the study \"small\""));
}

// --- bad input: one clear message, the right exit code, nothing written ---

TEST_CASE("a missing study file is named", "[orchestrator][run][bad_input]") {
  const TemporaryFolder folder;
  const auto ended = tuneonce(folder.path(), {"run", "none.toml"});
  CHECK(ended.code == 2);
  CHECK_THAT(ended.err, ContainsSubstring("none.toml"));
  CHECK(files(folder.path()).empty());
}

TEST_CASE("bad data is found before anything is written", "[orchestrator][run][bad_input]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"}, {{"TUNEONCE_FAKE", "bad_data=1"}});
  CHECK(ended.code == 2);
  CHECK_THAT(ended.err, ContainsSubstring("the text is all one byte"));
  CHECK(files(folder.path()) == Names{"small.toml"});
}

TEST_CASE("a worker of another protocol version ends the run before anything is written",
          "[orchestrator][run][bad_input]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"}, {{"TUNEONCE_FAKE", "version=99"}});
  CHECK(ended.code == 6);
  CHECK_THAT(ended.err, ContainsSubstring("protocol 99"));
  CHECK(files(folder.path()) == Names{"small.toml"});
}

TEST_CASE("a GPU that is not there ends the run before anything is written",
          "[orchestrator][run][bad_input]") {
  const TemporaryFolder folder;
  test::write_study(folder.path(), "[resources]\ndevices = [\"cuda:63\"]\n");
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"});
  CHECK(ended.code == 6);
  CHECK_THAT(ended.err, ContainsSubstring("cuda:63"));
  CHECK(files(folder.path()) == Names{"small.toml"});
}

TEST_CASE("a missing worker program is named with the places looked at", "[orchestrator][run][bad_input]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"}, {{"TUNEONCE_WORKER", "/nowhere/worker"}});
  CHECK(ended.code == 6);
  CHECK_THAT(ended.err, ContainsSubstring("/nowhere/worker"));
}

TEST_CASE("a database of another program is refused untouched", "[orchestrator][run][bad_input]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  test::run_sql(folder / "small.db", "CREATE TABLE t(x)");
  const auto before = test::read_text(folder / "small.db");
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"});
  CHECK(ended.code == 2);
  CHECK_THAT(ended.err, ContainsSubstring("another program"));
  CHECK(test::read_text(folder / "small.db") == before);
  CHECK(files(folder.path()) == Names{"small.db", "small.toml"});
}

TEST_CASE("a folder where nothing can be written is named", "[orchestrator][run][bad_input]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto ended = tuneonce(folder.path(), {"run", "small.toml", "--db", "/proc/small.db"});
  CHECK(ended.code == 6);
  CHECK_THAT(ended.err, ContainsSubstring("/proc/small.db"));
}

TEST_CASE("a full disk ends the run with exit code 6, and with room again it goes on",
          "[orchestrator][run][bad_input]") {
  // A limit on the size of files stands for the full disk: it needs no rights and hits SQLite's writes as
  // such.
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const rlimit narrow{150'000, RLIM_INFINITY};
  rlimit wide{};
  ::getrlimit(RLIMIT_FSIZE, &wide);
  ::setrlimit(RLIMIT_FSIZE, &narrow);
  ::signal(SIGXFSZ, SIG_IGN);
  auto run = std::make_unique<Command>(folder.path(), std::vector<std::string>{"run", "small.toml"});
  ::setrlimit(RLIMIT_FSIZE, &wide);
  ::signal(SIGXFSZ, SIG_DFL);
  const auto ended = run->wait();
  INFO(ended.err);
  CHECK(ended.code == 6);
  CHECK_THAT(ended.err, ContainsSubstring("small.db"));
  CHECK(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  CHECK(test::results(folder.path()) == unbroken_results());
}

// --- the other commands ---

TEST_CASE("plan shows trials, cost and factors and writes nothing", "[orchestrator][plan]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto ended = tuneonce(folder.path(), {"plan", "small.toml"});
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK_THAT(ended.out, ContainsSubstring("[train]") && ContainsSubstring("proxy sweep") &&
                            ContainsSubstring("expert_down") && ContainsSubstring("about") &&
                            ContainsSubstring("ms/step"));
  CHECK(files(folder.path()) == Names{"small.toml"});
  CHECK_THAT(tuneonce(folder.path(), {"plan", "small.toml", "--no-measure"}).out,
             !ContainsSubstring("ms/step"));
}

TEST_CASE("commands read the database, by name, by study file or alone in the folder",
          "[orchestrator][commands]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  REQUIRE(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  const auto alone = tuneonce(folder.path(), {"results"});
  CHECK(alone.code == 0);
  CHECK(tuneonce(folder.path(), {"results", "small.db"}).out == alone.out);
  CHECK(tuneonce(folder.path(), {"results", "small.toml"}).out == alone.out);
  CHECK_THAT(tuneonce(folder.path(), {"status"}).out,
             ContainsSubstring("no run is on") && ContainsSubstring("PASS"));
  CHECK_THAT(tuneonce(folder.path(), {"fit"}).out, ContainsSubstring("LR*"));
  CHECK_THAT(tuneonce(folder.path(), {"transfer"}).out, ContainsSubstring("expert_down"));
  CHECK_THAT(tuneonce(folder.path(), {"drift"}).out, ContainsSubstring("PASS"));
  CHECK_THAT(tuneonce(folder.path(), {"logs", "2"}).out, ContainsSubstring("attempt 1 of trial 2"));
  CHECK(tuneonce(folder.path(), {"logs", "99"}).code == 2);
  CHECK_THAT(tuneonce(folder.path(), {"best"}).out, ContainsSubstring("proxy") && ContainsSubstring("8e2a"));
  CHECK(tuneonce(folder.path(), {"query", "DELETE FROM trial"}).code == 2);
  fs::remove(folder / "small.html");
  CHECK(tuneonce(folder.path(), {"report"}).out == "small.html\n");
  CHECK(fs::exists(folder / "small.html"));
}

TEST_CASE("json on stdout is json and nothing else", "[orchestrator][commands]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  REQUIRE(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  for (const std::string command : {"status", "results", "best", "fit", "transfer", "drift"}) {
    INFO(command);
    const auto json = nlohmann::json::parse(tuneonce(folder.path(), {command, "--json"}).out, nullptr, false);
    CHECK_FALSE(json.is_discarded());
    CHECK_FALSE(json.empty());
  }
}

TEST_CASE("status works while a run is on and after it died", "[orchestrator][commands]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml"}, {{"TUNEONCE_FAKE", "sleep_ms=60000"}});
  REQUIRE(test::eventually([&] {
    return fs::exists(folder / "small.db") && count(folder / "small.db", "attempt WHERE state = 1") > 0;
  }));
  CHECK_THAT(tuneonce(folder.path(), {"status"}).out,
             ContainsSubstring("a run is on (pid " + std::to_string(run.pid())));
  run.signal(SIGKILL);
  CHECK(test::eventually(
      [&] { return tuneonce(folder.path(), {"status"}).out.find("no run is on") != std::string::npos; }, 5));
}

TEST_CASE("without a database, with several, or with a wrong word, the message says what would help",
          "[orchestrator][commands]") {
  const TemporaryFolder folder;
  CHECK(tuneonce(folder.path(), {"status"}).code == 2);
  CHECK(tuneonce(folder.path(), {"status", "none.db"}).code == 2);
  CHECK(tuneonce(folder.path(), {"frobnicate"}).code == 2);
  CHECK(tuneonce(folder.path(), {"results", "--format", "yaml"}).code == 2);
  CHECK(tuneonce(folder.path(), {}).code == 2);
  CHECK(tuneonce(folder.path(), {"--help"}).code == 0);
}

TEST_CASE("a report that cannot be written is refused before anything is trained",
          "[orchestrator][run][bad_input]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto lost = tuneonce(folder.path(), {"run", "small.toml", "--report", "missing/r.html"});
  CHECK(lost.code == 2);
  CHECK_THAT(lost.err, ContainsSubstring("missing"));
  const auto same = tuneonce(folder.path(), {"run", "small.toml", "--db", "x.db", "--report", "x.db"});
  CHECK(same.code == 2);
  CHECK_THAT(same.err, ContainsSubstring("the database itself"));
  CHECK(files(folder.path()) == Names{"small.toml"});
}

TEST_CASE("a word that is no command or option is named with the one that may be meant",
          "[orchestrator][bad_input]") {
  const TemporaryFolder folder;
  const std::vector<std::pair<std::vector<std::string>, std::string>> typed = {
      {{"rnu"}, "there is no command \"rnu\"; did you mean \"run\"?"},
      {{"optimise"}, "there is no command \"optimise\"; known: plan, run, resume"},
      {{"results", "--fromat", "csv"}, "there is no option --fromat, did you mean --format?"},
      {{"run", "small.toml", "--worker=2"}, "there is no option --worker, did you mean --workers?"},
      {{"check", "coord", "small.toml", "--sedes", "2"}, "there is no option --sedes, did you mean --seeds?"},
      {{"run", "-j2", "small.toml", "other.toml"}, "The following argument was not expected: other.toml"},
      {{"run"}, "STUDY is required"}};
  for (const auto& [words, answer] : typed) {
    const auto ended = tuneonce(folder.path(), words);
    CHECK(ended.code == 2);
    CHECK_THAT(ended.err, ContainsSubstring("tuneonce: " + answer));
  }
  const auto nothing = tuneonce(folder.path(), {});
  CHECK(nothing.code == 2);
  CHECK_THAT(nothing.out, ContainsSubstring("Subcommands:"));
}

TEST_CASE("paths that cannot be meant are named for what they are", "[orchestrator][bad_input]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  CHECK_THAT(tuneonce(folder.path(), {"run", "small.toml", "--db", "nowhere/x.db"}).err,
             ContainsSubstring("nowhere: there is no such folder for the database"));
  CHECK_THAT(tuneonce(folder.path(), {"plan", "small.toml", "--db", "x.db"}).err,
             ContainsSubstring("requires --diff"));
  tuneonce(folder.path(), {"run", "small.toml"});
  const auto database = tuneonce(folder.path(), {"run", "small.db"});
  CHECK(database.code == 2);
  CHECK_THAT(database.err, ContainsSubstring("small.db: is a database; name the study file"));
}

TEST_CASE("a reader that has seen enough is no error", "[orchestrator][bad_input]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  tuneonce(folder.path(), {"run", "small.toml"});
  const auto command =
      "cd '" + folder.path().string() +
      "' && { '" TUNEONCE_PROGRAM
      "' query --format csv \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
      "SELECT i FROM n LIMIT 100000\" 2>err; echo $? >code; } | head -1 >out";
  CHECK(std::system(command.c_str()) == 0);
  CHECK(test::read_text(folder / "out") == "i\n");
  CHECK(test::read_text(folder / "err").empty());
  CHECK(test::read_text(folder / "code") == "0\n");
}

TEST_CASE("a database that is not there is the caller's mistake", "[orchestrator][bad_input]") {
  const TemporaryFolder folder;
  for (const char* command : {"status", "results", "best", "fit", "transfer", "drift", "report"}) {
    const auto ended = tuneonce(folder.path(), {command, "--db", "none.db"});
    CHECK(ended.code == 2);
    CHECK_THAT(ended.err, ContainsSubstring("none.db"));
  }
}

TEST_CASE("output that cannot be written is an error", "[orchestrator][bad_input]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  tuneonce(folder.path(), {"run", "small.toml"});
  const auto command =
      "cd '" + folder.path().string() + "' && '" TUNEONCE_PROGRAM "' results >/dev/full 2>&1";
  CHECK(WEXITSTATUS(std::system(command.c_str())) == 6);
}

TEST_CASE("a newer schema ends the run with both numbers, untouched", "[orchestrator][run][bad_input]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  test::store_with(folder / "small.db", {});
  test::run_sql(folder / "small.db", "PRAGMA journal_mode=DELETE; PRAGMA user_version=99");
  const auto before = test::read_text(folder / "small.db");
  const auto ended = tuneonce(folder.path(), {"run", "small.toml"});
  CHECK(ended.code == 2);
  CHECK_THAT(ended.err, ContainsSubstring("99"));
  CHECK(test::read_text(folder / "small.db") == before);
}
