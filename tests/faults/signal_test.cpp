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
    const auto run = sweep.start({.behaviour = fmt::format("sleep_ms={}", 200 * n)});
    REQUIRE(eventually([&] { return sweep.said("data: ") && sweep.count("attempt WHERE state = 1") > 0; }));
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
    const auto run = sweep.start({.behaviour = "sleep_ms=600000 wait_ms=600000 deaf_to_term=1 stays=1"});
    REQUIRE(eventually([&] { return sweep.count("attempt WHERE state = 1") == 2; }));
    random.pause(0, 50);
    run->signal(SIGINT);
    random.pause(0, 20);  // too short for the first to be seen alone, at times
    while (!run->has_ended()) {
      run->signal(SIGINT);
      random.pause(5, 20);
    }
    CHECK(run->wait().code == 130);
    check_invariants(sweep);
  }
  check_finishes(sweep);
}

TEST_CASE("SIGPIPE is ignored", "[faults][F19]") {
  Random random("F19 pipe");
  DisturbedSweep sweep;
  const auto run = sweep.start({.behaviour = "sleep_ms=100"});
  REQUIRE(eventually([&] { return sweep.said("data: "); }));
  for (int i = 0, n = test::times(10, 100); i < n && !run->has_ended(); ++i) {
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
  const auto run = sweep.start({.behaviour = "sleep_ms=100"});
  REQUIRE(eventually([&] { return sweep.said("data: "); }));
  for (int i = 0, n = test::times(10, 100); i < n && !run->has_ended(); ++i) {
    random.pause(5, 60);
    run->signal(SIGTSTP);
    random.pause(10, 100);
    run->signal(SIGCONT);
  }
  CHECK(run->wait().code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt") == 25);
}
