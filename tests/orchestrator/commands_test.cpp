// What a person types beside `run`: logs, status, plan --diff, help, completion, the manual page, messages.
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "db/query.h"
#include "orchestrator/logs.h"
#include "orchestrator/output.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

using test::Command;
using test::tuneonce;
namespace fs = std::filesystem;

namespace {

std::int64_t count(const fs::path& database, const std::string& what) {
  try {
    return std::get<std::int64_t>(db::run_query(database, "SELECT count(*) FROM " + what).rows.at(0).at(0));
  } catch (const std::exception&) {  // not there yet
    return -1;
  }
}
std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++n;
  return n;
}
bool is_installed(const std::string& program) {
  return std::system(("command -v " + program + " >/dev/null 2>&1").c_str()) == 0;
}
/// Standard output and error of a shell command.
std::string shell(const fs::path& folder, const std::string& command) {
  const auto file = folder / "shell-out";
  const int status = std::system(("cd '" + folder.string() + "' && (" + command + ") >'" + file.string() + "' 2>&1").c_str());
  INFO(test::read_text(file));
  CHECK(status == 0);
  return test::read_text(file);
}
void change(const fs::path& file, const std::string& from, const std::string& to) {
  auto text = test::read_text(file);
  const auto at = text.find(from);
  REQUIRE(at != text.npos);
  std::ofstream(file) << text.replace(at, from.size(), to);
}

/// Every command, by the words that lead to it.
std::vector<std::vector<std::string>> all_commands(const fs::path& folder, std::vector<std::string> words = {}) {
  std::vector<std::vector<std::string>> commands;
  auto help = words;
  help.push_back("--help");
  std::istringstream lines(tuneonce(folder, help).out);
  bool listed = false;
  for (std::string line; std::getline(lines, line);) {
    if (line == "Subcommands:") listed = true;
    if (!listed || line.size() < 3 || line.substr(0, 2) != "  " || line[2] == ' ') continue;
    auto deeper = words;
    deeper.push_back(line.substr(2, line.find(' ', 2) - 2));
    commands.push_back(deeper);
    for (auto& command : all_commands(folder, deeper)) commands.push_back(command);
  }
  return commands;
}

}  // namespace

// --- logs ---

TEST_CASE("of a log the last lines, or the part of one attempt", "[orchestrator][logs]") {
  using orchestrator::attempt_part;
  using orchestrator::last_lines;
  CHECK(last_lines("a\nb\nc\n", 2) == "b\nc\n");
  CHECK(last_lines("a\nb\nc", 2) == "b\nc");
  CHECK(last_lines("a\n", 5) == "a\n");
  CHECK(last_lines("a\n", 0).empty());
  CHECK(last_lines("", 3).empty());
  const std::string log =
      "2026-11-22 01:30:00.123 attempt 1 of trial 7 \"x\" on cpu, worker pid 1\nfirst\n"
      "2026-11-22 01:31:00.123 attempt 2 of trial 7 \"x\" on cpu, worker pid 2\nsecond\nmore\n";
  CHECK_THAT(std::string(attempt_part(log, 1)), ContainsSubstring("first\n") && !ContainsSubstring("second"));
  CHECK(attempt_part(log, 2).ends_with("second\nmore\n"));
  CHECK(attempt_part(log, 3).empty());
  CHECK(attempt_part("", 1).empty());
}

TEST_CASE("logs shows what was rotated away first, the last lines, one attempt, and follows to the end",
          "[orchestrator][logs]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "1"},
              {{"TUNEONCE_FAKE", "sleep_ms=100 crash=3 dir=" + folder.path().string()}});
  const auto database = folder / "small.db";
  REQUIRE(test::eventually([&] { return count(database, "attempt WHERE trial_id = 3") > 0; }));
  const auto followed = tuneonce(folder.path(), {"logs", "3", "-f"});  // ends by itself
  CHECK(followed.code == 0);
  CHECK_THAT(followed.out, ContainsSubstring("attempt 1 of trial 3") && ContainsSubstring("crash:") &&
                               ContainsSubstring("attempt 2 of trial 3"));
  CHECK(count(database, "trial WHERE id = 3 AND state = 2") == 1);
  const auto whole = tuneonce(folder.path(), {"logs", "3"}).out;
  CHECK(whole == followed.out);
  const auto second = tuneonce(folder.path(), {"logs", "3", "--attempt", "2"}).out;
  CHECK_THAT(second, !ContainsSubstring("attempt 1 of"));
  CHECK(whole.ends_with(second));
  CHECK(occurrences(tuneonce(folder.path(), {"logs", "3", "-n", "1"}).out, "\n") == 1);
  CHECK(tuneonce(folder.path(), {"logs", "3", "--attempt", "9"}).code == 2);
  CHECK(tuneonce(folder.path(), {"logs", "99"}).code == 2);
  CHECK(run.wait(120).code == 0);
  folder.write("small.db.d/logs/trial-0003.log.1", "what came before\n");
  CHECK(tuneonce(folder.path(), {"logs", "3"}).out == "what came before\n" + whole);
}

