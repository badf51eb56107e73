// Signals to the orchestrator: the first drains, the second stops now; the state can be resumed.
#include <signal.h>

#include <fmt/format.h>

#include "tests/support/catch.h"
#include "tests/support/invariants.h"

using test::check_finishes;
using test::check_invariants;
using test::DisturbedSweep;
using test::eventually;
using test::Random;

namespace {

/// Sends the signal to a run at a random moment of one sweep, again and again; it must end with `code` each
/// time. Then the sweep finishes.
void interrupt(int number, int code) {
  Random random("F19 signal " + std::to_string(number));
  DisturbedSweep sweep;
  for (int i = 0, n = test::times(10, 100); i < n; ++i) {
    // Long enough that no sweep is over before the last signal.
    const auto run = sweep.start({.behaviour = fmt::format("sleep_ms={} lazy=1", 200 * n)});
    REQUIRE(
        eventually([&] { return sweep.said("data: ") > i && sweep.count("attempt WHERE state = 1") > 0; }));
    random.pause(0, 100);
    sweep.acknowledge();
    run->signal(number);
    const auto ended = run->wait();
    INFO(ended.err);
    CHECK(ended.code == code);
    CHECK_THAT(ended.err, ContainsSubstring("go on with: tuneonce run five.toml"));
    check_invariants(sweep);
  }
  CHECK(sweep.count("attempt WHERE state = 4 AND failure != 6") == 0);
  check_finishes(sweep);
  const std::string drained =
      "attempt AS a JOIN attempt AS b ON b.trial_id = a.trial_id AND b.number = a.number + 1";
  CHECK(sweep.count(drained) >= test::times(10, 100));
  // Nothing that was trained is trained again.
  CHECK(sweep.count(drained + " WHERE b.first_step IS NOT a.step") == 0);
}

}  // namespace

TEST_CASE("Ctrl-C drains: trials are saved, exit code 130, the same command goes on", "[faults][F19]") {
  interrupt(SIGINT, 130);
}

TEST_CASE("SIGTERM drains: trials are saved, exit code 143, the same command goes on", "[faults][F19]") {
  interrupt(SIGTERM, 143);
}

TEST_CASE("SIGHUP drains: trials are saved, exit code 129, the same command goes on", "[faults][F19]") {
  interrupt(SIGHUP, 129);
}

TEST_CASE("Ctrl-C twice stops now, whatever the workers do", "[faults][F19]") {
  Random random("F19 twice");
  DisturbedSweep sweep;
  for (int i = 0, n = test::times(10, 100); i < n; ++i) {
    const auto run = sweep.start({.behaviour = "hang_name=lr deaf_to_term=1 stays=1"});
    REQUIRE(
        eventually([&] { return sweep.count("attempt WHERE state = 1") == 2 && sweep.said("data: ") > i; }));
    random.pause(0, 50);
    run->signal(SIGINT);
    if (i % 2) run->signal(SIGINT);  // may be one with the first
    REQUIRE(eventually([&] { return sweep.said("stopping: ") > i; }));
    random.pause(0, 50);
    if (i % 2 == 0) CHECK_FALSE(run->has_ended());
    run->signal(SIGINT);
    CHECK(run->wait(10).code == 130);
    check_invariants(sweep);
  }
  check_finishes(sweep);
}

TEST_CASE("SIGPIPE is ignored", "[faults][F19]") {
  Random random("F19 pipe");
  DisturbedSweep sweep;
  const int n = test::times(10, 100);
  const auto run = sweep.start({.behaviour = fmt::format("sleep_ms={}", 10 * n)});
  REQUIRE(eventually([&] { return sweep.said("data: ") > 0; }));
  for (int i = 0; i < n; ++i) {
    CHECK_FALSE(run->has_ended());
    run->signal(SIGPIPE);
    random.pause(5, 60);
  }
  CHECK(run->wait().code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt") == 25);
}

TEST_CASE("a run that is suspended and goes on loses nothing", "[faults][F19]") {
  Random random("F19 suspend");
  DisturbedSweep sweep;
  const int n = test::times(10, 100);
  const auto run = sweep.start({.behaviour = fmt::format("sleep_ms={}", 10 * n)});
  const auto is_stopped = [&] {
    const auto stat = test::read_text(fmt::format("/proc/{}/stat", run->pid()));
    return stat.find(") T ") != std::string::npos;
  };
  REQUIRE(eventually([&] { return sweep.said("data: ") > 0; }));
  for (int i = 0; i < n; ++i) {
    random.pause(5, 60);
    run->signal(SIGTSTP);
    run->signal(SIGSTOP);  // where no terminal is, as in CI, the first stops nobody
    CHECK(eventually(is_stopped));
    random.pause(10, 100);
    run->signal(SIGCONT);
  }
  CHECK(run->wait().code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt") == 25);
}
