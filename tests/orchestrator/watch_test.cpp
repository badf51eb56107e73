// The screen of `watch`: a pure function of where a study stands and the size of the terminal; and the command itself.
#include "orchestrator/watch_screen.h"

#include <algorithm>
#include <csignal>

#include "db/query.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/support/small_disk.h"
#include "tests/support/temporary_folder.h"

using namespace orchestrator;
using sweeps::TrialState;
using test::Command;
using test::tuneonce;

namespace {

/// A study under way: a 5 x 3 sweep of which some cells are done, one diverged, one failed, one runs.
Standing under_way() {
  Standing s;
  s.study = "gcide-8e2a";
  s.database = "gcide-8e2a.db";
  s.owner = "pid 12 on host";
  s.stage = "proxy";
  s.waiting = 4, s.running = 1, s.complete = 8, s.diverged = 1, s.failed = 1;
  s.trials = {{9, "proxy lr=0.0032 wd=0.1", "cuda:0", 2, 520, 1500, 125.0}};
  s.best = {{"proxy", 7, 0.0091, 0.1, 0.01, 2.5343}, {"8e2a", 21, 0.0073, 0.2, 0.01, 2.4217}};
  int i = 0;
  for (const double lr : {8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2})
    for (const double wd : {0.05, 0.1, 0.2}) {
      Standing::Cell cell{lr, wd, TrialState::complete, 2.5 + 0.01 * (i % 7)};
      if (i == 3) cell = {lr, wd, TrialState::diverged, {}};
      if (i == 5) cell = {lr, wd, TrialState::failed, {}};
      if (i == 9) cell = {lr, wd, TrialState::running, {}};
      if (i > 10) cell = {lr, wd, TrialState::waiting, {}};
      s.sweep.push_back(cell);
      ++i;
    }
  s.failures = {{6, "proxy lr=0.0016 wd=0.2", "crash: signal 11 (Segmentation fault) after a long story that no narrow screen holds",
                 "gcide-8e2a.db.d/logs/trial-0006.log", "2026-11-22 01:30:00.123"}};
  s.eta_seconds = 185;
  return s;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) text += line + "\n";
  return text;
}
std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

}  // namespace

TEST_CASE("no line of the screen is wider than the terminal", "[orchestrator][watch]") {
  for (const int width : {20, 40, 80, 120, 200, 300})
    for (const bool colour : {false, true})
      for (const auto& line : draw_watch(under_way(), {width, 24, colour})) {
        INFO(line);
        CHECK(visible_width(line) <= width);
      }
}

TEST_CASE("at 80 columns the screen says what runs, the best, the sweep and the failures with their logs",
          "[orchestrator][watch]") {
  const auto lines = draw_watch(under_way(), {80, 24, false});
  CHECK(lines.size() <= 24);
  const auto text = joined(lines);
  CHECK_THAT(text, ContainsSubstring("gcide-8e2a  gcide-8e2a.db  a run is on (pid 12 on host)"));
  CHECK_THAT(text, ContainsSubstring("proxy 10/15 trials, best 2.4217, 3 min to go, 1 running, 1 diverged, 1 failed"));
  CHECK_THAT(text, ContainsSubstring("proxy lr=0.0032 wd=0.1") && ContainsSubstring("███░░░░░░░") &&
                       ContainsSubstring("520/1500") && ContainsSubstring("cuda:0") && ContainsSubstring("2 min"));
  CHECK_THAT(text, ContainsSubstring("proxy          2.5343  LR 0.0091  WD 0.1  init std 0.01"));
  CHECK_THAT(text, ContainsSubstring("gcide-8e2a.db.d/logs/trial-0006.log"));
}

TEST_CASE("without colour there is no escape sequence and the map has digits, the lowest loss 0", "[orchestrator][watch]") {
  const auto text = joined(draw_watch(under_way(), {80, 24, false}));
  CHECK(text.find('\033') == text.npos);
  // Rows from the highest WD down, columns from the lowest LR.
  const auto row = text.find("    0.2 ");
  REQUIRE(row != text.npos);
  const auto line = text.substr(row, text.find('\n', row) - row);
  CHECK(line.find('!', 8) < line.find('.', 8));  // failed at LR 0.0016, the last LRs wait
  const auto lowest = text.find("   0.05 ");
  REQUIRE(lowest != text.npos);
  CHECK(text[lowest + 8] == '0');
  CHECK_THAT(text, ContainsSubstring("0 lowest loss") && ContainsSubstring("WD / LR 8.0e-04"));
}

TEST_CASE("with colour the map has two cells a character, in 24 bits", "[orchestrator][watch]") {
  const auto lines = draw_watch(under_way(), {80, 40, true});
  const auto text = joined(lines);
  CHECK(count(text, "▀") >= 15);
  CHECK(count(text, "\033[38;2;27;53;112") > 0);  // the lowest loss: the darkest colour
  CHECK_THAT(text, ContainsSubstring(";48;2;"));
  CHECK(count(text, "\033[0m") * 2 == count(text, "\033["));  // each style ends
}