// --- status ---

TEST_CASE("values inside of others get dotted names in a row", "[orchestrator][output]") {
  const auto table = orchestrator::flatten({{"a", {{"b", 1}, {"c", {2.5, nullptr}}}}, {"d", "x"}, {"e", true}});
  CHECK(table.columns == std::vector<std::string>{"a.b", "a.c.0", "a.c.1", "d", "e"});
  CHECK(orchestrator::format_table(table, orchestrator::Format::csv) == "a.b,a.c.0,a.c.1,d,e\n1,2.5,,x,true\n");
}

TEST_CASE("status as json has owner, states, what runs with its end, failures with logs, and the disk",
          "[orchestrator][commands]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "2"}, {{"TUNEONCE_FAKE", "sleep_ms=3000 fail_name=std=0.04"}});
  const auto database = folder / "small.db";
  REQUIRE(test::eventually([&] { return count(database, "attempt WHERE state = 1 AND step > 8") == 2; }));
  const auto status = nlohmann::json::parse(tuneonce(folder.path(), {"status", "--json"}).out);
  CHECK_THAT(status["owner"].get<std::string>(), ContainsSubstring("pid " + std::to_string(run.pid())));
  CHECK(status["states"]["running"] == 2);
  CHECK(status["states"]["failed"] == 3);
  CHECK(status["failures"].size() == 3);
  CHECK_THAT(status["failures"][0]["log"].get<std::string>(), ContainsSubstring("small.db.d/logs/trial-000"));
  REQUIRE(status["running"].size() == 2);
  const auto& trial = status["running"][0];
  CHECK(trial["device"] == "cpu");
  CHECK(trial["steps"] == 40);
  CHECK(trial["step"].get<int>() > 0);
  CHECK(trial["eta_seconds"].get<double>() > 0);
  CHECK(status["disk"]["database_bytes"].get<double>() > 4096);
  CHECK(status["disk"]["free_bytes"].get<double>() > 0);
  CHECK_THAT(tuneonce(folder.path(), {"status", "--format", "csv"}).out,
             ContainsSubstring("states.failed") && ContainsSubstring("running.0.step"));
  CHECK_THAT(tuneonce(folder.path(), {"status"}).out,
             ContainsSubstring("done in about") && ContainsSubstring("failed: 3") && ContainsSubstring("disk: database"));
  run.signal(SIGKILL);
}

TEST_CASE("what ran when the run was killed is shown as waiting, not as running",
          "[orchestrator][commands]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "2"}, {{"TUNEONCE_FAKE", "sleep_ms=60000"}});
  REQUIRE(test::eventually(
      [&] { return count(folder / "small.db", "attempt WHERE state = 1 AND step > 0") == 2; }));
  CHECK_THAT(tuneonce(folder.path(), {"results", "--format", "csv"}).out, ContainsSubstring("running"));
  run.signal(SIGKILL);
  run.wait();
  CHECK_THAT(tuneonce(folder.path(), {"results", "--format", "csv"}).out,
             !ContainsSubstring("running") && ContainsSubstring("waiting"));
  const auto status = nlohmann::json::parse(tuneonce(folder.path(), {"status", "--json"}).out);
  CHECK(status["states"]["running"] == 0);
  CHECK(status["running"].empty());
  CHECK(status["trials"][0]["running"] == 0);
  CHECK(status["trials"][0]["waiting"] == status["trials"][0]["trials"]);
  CHECK_THAT(tuneonce(folder.path(), {"status"}).out,
             ContainsSubstring("2 ran when the last run ended") && !ContainsSubstring("done in about"));
  CHECK_THAT(tuneonce(folder.path(), {"watch", "--once"}).out, ContainsSubstring("0 running"));
}

