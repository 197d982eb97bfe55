#include "helios/base/clock.h"

#include <doctest/doctest.h>
#include <time.h>

#include "support/fake_clock.h"

namespace helios {

TEST_CASE("the monotonic clock does not go back") {
  MonotonicClock clock;
  Nanoseconds before = clock.now();
  CHECK(before > 0);
  for (int i = 0; i < 1000; ++i) {
    const Nanoseconds now = clock.now();
    REQUIRE(now >= before);
    before = now;
  }
}

TEST_CASE("time is that of the monotonic clock: setting the wall clock changes no age") {
  const auto read_kernel = [] {
    timespec time{};
    REQUIRE(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
    return seconds(time.tv_sec) + time.tv_nsec;
  };
  MonotonicClock clock;
  const Nanoseconds before = read_kernel();
  const Nanoseconds now = clock.now();
  CHECK(before <= now);
  CHECK(now <= read_kernel());
}

TEST_CASE("a fake clock stands still until it is advanced") {
  FakeClock clock(seconds(5));
  CHECK(clock.now() == seconds(5));
  CHECK(clock.now() == seconds(5));
  clock.advance(milliseconds(3) + microseconds(2));
  CHECK(clock.now() == 5'003'002'000);
}

}  // namespace helios
