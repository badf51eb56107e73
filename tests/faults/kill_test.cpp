// What dies of SIGKILL: workers, the orchestrator, everything; at any moment, also within a write.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include <fmt/format.h>

#include "tests/support/catch.h"
#include "tests/support/invariants.h"

using test::check_finishes;
using test::check_invariants;
using test::DisturbedSweep;
using test::eventually;
using test::Random;

namespace {

struct Victim {
  std::int64_t trial = 0, attempt = 0;
  pid_t pid = 0;
};
/// A worker that trains now, by chance; nothing when none does.
std::optional<Victim> choose_worker(const DisturbedSweep& sweep, Random& random) {
  const auto packed =
      sweep.numbers("SELECT worker_pid * 1000000 + trial_id * 1000 + number FROM attempt WHERE state = 1");
  if (packed.empty()) return std::nullopt;
  const auto chosen =
      packed[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(packed.size()) - 1))];
  return Victim{chosen / 1000 % 1000, chosen % 1000, static_cast<pid_t>(chosen / 1'000'000)};
}

bool still_runs(const DisturbedSweep& sweep, const Victim& victim) {
  return sweep.count(fmt::format("attempt WHERE trial_id = {} AND number = {} AND state = 1", victim.trial,
                                 victim.attempt)) > 0;
}

/// Attempts whose successor began more than a checkpoint's interval (2 steps) before the last step heard of.
constexpr const char* kLostMore =
    "attempt AS a JOIN attempt AS b ON b.trial_id = a.trial_id AND b.number = a.number + 1 "
    "WHERE b.first_step < a.step - 2";
/// Attempts of trials that had a result already.
constexpr const char* kTrainedAgain =
    "attempt AS a JOIN attempt AS b ON b.trial_id = a.trial_id AND b.number > a.number WHERE a.state IN (2, "
    "3)";

/// Did the run of this process train a trial when it was last heard of?
bool trains(const DisturbedSweep& sweep, pid_t run) {
  return sweep.count(
             fmt::format("attempt JOIN run ON run.id = run_id WHERE state = 1 AND run.pid = {}", run)) > 0;
}

/// Runs sweeps and kills their runs by `strike` at random moments, `kills` times in all.
void kill_runs(Random& random, int kills,
               const std::function<void(const DisturbedSweep&, test::Command&)>& strike) {
  int killed = 0, trained = 0;
  while (killed < kills) {
    DisturbedSweep sweep;
    for (bool done = false; !done && killed < kills;) {
      const auto run = sweep.start({.behaviour = "sleep_ms=40"});
      const auto pid = run->pid();
      // One in four may die before it trains anything.
      if (killed % 4 != 0) CHECK(eventually([&] { return trains(sweep, pid) || run->has_ended(); }));
      random.pause(0, 200);
      sweep.acknowledge();
      strike(sweep, *run);
      const auto code = run->wait().code;
      done = code == 0;
      if (done) break;
      CHECK(code == 128 + SIGKILL);
      ++killed;
      trained += trains(sweep, pid);
      check_invariants(sweep, true);
    }
    check_finishes(sweep);
    CHECK(sweep.count("trial WHERE state = 2") == 25);
    CHECK(sweep.count(kTrainedAgain) == 0);
    CHECK(sweep.count(kLostMore) == 0);
  }
  CHECK(2 * trained >= kills);
}
void kill_orchestrator(const DisturbedSweep&, test::Command& run) { run.signal(SIGKILL); }
void kill_everything(const DisturbedSweep& sweep, test::Command&) { sweep.kill_all(); }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

