// Workers that hang, lie, send garbage, read nothing or report numbers that are none.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "db/query.h"
#include "tests/support/catch.h"
#include "tests/support/invariants.h"

using test::Changes;
using test::check_finishes;
using test::check_invariants;
using test::DisturbedSweep;
using test::eventually;
using test::Random;

namespace {

/// Largest memory a process has had, MiB; 0 when it is gone.
double peak_mebibytes(pid_t pid) {
  const auto text = test::read_text(fmt::format("/proc/{}/status", pid));
  const auto at = text.find("VmHWM:");
  return at == std::string::npos ? 0 : std::stod(text.substr(at + 6)) / 1024;
}

/// Ends well, and with the table of a sweep that was never disturbed.
void check_unharmed(const DisturbedSweep& sweep, const test::Ended& ended) {
  INFO(ended.err);
  CHECK(ended.code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
}

/// While one worker was waited for, the other went on without a pause.
void check_went_on(const DisturbedSweep& sweep) {
  CHECK(sweep.count("attempt AS a JOIN attempt AS stalled ON stalled.failure = 3 "
                    "WHERE a.ended > stalled.started AND a.ended < stalled.ended") >= 10);
}

/// `tuneonce` with an output that is full and that nobody reads.
class StalledReader {
 public:
  StalledReader(const DisturbedSweep& sweep, std::vector<std::string> words) {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    while (::write(ends[1], "full", 1) == 1) {
    }
    ::fcntl(ends[1], F_SETFL, 0);
    words.insert(words.begin(), TUNEONCE_PROGRAM);
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const auto folder = sweep.folder();
    unread_ = ends[0];
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      ::dup2(ends[1], 1);
      if (::chdir(folder.c_str()) == 0) ::execv(TUNEONCE_PROGRAM, arguments.data());
      ::_exit(127);
    }
    ::close(ends[1]);
  }
  ~StalledReader() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    ::close(unread_);
  }
  StalledReader(const StalledReader&) = delete;
  StalledReader& operator=(const StalledReader&) = delete;

  /// It waits for somebody to read.
  bool is_stalled() const {
    return test::read_text(fmt::format("/proc/{}/wchan", pid_)).find("pipe") != std::string::npos;
  }
  bool lives() const { return ::waitpid(pid_, nullptr, WNOHANG) == 0; }

 private:
  pid_t pid_ = -1;
  int unread_ = -1;
};

}  // namespace

TEST_CASE("a worker that hangs is stopped after the stall timeout and its trial is tried again",
          "[faults][F14]") {
  Random random("F14 hang");
  for (int i = 0, n = test::times(5, 50); i < n; ++i) {
    const DisturbedSweep sweep;
    const auto behaviour = fmt::format("hang={} deaf_to_term=1", random.between(1, 25));
    INFO(behaviour);
    check_unharmed(sweep, sweep.run({.behaviour = behaviour, .more = {"--stall-timeout", "0.5"}}));
    CHECK(sweep.count("attempt WHERE failure = 3") == 1);
    CHECK(sweep.count("attempt") == 26);
    CHECK(test::read_text(sweep.file("terms")) == "term\n");  // it was asked first
  }
}

TEST_CASE("workers that ignore SIGTERM and never exit do not keep a run from ending", "[faults][F14]") {
  for (int i = 0, n = test::times(2, 20); i < n; ++i) {
    const DisturbedSweep sweep;
    check_unharmed(sweep, sweep.run({.behaviour = "stays=1 deaf_to_term=1"}));
    CHECK(sweep.count("attempt") == 25);
  }
}

TEST_CASE("a worker that never exits and hangs is gone after the second signal", "[faults][F14]") {
  for (int i = 0, n = test::times(3, 30); i < n; ++i) {
    const DisturbedSweep sweep;
    const auto run = sweep.start({.behaviour = "hang=3 stays=1 deaf_to_term=1"});
    REQUIRE(eventually([&] { return sweep.num_ended() >= 20; }));
    run->signal(SIGTERM);
    REQUIRE(eventually([&] { return sweep.said("stopping"); }));
    run->signal(SIGTERM);
    CHECK(run->wait(20).code == 143);
    check_invariants(sweep);
    check_finishes(sweep);
  }
}

TEST_CASE("a worker that lies is refused and counted: results twice, of others, of other attempts, odd steps",
          "[faults][F15]") {
  for (int i = 0, n = test::times(20, 1000); i < n; ++i) {
    const std::array lies = {"twice", "other", "attempt", "backwards", "beyond"};
    const std::string lie = lies[static_cast<std::size_t>(i) % lies.size()];
    INFO(lie);
    const DisturbedSweep sweep;
    check_unharmed(sweep, sweep.run({.behaviour = "lie=" + lie, .workers = i % 2 ? 2 : 4}));
    CHECK(sweep.count("attempt") == 25);
    CHECK(sweep.count("attempt WHERE step > 20") == 0);
    // Every lie is counted; the first twenty are written down. Nobody hears what a worker says after its last
    // trial.
    const auto counted = sweep.numbers("SELECT CAST(message AS INTEGER) FROM event WHERE kind = 'refusals'");
    REQUIRE(counted.size() == 1);
    if (lie == "twice")
      CHECK(counted[0] == 25 - sweep.count("(SELECT DISTINCT worker_pid FROM attempt)"));
    else if (lie == "other")
      CHECK(counted[0] > 0);
    else
      CHECK(counted[0] == 25);
    CHECK(sweep.count("event WHERE kind = 'refused'") == std::min<std::int64_t>(counted[0], 20));
  }
}

