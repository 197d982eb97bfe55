#include "load/arrivals.h"

#include <doctest/doctest.h>

namespace helios::bench {

TEST_CASE("arrivals come at the rate, in order, and at random") {
  RandomNumbers random(1);
  Arrivals arrivals(1000, seconds(5), random);
  Nanoseconds last = seconds(5);
  int count = 0;
  int close_ones = 0;
  while (arrivals.is_due(seconds(105))) {
    const Nanoseconds due = arrivals.take();
    REQUIRE(due >= last);
    if (due - last < microseconds(100)) ++close_ones;
    last = due;
    ++count;
  }
  CHECK(count > 99'000);
  CHECK(count < 101'000);
  // Of independent arrivals, one in ten (1 - e^-0.1) follows within a tenth of the mean distance.
  CHECK(close_ones > 9'000);
  CHECK(close_ones < 10'100);
}

TEST_CASE("an arrival that nobody takes stays due") {
  RandomNumbers random(2);
  Arrivals arrivals(10, 0, random);
  const Nanoseconds first = arrivals.next();
  CHECK_FALSE(arrivals.is_due(first - 1));
  CHECK(arrivals.is_due(first));
  CHECK(arrivals.is_due(first + seconds(10)));
  CHECK(arrivals.take() == first);
  CHECK(arrivals.next() > first);
}

TEST_CASE("numbers between two bounds reach both and nothing else") {
  RandomNumbers random(4);
  bool has_low = false;
  bool has_high = false;
  for (int i = 0; i < 1000; ++i) {
    const int64_t number = random.between(-3, 3);
    REQUIRE(number >= -3);
    REQUIRE(number <= 3);
    has_low |= number == -3;
    has_high |= number == 3;
  }
  CHECK(has_low);
  CHECK(has_high);
  CHECK(random.between(7, 7) == 7);
  // The whole range must not be taken for an empty one.
  const int64_t any = random.between(INT64_MIN, INT64_MAX);
  CHECK(any != random.between(INT64_MIN, INT64_MAX));
}

}  // namespace helios::bench