/// Processor time that a process has used, seconds.
double processor_seconds(pid_t pid) {
  const auto stat = test::read_text(fmt::format("/proc/{}/stat", pid));
  std::istringstream fields(stat.substr(stat.rfind(')') + 1));
  std::string skipped;
  for (int i = 3; i < 14; ++i) fields >> skipped;
  double user = 0, system = 0;
  REQUIRE(fields >> user >> system);
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace

TEST_CASE("kill -9 of a worker at a random step is noticed at once and costs a checkpoint interval at most",
          "[faults][F1]") {
  Random random("F1");
  const int kills = test::times(25, 1000);
  std::int64_t lost = 0;
  for (int killed = 0; killed < kills;) {
    DisturbedSweep sweep;
    const auto run = sweep.start({.behaviour = "sleep_ms=100"});
    while (!run->has_ended() && killed < kills) {
      random.pause(10, 100);
      const auto victim = choose_worker(sweep, random);
      if (!victim || ::kill(victim->pid, SIGKILL) != 0) continue;
      ++killed;
      CHECK(eventually([&] { return !still_runs(sweep, *victim); }, 1));
    }
    const auto ended = run->wait();
    INFO(ended.err);
    CHECK(ended.code == 0);
    check_invariants(sweep);
    CHECK(sweep.table() == test::undisturbed_table());
    CHECK(sweep.count(kLostMore) == 0);
    CHECK(
        sweep.count("attempt AS a WHERE failure IS NOT NULL AND NOT EXISTS (SELECT 1 FROM attempt AS b WHERE "
                    "b.trial_id = a.trial_id AND b.number = a.number + 1 AND "
                    "julianday(b.started) - julianday(a.ended) <= 5.0 / 86400)") == 0);
    lost += sweep.count("attempt WHERE failure = 4 AND message LIKE 'signal 9%'");
  }
  CHECK(2 * lost >= kills);  // the others had just ended their trial
}

TEST_CASE("kill -9 of the orchestrator at a random moment: its workers are gone, the same command goes on",
          "[faults][F2]") {
  Random random("F2");
  kill_runs(random, test::times(20, 500), kill_orchestrator);
}

TEST_CASE("kill -9 within a write: before or after each of write, sync, rename, unlink and truncate",
          "[faults][F3][slow]") {
  // CI takes every n-th of these moments from a random first one on; the soak takes every one.
  Random random("F3");
  const DisturbedSweep counted;
  const std::string calls = "who=tuneonce path=five.";
  REQUIRE(counted.run({.fault = calls + " count=" + counted.file("calls").string()}).code == 0);
  const auto num_calls = std::stol(test::read_text(counted.file("calls")));
  REQUIRE(num_calls > 200);
  const auto moments = 2 * num_calls;  // before and after
  const auto stride = std::max(1L, moments / test::times(48, static_cast<int>(moments)));
  int tried = 0, killed = 0;
  for (auto moment = random.between(0, stride - 1); moment < moments; moment += stride) {
    const auto fault =
        fmt::format("{} nth={} do={}", calls, moment / 2 + 1, moment % 2 ? "killafter" : "kill");
    INFO(fault);
    DisturbedSweep sweep;
    const auto code = sweep.run({.fault = fault}).code;
    CHECK((code == 128 + SIGKILL || code == 0));  // a run makes a few calls more or fewer than another
    ++tried;
    killed += code != 0;
    sweep.acknowledge();
    check_invariants(sweep, true);
    check_finishes(sweep);
  }
  CHECK(10 * killed >= 9 * tried);
}

TEST_CASE("kill -9 of a worker within the write of a checkpoint: the one before it counts", "[faults][F3]") {
  Random random("F3 checkpoint");
  for (int i = 0, n = test::times(4, 100); i < n; ++i) {
    // A worker makes some 200 of these calls in a sweep, two a checkpoint; every one is killed at the n-th.
    const auto fault = fmt::format("who=fake_worker path=checkpoints nth={} do={}", random.between(15, 100),
                                   i % 2 ? "killafter" : "kill");
    INFO(fault);
    DisturbedSweep sweep;
    const auto ended = sweep.run({.fault = fault});
    INFO(ended.err);
    CHECK(ended.code == 0);
    CHECK(sweep.count("attempt WHERE failure = 4 AND message LIKE 'signal 9%'") > 0);
    CHECK(sweep.count(kLostMore) == 0);
    check_invariants(sweep);
    CHECK(sweep.table() == test::undisturbed_table());
  }
}

TEST_CASE("everything is switched off at a random moment, then started again", "[faults][F5]") {
  Random random("F5");
  kill_runs(random, test::times(10, 200), kill_everything);
}

TEST_CASE("a sweep of 10,000 trials that was switched off trains again within two seconds", "[faults][F5]") {
  DisturbedSweep sweep(test::Changes{
      {"lr = { values = [8e-4, 1.6e-3, 3.2e-3, 6.4e-3, 1.28e-2] }",
       "lr = { min = 8e-4, max = 1.28e-2, count = 100 }"},
      {"wd = { values = [0.05, 0.07, 0.1, 0.14, 0.2] }", "wd = { min = 0.05, max = 0.2, count = 100 }"},
      {"extensions = 0", "extensions = 0\nmax_trials = 10000"}});
  const auto run = sweep.start({.behaviour = "noop=1"});
  REQUIRE(eventually([&] { return sweep.num_ended() >= 3000; }, 100));
  sweep.acknowledge();
  sweep.kill_all();
  CHECK(run->wait().code == 128 + SIGKILL);
  check_invariants(sweep, true);
  CHECK(sweep.count("trial") == 10'000);
  CHECK(sweep.count("trial WHERE state = 0") > 0);
  const auto again = sweep.start({.behaviour = "sleep_ms=60000"});
  REQUIRE(eventually([&] { return trains(sweep, again->pid()); }));
  if (!kSanitized) CHECK(processor_seconds(again->pid()) < 2);  // its own work: the machine may be busy
  sweep.kill_all();
  again->wait();
  check_invariants(sweep, true);
}

TEST_CASE("a run that was killed is killed again while it recovers", "[faults][F22]") {
  Random random("F22 kill");
  for (int i = 0, n = test::times(12, 300); i < n; ++i) {
    DisturbedSweep sweep;
    const auto run = sweep.start({.behaviour = "sleep_ms=100"});
    REQUIRE(eventually([&] { return trains(sweep, run->pid()); }));
    random.pause(0, 150);
    sweep.acknowledge();
    run->signal(SIGKILL);
    CHECK(run->wait().code == 128 + SIGKILL);
    const auto fault = fmt::format("who=tuneonce path=five. nth={} do={}", random.between(1, 40),
                                   random.between(0, 1) ? "kill" : "killafter");
    INFO(fault);
    CHECK(sweep.run({.fault = fault}).code == 128 + SIGKILL);
    sweep.acknowledge();
    check_invariants(sweep, true);
    check_finishes(sweep);
  }
}

TEST_CASE("the disk is full while a run recovers from a machine that was switched off", "[faults][F22]") {
  Random random("F22 disk");
  for (int i = 0, n = test::times(8, 200); i < n; ++i) {
    DisturbedSweep sweep;
    const auto run = sweep.start({.behaviour = "sleep_ms=100"});
    REQUIRE(eventually([&] { return trains(sweep, run->pid()); }));
    random.pause(0, 150);
    sweep.acknowledge();
    sweep.kill_all();
    CHECK(run->wait().code == 128 + SIGKILL);
    const auto fault =
        fmt::format("who=tuneonce call=write path=five.db nth={} do=ENOSPC lasting=1", random.between(1, 20));
    INFO(fault);
    const auto full = sweep.run({.fault = fault});
    INFO(full.err);
    CHECK(full.code == 6);
    CHECK_THAT(full.err, ContainsSubstring("five.db"));
    check_invariants(sweep, true);
    check_finishes(sweep);
  }
}

// --- requirements ---

TEST_CASE("requirement 3: after kill -9 of a worker its trial leaves running with a cause",
          "[faults][requirement]") {
  Random random("requirement 3");
  DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = "sleep_ms=60000"});
  std::optional<Victim> victim;
  REQUIRE(eventually([&] { return (victim = choose_worker(sweep, random)).has_value(); }));
  REQUIRE(::kill(victim->pid, SIGKILL) == 0);
  CHECK(eventually([&] { return !still_runs(sweep, *victim); }, 5));
  CHECK(
      sweep.count(fmt::format("attempt WHERE trial_id = {} AND number = {} AND state = 4 AND failure = 4 AND "
                              "message LIKE 'signal 9%'",
                              victim->trial, victim->attempt)) == 1);
  sweep.kill_all();
  run->wait();
  check_invariants(sweep, true);
}

