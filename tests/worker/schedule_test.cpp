#include "worker/schedule.h"

#include "tests/support/catch.h"

using sweeps::ScheduleKind;
using worker::schedule_factor;

TEST_CASE("wsd rises, holds and falls linearly, and its last update is small but not lost",
          "[worker][schedule]") {
  const sweeps::Schedule wsd{ScheduleKind::wsd, 0.1, 0.2};  // of 100 steps: 10 up, 20 down
  CHECK(schedule_factor(wsd, 0, 100) == 0.1);
  CHECK(schedule_factor(wsd, 4, 100) == 0.5);
  CHECK(schedule_factor(wsd, 9, 100) == 1);
  CHECK(schedule_factor(wsd, 10, 100) == 1);
  CHECK(schedule_factor(wsd, 79, 100) == 1);
  CHECK_THAT(schedule_factor(wsd, 80, 100), WithinAbs(20.0 / 21, 1e-15));
  CHECK_THAT(schedule_factor(wsd, 99, 100), WithinAbs(1.0 / 21, 1e-15));
}

TEST_CASE("linear and cosine fall from the end of the warm-up and ignore decay", "[worker][schedule]") {
  for (const double decay : {0.0, 0.2, 1.0}) {
    const sweeps::Schedule linear{ScheduleKind::linear, 0.1, decay};
    CHECK(schedule_factor(linear, 9, 100) == 1);
    CHECK_THAT(schedule_factor(linear, 54, 100), WithinAbs(1 - 45.0 / 91, 1e-15));
    CHECK_THAT(schedule_factor(linear, 99, 100), WithinAbs(1.0 / 91, 1e-15));
    const sweeps::Schedule cosine{ScheduleKind::cosine, 0.1, decay};
    CHECK(schedule_factor(cosine, 9, 100) == 1);
    CHECK_THAT(schedule_factor(cosine, 99, 99 + 1), WithinAbs((1 + std::cos(M_PI * 90 / 91)) / 2, 1e-15));
  }
}

TEST_CASE("every factor of every schedule is positive, at most one, and falls after the warm-up",
          "[worker][schedule]") {
  for (const auto kind : {ScheduleKind::wsd, ScheduleKind::cosine, ScheduleKind::linear}) {
    for (const double warmup : {0.0, 0.02, 0.5, 1.0}) {
      for (const double decay : {0.0, 0.2, 0.7, 1.0}) {
        for (const std::int64_t steps : {1, 2, 7, 100}) {
          double last = 0;
          bool falling = false;
          for (std::int64_t step = 0; step < steps; ++step) {
            const double factor = schedule_factor({kind, warmup, decay}, step, steps);
            INFO(static_cast<int>(kind) << " " << warmup << " " << decay << " " << step << "/" << steps);
            REQUIRE(factor > 0);
            REQUIRE(factor <= 1);
            falling |= factor < last;
            if (falling) REQUIRE(factor <= last);
            last = factor;
          }
        }
      }
    }
  }
}

TEST_CASE("without warm-up the first update has the full LR", "[worker][schedule]") {
  CHECK(schedule_factor({ScheduleKind::wsd, 0, 0.2}, 0, 100) == 1);
  CHECK(schedule_factor({ScheduleKind::wsd, 0.02, 0.2}, 0, 1) == 1);
}
