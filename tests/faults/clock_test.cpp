// The wall clock jumps while a run is on. Leases are on the monotonic clock, so that nothing comes of it.
#include <array>
#include <csignal>
#include <fstream>

#include <fmt/format.h>

#include "tests/support/catch.h"
#include "tests/support/invariants.h"

using test::check_invariants;
using test::DisturbedSweep;
using test::eventually;
using test::Random;

namespace {

void set_clock(const DisturbedSweep& sweep, std::int64_t seconds) {
  std::ofstream(sweep.file("clock.new")) << seconds;
  std::filesystem::rename(sweep.file("clock.new"), sweep.file("clock"));
}

}  // namespace

TEST_CASE("a clock that jumps costs no trial, and the jump is written down", "[faults][F11]") {
  Random random("F11");
  constexpr std::int64_t kHour = 3600, kTenYears = 10 * 365 * 24 * kHour;
  const std::array<std::int64_t, 5> jumps = {kHour, -kHour, kTenYears, -kTenYears, 90};
  for (int i = 0, n = test::times(5, 50); i < n; ++i) {
    const auto jump = jumps[static_cast<std::size_t>(i) % jumps.size()];
    INFO("jump of " << jump << " s");
    const DisturbedSweep sweep;
    set_clock(sweep, 0);
    const auto run = sweep.start({.behaviour = "sleep_ms=200",
                                  .fault = "who=tuneonce clock=" + sweep.file("clock").string(),
                                  .more = {"--stall-timeout", "60"}});
    REQUIRE(eventually([&] { return sweep.num_ended() >= 2; }));
    random.pause(0, 200);
    set_clock(sweep, jump);
    CHECK(run->wait().code == 0);
    check_invariants(sweep);
    CHECK(sweep.table() == test::undisturbed_table());
    CHECK(sweep.count("attempt") == 25);
    CHECK(sweep.count(fmt::format("event WHERE kind = 'clock' AND message LIKE '%put {} by%'",
                                  jump > 0 ? "forward" : "back")) == 1);
  }
}

TEST_CASE("a clock that was put back between two runs costs no trial", "[faults][F11]") {
  for (const std::int64_t jump : {-3600, 3600, -315'360'000}) {
    const DisturbedSweep sweep;
    set_clock(sweep, 0);
    const std::string fault = "who=tuneonce clock=" + sweep.file("clock").string();
    const auto run = sweep.start({.behaviour = "sleep_ms=100", .fault = fault});
    REQUIRE(eventually([&] { return sweep.num_ended() >= 5; }));
    run->signal(SIGKILL);
    run->wait();
    set_clock(sweep, jump);
    CHECK(sweep.run({.fault = fault}).code == 0);
    check_invariants(sweep);
    CHECK(sweep.table() == test::undisturbed_table());
  }
}

TEST_CASE("times are stored in UTC, whatever the time zone and its summer time", "[faults][F11]") {
  // The clocks of Berlin go back on 2026-10-25 at 01:00 UTC: the local hour from 2 to 3 comes twice.
  for (const std::string zone : {"Europe/Berlin", "America/New_York"}) {
    const DisturbedSweep sweep;
    CHECK(sweep.run({.environment = {{"TZ", zone}}}).code == 0);
    CHECK(sweep.count("attempt WHERE abs(julianday('now') - julianday(started)) > 10.0 / 1440") == 0);
    CHECK(sweep.table() == test::undisturbed_table());
  }
}
