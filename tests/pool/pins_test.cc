#include "helios/pool/pins.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

namespace helios {
namespace {

constexpr PinReasons table = pin_bit(PinReason::temporary);
constexpr PinReasons lock = pin_bit(PinReason::lock);

TEST_CASE("each reason lasts from when it was first given to when it no longer is") {
  Pins pins;
  CHECK(pins.is_empty());
  CHECK(pins.text(seconds(1)).empty());
  pins.set(table, seconds(10));
  CHECK(pins.reasons() == table);
  CHECK(pins.age(PinReason::temporary, seconds(10)) == 0);
  pins.set(table | lock, seconds(12));
  pins.set(table | lock, seconds(13));
  CHECK(pins.age(PinReason::temporary, seconds(15)) == seconds(5));
  CHECK(pins.age(PinReason::lock, seconds(15)) == seconds(3));
  CHECK(pins.longest(seconds(15)) == seconds(5));
  CHECK(pins.text(seconds(15)) == "temporary table for 5.00 s, advisory lock for 3.00 s");
  // The oldest goes, and comes back as the youngest.
  pins.set(lock, seconds(16));
  CHECK(pins.longest(seconds(16)) == seconds(4));
  pins.set(table | lock, seconds(20));
  CHECK(pins.age(PinReason::temporary, seconds(21)) == seconds(1));
  CHECK(pins.longest(seconds(21)) == seconds(9));
  pins.set(0, seconds(22));
  CHECK(pins.is_empty());
  pins.set(lock, seconds(30));
  CHECK(pins.longest(seconds(30)) == 0);
}

TEST_CASE("every reason has a bit and a name of its own") {
  std::set<std::string> names;
  PinReasons all = 0;
  for (size_t i = 0; i < PinCounts::size; ++i) {
    const auto reason = static_cast<PinReason>(i);
    CHECK((all & pin_bit(reason)) == 0);
    all |= pin_bit(reason);
    names.insert(to_text(reason));
  }
  CHECK(names.size() == PinCounts::size);
  size_t visited_count = 0;
  for_each_reason(all, [&](PinReason reason) {
    CHECK(static_cast<size_t>(reason) == visited_count);
    ++visited_count;
  });
  CHECK(visited_count == PinCounts::size);
}

}  // namespace
}  // namespace helios
