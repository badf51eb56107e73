// The wall clock jumps while a run is on. Leases are on the monotonic clock, so that nothing comes of it.
#include <array>
#include <csignal>
#include <ctime>
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

TEST_CASE("times are stored in UTC, and the end of summer time in the midst of a run is nothing to it",
          "[faults][F11]") {
  // Berlin's clocks go back from 3 to 2; the rule is spelt out, as no time zones need be installed.
  constexpr std::int64_t kSummerEnds = 1792890000;  // 2026-10-25 01:00:00 UTC
  const DisturbedSweep sweep;
  const auto offset = kSummerEnds - 30 - std::time(nullptr);
  set_clock(sweep, offset);
  const auto run = sweep.start({.behaviour = "sleep_ms=150",
                                .fault = "who=tuneonce clock=" + sweep.file("clock").string(),
                                .environment = {{"TZ", "CET-1CEST,M3.5.0,M10.5.0/3"}}});
  REQUIRE(eventually([&] { return sweep.num_ended() >= 4; }));
  set_clock(sweep, offset + 30);  // less than what counts as a jump
  CHECK(run->wait().code == 0);
  check_invariants(sweep);
  CHECK(sweep.table() == test::undisturbed_table());
  CHECK(sweep.count("attempt") == 25);
  CHECK(sweep.count("attempt WHERE ended BETWEEN '2026-10-25 00:59:30' AND '2026-10-25 01:00:00'") >= 4);
  CHECK(sweep.count("attempt WHERE started BETWEEN '2026-10-25 01:00:00' AND '2026-10-25 01:10:00'") > 0);
  CHECK(sweep.count("attempt WHERE started < '2026-10-25 00:59:30' OR started > ended OR ended > '2026-10-25 "
                    "01:10:00'") == 0);
  CHECK(sweep.count("event WHERE kind = 'clock'") == 0);
}