TEST_CASE(
    "trials that an edited study asks for no more count nowhere, and are back when it asks for them again",
    "[orchestrator][commands]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  REQUIRE(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  const auto results = tuneonce(folder.path(), {"results", "--format", "csv"}).out;
  const auto best = tuneonce(folder.path(), {"best", "--json"}).out;
  const auto status = nlohmann::json::parse(tuneonce(folder.path(), {"status", "--json"}).out);
  const auto num_trials = count(folder / "small.db", "trial");

  change(folder / "small.toml", "steps = 40", "steps = 50");
  REQUIRE(tuneonce(folder.path(), {"run", "small.toml", "--accept-change"}).code == 0);
  CHECK(count(folder / "small.db",
              fmt::format("results WHERE trial <= {} AND state != 'dropped'", num_trials)) == 0);
  for (const auto& row : nlohmann::json::parse(tuneonce(folder.path(), {"best", "--json"}).out))
    CHECK(row["trial"] > num_trials);
  for (const auto& row : nlohmann::json::parse(tuneonce(folder.path(), {"results", "--json"}).out))
    CHECK(row["trial"] > num_trials);
  CHECK(nlohmann::json::parse(tuneonce(folder.path(), {"status", "--json"}).out)["states"] ==
        status["states"]);
  CHECK(count(folder / "small.db", fmt::format("trial WHERE id <= {} AND state = 6", num_trials)) == 0);

  change(folder / "small.toml", "steps = 50", "steps = 40");
  const auto attempts = count(folder / "small.db", "attempt");
  REQUIRE(tuneonce(folder.path(), {"run", "small.toml", "--accept-change"}).code == 0);
  CHECK(count(folder / "small.db", "attempt") == attempts);
  CHECK(tuneonce(folder.path(), {"results", "--format", "csv"}).out == results);
  CHECK(tuneonce(folder.path(), {"best", "--json"}).out == best);
}

// --- plan --diff ---

TEST_CASE("plan --diff names settings, trials added, kept and dropped, and writes nothing", "[orchestrator][plan]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  CHECK(tuneonce(folder.path(), {"plan", "small.toml", "--diff"}).code == 2);  // no database yet
  REQUIRE(tuneonce(folder.path(), {"run", "small.toml"}).code == 0);
  CHECK_THAT(tuneonce(folder.path(), {"plan", "small.toml", "--diff"}).out, ContainsSubstring("nothing has changed"));
  const auto before = test::read_text(folder / "small.db");
  change(folder / "small.toml", "max = 1.28e-2, count = 5", "max = 2.56e-2, count = 6");
  const auto wider = tuneonce(folder.path(), {"plan", "small.toml", "--diff"});
  INFO(wider.out << wider.err);
  CHECK(wider.code == 0);
  CHECK_THAT(wider.out, ContainsSubstring("space.lr: ") && ContainsSubstring("trials added: ") &&
                            ContainsSubstring("trials kept: ") && ContainsSubstring("trials dropped"));
  CHECK_THAT(wider.out, !ContainsSubstring("trials added: 0\n"));
  change(folder / "small.toml", "steps = 40", "steps = 50");
  const auto longer = tuneonce(folder.path(), {"plan", "small.toml", "--diff"}).out;
  CHECK_THAT(longer, ContainsSubstring("train.steps: 40 -> 50") && ContainsSubstring("trials kept: 0 that have ended"));
  CHECK(test::read_text(folder / "small.db") == before);
  // The run that follows says the same before it begins.
  const auto run = tuneonce(folder.path(), {"run", "small.toml", "--accept-change"});
  CHECK_THAT(run.err, ContainsSubstring("train.steps: 40 -> 50") && ContainsSubstring("trials kept: 0 that have ended"));
}

TEST_CASE("run --dry-run plans and writes nothing", "[orchestrator][plan]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  const auto dry = tuneonce(folder.path(), {"run", "small.toml", "--dry-run"});
  CHECK(dry.code == 0);
  CHECK_THAT(dry.out, ContainsSubstring("[train]") && ContainsSubstring("proxy sweep"));
  CHECK_FALSE(fs::exists(folder / "small.db"));
}

// --- help, completion, manual ---

TEST_CASE("the help of every command ends with an example", "[orchestrator][help]") {
  const TemporaryFolder folder;
  const auto commands = all_commands(folder.path());
  CHECK(commands.size() >= 20);
  for (auto command : commands) {
    std::string name = "tuneonce";
    for (const auto& word : command) name += " " + word;
    CAPTURE(name);
    command.push_back("--help");
    const auto help = tuneonce(folder.path(), command);
    CHECK(help.code == 0);
    const auto example = help.out.rfind("example: " + name);
    REQUIRE(example != help.out.npos);
    CHECK(help.out.find('\n', example) == help.out.size() - 1);
  }
}

TEST_CASE("bash completes commands, commands of commands, options and formats", "[orchestrator][help]") {
  const TemporaryFolder folder;
  folder.write("script", tuneonce(folder.path(), {"completion", "bash"}).out);
  const auto complete = [&](const std::string& words, int at) {
    return shell(folder.path(), "bash -c 'source ./script; COMP_WORDS=(" + words + "); COMP_CWORD=" + std::to_string(at) +
                                    "; _tuneonce; echo \" ${COMPREPLY[*]} \"'");
  };
  CHECK_THAT(complete("tuneonce r", 1), ContainsSubstring(" run ") && ContainsSubstring(" retry ") &&
                                            !ContainsSubstring(" plan "));
  CHECK_THAT(complete("tuneonce check \"\"", 2), ContainsSubstring(" coord init loss "));
  CHECK_THAT(complete("tuneonce check coord --s", 3), ContainsSubstring(" --seeds ") && ContainsSubstring(" --svg "));
  CHECK_THAT(complete("tuneonce results --fo", 2), ContainsSubstring(" --format "));
  CHECK_THAT(complete("tuneonce results --format j", 3), ContainsSubstring(" json jsonl "));
  CHECK_THAT(complete("tuneonce completion \"\"", 2), ContainsSubstring(" bash zsh fish "));
  CHECK_THAT(complete("tuneonce -q run --max", 3), ContainsSubstring(" --max-failures "));
}