TEST_CASE("at 200 columns the map stands beside the lists", "[orchestrator][watch]") {
  const auto lines = draw_watch(under_way(), {200, 24, false});
  CHECK(lines.size() < draw_watch(under_way(), {80, 24, false}).size());
  const auto found = std::find_if(lines.begin(), lines.end(), [](const auto& line) {
    return line.find("running") == 0 && line.find("LR x WD of the proxy") != line.npos;
  });
  CHECK(found != lines.end());
}

TEST_CASE("of many running trials and a random sweep the screen shows what fits", "[orchestrator][watch]") {
  auto standing = under_way();
  for (int i = 0; i < 100; ++i) {
    standing.trials.push_back({100 + i, "a trial", "cpu", 1, i, 100, {}});
    standing.sweep.push_back({1e-3 * (1 + 0.37 * i), 0.05 * (1 + 0.11 * i), TrialState::complete, 2.6});
  }
  const auto lines = draw_watch(standing, {80, 30, false});
  CHECK(lines.size() <= 30);
  CHECK_THAT(joined(lines), ContainsSubstring(" more"));
}

TEST_CASE("before anything is trained the screen is short and sound", "[orchestrator][watch]") {
  Standing standing;
  standing.study = "new";
  standing.stage = "done";
  const auto lines = draw_watch(standing, {80, 24, true});
  CHECK(lines.size() == 2);
  CHECK_THAT(joined(lines), ContainsSubstring("no run is on") && ContainsSubstring("0/0 trials"));
}

TEST_CASE("control characters in a name do not reach the terminal", "[orchestrator][watch]") {
  auto standing = under_way();
  standing.trials[0].name = "a\033[2Jb\nc";
  const auto text = joined(draw_watch(standing, {80, 24, false}));
  CHECK(text.find('\033') == text.npos);
  CHECK_THAT(text, ContainsSubstring("a [2Jb c"));
}

TEST_CASE("watch in a pipe prints plain lines until the run ends, a dead run and a read-only copy have a frame",
          "[orchestrator][watch]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "2"}, {{"TUNEONCE_FAKE", "sleep_ms=100 fail_name=wide"}});
  REQUIRE(test::eventually([&] {
    try {
      return db::run_query(folder / "small.db", "SELECT 1 FROM trial WHERE state = 2").rows.size() > 0;
    } catch (const std::exception&) {
      return false;
    }
  }));
  const auto watched = tuneonce(folder.path(), {"watch"});
  CHECK(watched.code == 0);
  CHECK(watched.out.find('\033') == watched.out.npos);
  CHECK_THAT(watched.out, ContainsSubstring(" running") && ContainsSubstring("done ") &&
                              ContainsSubstring("user_error: the context is too long; log: small.db.d/logs/trial-"));
  CHECK(run.wait().code == 1);
  const auto failed = db::run_query(folder / "small.db", "SELECT 1 FROM trial WHERE state = 4").rows.size();
  CHECK(failed > 0);
  CHECK(count(watched.out, "\" failed: ") == failed);  // once each

  const auto frame = tuneonce(folder.path(), {"watch", "--once"}, {{"COLUMNS", "100"}});
  CHECK_THAT(frame.out, ContainsSubstring("no run is on") && ContainsSubstring("LR x WD of the proxy") &&
                            ContainsSubstring("best so far"));
  constexpr int kRoomy = 65536;  // KiB
  test::SmallDisk disk(kRoomy);
  SKIP_UNLESS_MOUNTED(disk);
  std::filesystem::copy_file(folder / "small.db", disk / "small.db");
  disk.make_read_only(kRoomy);
  CHECK_THAT(tuneonce(folder.path(), {"watch", "--once", (disk / "small.db").string()}).out,
             ContainsSubstring("best so far"));
}

TEST_CASE("a watch that is interrupted ends with the signal's code", "[orchestrator][watch]") {
  const TemporaryFolder folder;
  test::write_study(folder.path());
  Command run(folder.path(), {"run", "small.toml", "-j", "1"}, {{"TUNEONCE_FAKE", "sleep_ms=60000"}});
  REQUIRE(test::eventually([&] {
    try {
      return db::run_query(folder / "small.db", "SELECT 1 FROM trial WHERE state = 1").rows.size() > 0;
    } catch (const std::exception&) {
      return false;
    }
  }));
  Command watching(folder.path(), {"watch"});
  CHECK_FALSE(test::eventually([&] { return watching.has_ended(); }, 1.5));
  watching.signal(SIGINT);
  const auto ended = watching.wait(10);
  CHECK(ended.code == 130);
  CHECK_THAT(ended.out, ContainsSubstring("1 running"));
}