TEST_CASE("requirement 3: after kill -9 of everything the next start leaves no running row without an owner",
          "[faults][requirement]") {
  DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = "sleep_ms=60000"});
  REQUIRE(eventually([&] { return sweep.count("attempt WHERE state = 1") == 2; }));
  const auto before = sweep.numbers("SELECT worker_pid FROM attempt WHERE state = 1");
  sweep.kill_all();
  run->wait();
  CHECK(sweep.count("attempt WHERE state = 1") == 2);
  const auto again = sweep.start({.behaviour = "sleep_ms=60000"});
  REQUIRE(eventually([&] { return sweep.count("attempt WHERE number > 1 AND state = 1") == 2; }));
  const auto alive = sweep.processes();
  const auto lives = [&](std::int64_t pid) { return std::ranges::find(alive, pid) != alive.end(); };
  const auto owners = sweep.numbers("SELECT worker_pid FROM attempt WHERE state = 1");
  CHECK(std::ranges::all_of(owners, lives));
  CHECK(std::ranges::none_of(before, lives));
  CHECK(owners.size() == 2);
  CHECK(sweep.count("trial WHERE state = 1") == 2);
  CHECK(sweep.count(
            "attempt JOIN trial ON trial.id = trial_id WHERE attempt.state = 1 AND trial.state = 1") == 2);
  sweep.kill_all();
  again->wait();
  check_invariants(sweep, true);
}