TEST_CASE("zsh and fish get a script that they can read, another shell is refused", "[orchestrator][help]") {
  const TemporaryFolder folder;
  for (const std::string name : {"zsh", "fish"}) {
    folder.write("script", tuneonce(folder.path(), {"completion", name}).out);
    CHECK_THAT(test::read_text(folder / "script"), ContainsSubstring("coord") && ContainsSubstring("max-failures"));
    if (is_installed(name))
      shell(folder.path(), name + " -n script");
    else
      WARN("skipped: " + name + " is not installed, its script is not read by it");
  }
  CHECK(tuneonce(folder.path(), {"completion", "tcsh"}).code == 2);
}

TEST_CASE("the manual page is sound roff and has every command", "[orchestrator][help]") {
  const TemporaryFolder folder;
  const auto page = tuneonce(folder.path(), {"man"}).out;
  for (const auto& command : all_commands(folder.path())) {
    std::string name = command.front();
    if (command.size() > 1) name += " " + command.back();
    CHECK_THAT(page, ContainsSubstring("\n.SS " + name + "\n"));
  }
  folder.write("tuneonce.1", page);
  if (!is_installed("groff")) {
    WARN("skipped: groff is not installed");
    return;
  }
  const auto drawn = shell(folder.path(), "groff -man -Tascii -ww tuneonce.1 >page.txt");  // its warnings alone
  CHECK(drawn.empty());
  CHECK_THAT(test::read_text(folder / "page.txt"), ContainsSubstring("example: tuneonce run study.toml"));
}

// --- messages ---

TEST_CASE("a failure is printed once, at once, with its log, and -v, -q and --log-file do what they say",
          "[orchestrator][messages]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "1", "--log-file", "messages.log"},
              {{"TUNEONCE_FAKE", "sleep_ms=100 fail_name=std=0.04"}});
  const auto line = [](int id) { return "log: small.db.d/logs/trial-000" + std::to_string(id) + ".log"; };
  // While the others still train.
  REQUIRE(test::eventually([&] { return test::read_text(folder / "messages.log").find(line(3)) != std::string::npos; }));
  CHECK_FALSE(run.has_ended());
  const auto ended = run.wait(120);
  CHECK(ended.code == 1);
  for (int id : {1, 2, 3}) {
    CHECK(occurrences(ended.err, line(id)) == 1);
    CHECK(fs::exists(folder / ("small.db.d/logs/trial-000" + std::to_string(id) + ".log")));
  }
  CHECK_THAT(test::read_text(folder / "messages.log"), ContainsSubstring("attempt 1 started"));
  CHECK(tuneonce(folder.path(), {"retry", "--failed"}).code == 0);
  CHECK_THAT(tuneonce(folder.path(), {"-v", "run", "small.toml"}).err, ContainsSubstring(": loss 3.0"));
  CHECK(tuneonce(folder.path(), {"-q", "run", "small.toml"}).err.empty());
}

TEST_CASE("a limit on failures stops a run, by number or by share, and a wrong one is refused", "[orchestrator][messages]") {
  const TemporaryFolder folder;
  test::write_study(folder.path(), "[retry]\nstop_after = \"never\"\n");
  const auto run = [&](const std::string& limit) {
    fs::remove(folder / "small.db");
    return tuneonce(folder.path(), {"run", "small.toml", "-j", "1", "--max-failures", limit},
                    {{"TUNEONCE_FAKE", "fail_name=lr="}});
  };
  const auto two = run("2");
  CHECK(two.code == 1);
  CHECK_THAT(two.err, ContainsSubstring("2 trials failed; stopping (--max-failures 2)"));
  CHECK(count(folder / "small.db", "trial WHERE state = 4") == 2);
  const auto share = run("50%");
  CHECK(share.code == 1);
  CHECK_THAT(share.err, ContainsSubstring("5 of 5 trials failed; stopping (--max-failures 50%)"));
  for (const std::string wrong : {"0", "x", "100%", "5 %"}) {
    const auto refused = run(wrong);
    CHECK(refused.code == 2);
    CHECK_THAT(refused.err, ContainsSubstring("a number of trials from 1, or a share from 1% to 99%"));
  }
}
