#include "helios/runtime/spsc_ring.h"

#include <doctest/doctest.h>

#include <random>

namespace helios {

TEST_CASE("a staged value is invisible until it is published") {
  SpscRing<uint64_t, 4> ring;
  uint64_t value = 0;
  CHECK_FALSE(ring.publish());
  REQUIRE(ring.stage(7));
  CHECK_FALSE(ring.has_values());
  CHECK_FALSE(ring.take(value));
  CHECK(ring.publish());
  CHECK_FALSE(ring.publish());
  CHECK(ring.has_values());
  REQUIRE(ring.take(value));
  CHECK(value == 7);
  CHECK_FALSE(ring.has_values());
  CHECK_FALSE(ring.take(value));
}

TEST_CASE("a full ring takes no more until the consumer gives places back") {
  SpscRing<uint64_t, 4> ring;
  for (uint64_t i = 0; i < 4; ++i) REQUIRE(ring.stage(i));
  CHECK_FALSE(ring.stage(4));
  ring.publish();
  uint64_t value = 99;
  REQUIRE(ring.take(value));
  CHECK(value == 0);
  CHECK_FALSE(ring.stage(4));
  ring.release_taken();
  CHECK(ring.stage(4));
  CHECK_FALSE(ring.stage(5));
}

TEST_CASE("values keep their order over many rounds of the ring") {
  SpscRing<uint64_t, 8> ring;
  std::mt19937 random(5);
  uint64_t staged = 0;
  uint64_t published = 0;
  uint64_t taken = 0;
  uint64_t released = 0;
  for (int step = 0; step < 100'000; ++step) {
    switch (random() % 4) {
      case 0: {
        const bool has_room = staged - released < 8;
        REQUIRE(ring.stage(staged) == has_room);
        if (has_room) ++staged;
        break;
      }
      case 1:
        REQUIRE(ring.publish() == (staged != published));
        published = staged;
        break;
      case 2: {
        uint64_t value = 0;
        const bool is_taken = ring.take(value);
        REQUIRE(is_taken == (taken != published));
        if (is_taken) REQUIRE(value == taken++);
        break;
      }
      default:
        ring.release_taken();
        released = taken;
    }
    REQUIRE(ring.has_values() == (taken != published));
  }
  CHECK(taken > 10'000);
}

}  // namespace helios