TEST_CASE("garbage on a worker's channel costs that worker, not those beside it and no memory",
          "[faults][F16]") {
  Random random("F16");
  for (int i = 0, n = test::times(4, 400); i < n; ++i) {
    const DisturbedSweep sweep;
    const auto behaviour = fmt::format("junk=25 sleep_ms=20 seed={}", random.between(0, 1'000'000));
    INFO(behaviour);
    const auto run = sweep.start({.behaviour = behaviour});
    double peak = 0;
    REQUIRE(eventually([&] {
      peak = std::max(peak, peak_mebibytes(run->pid()));
      return run->has_ended();
    }));
    CHECK(peak > 1);
    if (!test::kAddressSanitizer) CHECK(peak < 30 + 20);  // it begins with less than 30 MiB
    check_unharmed(sweep, run->wait());
    CHECK(sweep.count("attempt WHERE state = 2 AND failure IS NULL") == 25);
    CHECK(sweep.count("attempt WHERE failure IN (0, 4)") == 25);
    CHECK(sweep.count("attempt") == 50);
    CHECK(sweep.count("attempt WHERE julianday(ended) - julianday(started) > 10.0 / 86400") == 0);
  }
}

TEST_CASE("a worker that sends a byte a second is stopped after the stall timeout, the other goes on",
          "[faults][F16]") {
  const DisturbedSweep sweep;
  check_unharmed(sweep, sweep.run({.behaviour = "drip=1 sleep_ms=50", .more = {"--stall-timeout", "2"}}));
  CHECK(sweep.count("attempt WHERE failure = 3") == 1);
  CHECK(sweep.count("attempt WHERE julianday(ended) - julianday(started) > 10.0 / 86400") == 0);
  check_went_on(sweep);
}

TEST_CASE("a stall timeout that passes between two reads is not missed", "[faults][F16]") {
  // The run is stopped before it has the four bytes of a message's length, and finds them and more when the
  // time is up.
  const DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = "drip=1 drip_ms=300", .more = {"--stall-timeout", "1.5"}});
  REQUIRE(eventually([&] { return run->has_ended() || sweep.count("attempt WHERE state = 1") > 0; }));
  run->signal(SIGSTOP);
  std::this_thread::sleep_for(std::chrono::seconds(3));
  run->signal(SIGCONT);
  check_unharmed(sweep, run->wait());
  const auto num_stalled = sweep.count("attempt WHERE failure = 3");
  CHECK(num_stalled >= 1);
  CHECK(num_stalled <= 2);  // the other was silent as long
}

TEST_CASE("a worker that reads nothing more holds up nobody else", "[faults][F17]") {
  Random random("F17");
  constexpr int kAtOnce = 4;
  for (int i = 0, n = test::times(20, 200); i < n; i += kAtOnce) {
    std::array<DisturbedSweep, kAtOnce> sweeps;
    std::vector<std::unique_ptr<test::Command>> runs;
    for (const auto& sweep : sweeps)
      runs.push_back(sweep.start({.behaviour = fmt::format("deaf={} sleep_ms=50", random.between(2, 8)),
                                  .more = {"--stall-timeout", "3"}}));
    for (std::size_t j = 0; j < sweeps.size(); ++j) {
      const auto& sweep = sweeps[j];
      check_unharmed(sweep, runs[j]->wait(120));
      CHECK(sweep.count("attempt WHERE failure = 3") == 1);
      check_went_on(sweep);
    }
  }
}

TEST_CASE("readers whose output nobody reads hold up neither the run nor other readers", "[faults][F17]") {
  const DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = "sleep_ms=200", .more = {"--stall-timeout", "60"}});
  REQUIRE(eventually([&] { return sweep.num_ended() >= 2; }));
  const StalledReader results(sweep, {"results", "five.db", "--format", "csv"});
  const StalledReader watch(sweep, {"watch", "five.db"});
  const StalledReader query(sweep, {"query", "SELECT * FROM curves", "five.db", "--format", "csv"});
  REQUIRE(eventually([&] { return results.is_stalled() && watch.is_stalled() && query.is_stalled(); }));
  CHECK_FALSE(run->has_ended());
  check_unharmed(sweep, run->wait());
  CHECK(sweep.count("attempt") == 25);
  CHECK((results.lives() && watch.lives() && query.lives()));
}