TEST_CASE("requirement 5: a worker that was stopped for longer than its lease gives no second result",
          "[faults][requirement]") {
  // Its channel is closed before the trial is tried again: the attempt after it says what it would have said.
  Random random("requirement 5");
  const int stops = test::times(20, 200);
  std::int64_t stalled = 0;
  for (int stopped = 0; stopped < stops;) {
    DisturbedSweep sweep;
    const auto run = sweep.start({.behaviour = "sleep_ms=100 lie=late", .more = {"--stall-timeout", "0.5"}});
    while (!run->has_ended() && stopped < stops) {
      random.pause(5, 60);
      const auto victim = choose_worker(sweep, random);
      if (!victim || ::kill(victim->pid, SIGSTOP) != 0) continue;
      ++stopped;
      CHECK(eventually([&] { return !still_runs(sweep, *victim); }, 10));
      ::kill(victim->pid, SIGCONT);  // it is gone already
    }
    const auto ended = run->wait();
    INFO(ended.err);
    CHECK(ended.code == 0);
    check_invariants(sweep);
    CHECK(sweep.table() == test::undisturbed_table());
    CHECK(sweep.count("attempt WHERE failure IS NOT NULL AND failure != 3") == 0);
    CHECK(sweep.count("attempt AS a JOIN trial ON trial.id = trial_id WHERE a.number > 1 AND a.state = 2 AND "
                      "NOT EXISTS (SELECT 1 FROM event WHERE kind = 'refused' AND message LIKE "
                      "'%attempt ' || (a.number - 1) || ' of trial ' || key || '%')") == 0);
    stalled += sweep.count("attempt WHERE failure = 3");
  }
  CHECK(2 * stalled >= stops);  // the others had just ended their trial
}

TEST_CASE("requirement 5: a worker that was stopped for less than its lease goes on",
          "[faults][requirement]") {
  Random random("requirement 5, short");
  DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = "sleep_ms=100", .more = {"--stall-timeout", "60"}});
  while (!run->has_ended()) {
    random.pause(20, 100);
    const auto victim = choose_worker(sweep, random);
    if (!victim || ::kill(victim->pid, SIGSTOP) != 0) continue;
    random.pause(50, 150);
    ::kill(victim->pid, SIGCONT);
  }
  CHECK(run->wait().code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt") == 25);
}

TEST_CASE("requirement 6: killed at 20 random moments, the same command ends with the same numbers",
          "[faults][requirement]") {
  Random random("requirement 6");
  kill_runs(random, test::times(20, 500), kill_orchestrator);
}

TEST_CASE("requirement 6: a sixth LR in a finished sweep trains five new cells only",
          "[faults][requirement]") {
  const DisturbedSweep sweep;
  REQUIRE(sweep.run().code == 0);
  const auto before = sweep.table();
  auto text = test::read_text(sweep.file("five.toml"));
  text.replace(text.find("[8e-4, "), 7, "[4e-4, 8e-4, ");
  std::ofstream(sweep.file("five.toml")) << text;
  REQUIRE(sweep.run().code == 0);
  CHECK(sweep.count("trial WHERE state = 2") == 30);
  CHECK(sweep.count("attempt") == 30);
  CHECK(sweep.count("attempt JOIN trial ON trial.id = trial_id WHERE trial_id > 25 AND lr = 4e-4") == 5);
  CHECK(sweep.table().starts_with(before));
  check_invariants(sweep);
}
