#include "helios/base/clock.h"

#include <doctest/doctest.h>

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

TEST_CASE("a fake clock stands still until it is advanced") {
  FakeClock clock(seconds(5));
  CHECK(clock.now() == seconds(5));
  CHECK(clock.now() == seconds(5));
  clock.advance(milliseconds(3) + microseconds(2));
  CHECK(clock.now() == 5'003'002'000);
}

}  // namespace helios