TEST_CASE("when every trial fails at once the run stops after five of them, within ten seconds",
          "[faults][F21]") {
  const DisturbedSweep sweep(Changes{{"crash = 100", "crash = 0"}});
  const auto begin = std::chrono::steady_clock::now();
  const auto ended = sweep.run({.behaviour = "crash_name=proxy", .workers = 1});
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
  CHECK(ended.code == 1);
  CHECK_THAT(ended.err, ContainsSubstring("5 trials failed in a row"));
  CHECK(sweep.count("attempt") == 5);
  check_invariants(sweep);
  check_finishes(sweep, 5);
}

// --- requirements ---

TEST_CASE("requirement 4: a trial that crashes twice and passes then is done with three attempts",
          "[faults][requirement]") {
  const DisturbedSweep sweep(Changes{{"crash = 100", "crash = 2"}});
  check_unharmed(sweep, sweep.run({.behaviour = "crash_first=2 crash_name=lr=0.0032"}));
  CHECK(sweep.count("results WHERE attempts = 3 AND lr = 3.2e-3 AND state = 'complete'") == 5);
  CHECK(sweep.count("attempt WHERE failure = 0") == 10);
  CHECK(sweep.count("attempt") == 35);
}

TEST_CASE("requirement 4: the user's error is not tried again", "[faults][requirement]") {
  const DisturbedSweep sweep(Changes{{"crash = 100", "crash = 100\nstop_after = \"never\""}});
  const auto ended = sweep.run({.behaviour = "fail_name=wd=0.1"});
  CHECK(ended.code == 1);
  check_invariants(sweep);
  CHECK(sweep.count("attempt WHERE failure = 5") > 0);
  CHECK(sweep.count("attempt") == 25);
}

TEST_CASE("requirement 4: retry of what failed trains exactly these cells", "[faults][requirement]") {
  const DisturbedSweep sweep(Changes{{"crash = 100", "crash = 0\nstop_after = \"never\""}});
  // wd 0.1 and 0.14, at three LRs: six cells.
  const auto ended = sweep.run({.behaviour = "fail_name=lr=0.0016_wd=0.1,lr=0.0032_wd=0.1,lr=0.0064_wd=0.1"});
  CHECK(ended.code == 1);
  const auto failed = sweep.numbers("SELECT id FROM trial WHERE state = 4 ORDER BY id");
  CHECK(failed.size() == 6);
  check_finishes(sweep, 6);
  CHECK(sweep.numbers("SELECT trial_id FROM attempt WHERE number > 1 ORDER BY trial_id") == failed);
}

TEST_CASE("requirement 15: a loss that is no number, or beyond all bounds, is a divergence at its step",
          "[faults][F13][requirement]") {
  const std::string odd = GENERATE("nan", "inf", "-inf", "1e308", "-1e308", "5e-324");
  CAPTURE(odd);
  const DisturbedSweep sweep;
  const auto ended = sweep.run({.behaviour = "odd_name=lr=0.0032 odd=" + odd});
  INFO(ended.err);
  check_invariants(sweep);
  CHECK(ended.code == 0);
  CHECK(sweep.count("trial WHERE state = 3 AND diverged_step = 10 AND loss IS NULL") == 5);
  CHECK(sweep.count("trial WHERE state = 2") == 20);
  CHECK(sweep.count("attempt") == 25);
  const auto rows = nlohmann::json::parse(sweep.command({"results", "five.db", "--json"}).out);
  int num_diverged = 0;
  for (const auto& row : rows) {
    if (row.at("lr").get<double>() != 3.2e-3) continue;
    CHECK(row.at("state") == "diverged");
    CHECK(row.at("loss").is_null());
    CHECK(row.at("steps") == 10);
    ++num_diverged;
  }
  CHECK(num_diverged == 5);
  const auto best = nlohmann::json::parse(sweep.command({"best", "five.db", "--json"}).out);
  REQUIRE(best.size() == 1);
  CHECK(best.at(0).at("lr").get<double>() != 3.2e-3);
  const auto optimum = nlohmann::json::parse(sweep.command({"fit", "five.db", "--json"}).out);
  REQUIRE(optimum.size() == 1);
  CHECK(optimum.at(0).at("num_points") == 20);
  CHECK(optimum.at(0).at("num_diverged") == 5);
  CHECK_THAT(optimum.at(0).at("loss").get<double>(), WithinAbs(3.08, 0.02));
  // The cell of the loss is empty.
  const auto csv =
      sweep.command({"query", "SELECT state, loss, lr FROM results", "five.db", "--format", "csv"}).out;
  int num_empty = 0;
  for (auto at = csv.find("\ndiverged,,0.0032\n"); at != csv.npos;
       at = csv.find("\ndiverged,,0.0032\n", at + 1))
    ++num_empty;
  CHECK(num_empty == 5);
  const auto whole = sweep.command({"results", "five.db", "--format", "csv"}).out;
  for (const char* text : {"nan", "NaN", "inf", "Inf", "e+308", "e-324"})
    CHECK_THAT(whole, !ContainsSubstring(text));
}
