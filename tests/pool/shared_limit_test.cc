#include "helios/pool/shared_limit.h"

#include <doctest/doctest.h>

#include <map>
#include <thread>
#include <vector>

namespace helios {
namespace {

// Pools that want as much as they get, over time, on one limit. A pool that is asked gives a
// connection up at its next release.
struct Rivals {
  explicit Rivals(uint32_t max) : limit(max) {}

  void add(uint32_t weight, uint32_t minimum = 0) {
    claims.push_back({claims.size() + 1, weight, minimum});
    wanted.push_back(UINT32_MAX);
  }
  [[nodiscard]] uint32_t held(size_t pool) const { return limit.taken_by(pool + 1); }
  void round() {
    now += SharedLimit::retry_interval;
    for (size_t i = 0; i < claims.size(); ++i) {
      while (held(i) < wanted[i] && limit.try_take(claims[i], now)) REQUIRE(limit.taken() <= 1000);
      for (size_t other = 0; other < claims.size(); ++other)
        while (held(other) > 0 && limit.give_up(other + 1)) (void)limit.give_back(other + 1);
      served[i] += held(i) > 0 ? 1 : 0;
    }
    CHECK(limit.taken() <= limit.max());
  }
  void rounds(int count) {
    for (int i = 0; i < count; ++i) round();
  }

  SharedLimit limit;
  std::vector<LimitClaim> claims;
  std::vector<uint32_t> wanted;
  std::map<size_t, int> served;
  Nanoseconds now = seconds(1000);
};

}  // namespace

TEST_CASE("a limit gives what there is, and counts each pool") {
  SharedLimit limit(2);
  const LimitClaim a{1};
  const LimitClaim b{2};
  CHECK(limit.try_take(a, 0));
  CHECK(limit.try_take(a, 0));
  CHECK(!limit.has_room());
  CHECK(!limit.is_starved());
  CHECK(!limit.try_take(b, 0));
  CHECK(limit.is_starved_by_other(1));
  CHECK(!limit.is_starved_by_other(2));
  CHECK(limit.taken_by(1) == 2);
  CHECK(limit.give_back(1));
  CHECK(!limit.is_starved());
  CHECK(!limit.give_back(1));
  CHECK(limit.taken() == 0);
}

TEST_CASE("a limit of 0 is none, and counts") {
  SharedLimit limit(0);
  for (int i = 0; i < 1000; ++i) REQUIRE(limit.try_take({1}, 0));
  CHECK(limit.taken() == 1000);
  CHECK(limit.has_room());
}

TEST_CASE("a pool that came late gets its part of a full limit") {
  Rivals rivals(10);
  rivals.add(1);
  rivals.rounds(3);
  CHECK(rivals.held(0) == 10);
  rivals.add(1);
  rivals.rounds(20);
  CHECK(rivals.held(0) == 5);
  CHECK(rivals.held(1) == 5);
}

TEST_CASE("pools share a full limit by their weights") {
  Rivals rivals(60);
  rivals.add(1);
  rivals.add(2);
  rivals.add(3);
  rivals.rounds(200);
  CHECK(rivals.held(0) == 10);
  CHECK(rivals.held(1) == 20);
  CHECK(rivals.held(2) == 30);
}

TEST_CASE("what a pool does not want the others get") {
  Rivals rivals(12);
  rivals.add(1);
  rivals.add(1);
  rivals.add(1);
  rivals.wanted[0] = 2;
  rivals.rounds(100);
  CHECK(rivals.held(0) == 2);
  CHECK(rivals.held(1) == 5);
  CHECK(rivals.held(2) == 5);
}

TEST_CASE("a minimum stands before a weight") {
  Rivals rivals(10);
  rivals.add(100);
  rivals.rounds(3);
  rivals.add(1, 4);
  rivals.rounds(50);
  CHECK(rivals.held(0) == 6);
  CHECK(rivals.held(1) == 4);
}

TEST_CASE("a limit that is smaller than the number of pools is used in turns") {
  Rivals rivals(2);
  for (int i = 0; i < 5; ++i) rivals.add(1);
  rivals.rounds(400);
  for (size_t pool = 0; pool < 5; ++pool) {
    CAPTURE(pool);
    CHECK(rivals.served[pool] >= 80);
  }
}

TEST_CASE("minimums that take everything leave a turn to a pool without one") {
  Rivals rivals(4);
  rivals.add(1, 2);
  rivals.add(1, 2);
  rivals.rounds(5);
  rivals.add(1);
  rivals.rounds(100);
  CHECK(rivals.served[2] >= 10);
  CHECK(rivals.held(0) + rivals.held(1) + rivals.held(2) == 4);
}

TEST_CASE("what is free is kept for the pool that is due, while it comes for it") {
  SharedLimit limit(2);
  const LimitClaim a{1};
  const LimitClaim b{2};
  CHECK(limit.try_take(a, 0));
  CHECK(limit.try_take(a, 0));
  CHECK(!limit.try_take(b, milliseconds(1)));
  CHECK(limit.is_wanted_back());
  CHECK(!limit.give_up(2));
  CHECK(limit.give_up(1));
  CHECK(!limit.give_up(1));
  CHECK(limit.give_back(1));
  CHECK(!limit.try_take(a, milliseconds(2)));
  CHECK(limit.try_take(b, milliseconds(3)));
  // A pool that wanted and does not come any more keeps nobody out.
  CHECK(limit.give_back(2));
  CHECK(limit.try_take(b, milliseconds(4)));
  CHECK(limit.try_take({3}, milliseconds(4)) == false);
  CHECK(!limit.give_back(1) == false);
  CHECK(!limit.try_take(b, milliseconds(5)));
  CHECK(limit.try_take(b, milliseconds(5) + SharedLimit::want_time));
}

TEST_CASE("a pool that cannot give one up is passed over for the next") {
  SharedLimit limit(8);
  for (int i = 0; i < 5; ++i) CHECK(limit.try_take({1}, 0));
  for (int i = 0; i < 3; ++i) CHECK(limit.try_take({2}, 0));
  CHECK(!limit.try_take({3}, milliseconds(100)));
  CHECK(!limit.try_take({3}, milliseconds(200)));  // Pool 1 has not given one up since.
  CHECK(!limit.give_up(1));
  CHECK(limit.give_up(2));
}

TEST_CASE("a pool that was asked for one gives none up when one has ended, or nobody wants it") {
  constexpr Nanoseconds now = seconds(1);
  SharedLimit limit(4);
  for (const uint64_t pool : {1, 1, 1, 2}) REQUIRE(limit.try_take({pool}, now));
  REQUIRE_FALSE(limit.try_take({3}, now));
  REQUIRE(limit.is_wanted_back());
  REQUIRE_FALSE(limit.give_up(2));
  SUBCASE("it has ended by itself") {
    CHECK(limit.give_back(1));
    CHECK(limit.try_take({3}, now));
    CHECK_FALSE(limit.give_up(1));
  }
  SUBCASE("it has ended, and another is wanted") {
    REQUIRE_FALSE(limit.try_take({4}, now));
    CHECK(limit.give_back(1));
    CHECK(limit.try_take({3}, now));
    CHECK_FALSE(limit.give_up(1));
    CHECK_FALSE(limit.try_take({4}, now));
    CHECK(limit.give_up(1));
    CHECK_FALSE(limit.give_up(1));
  }
  SUBCASE("that of another pool has ended") {
    CHECK(limit.give_back(2));
    CHECK(limit.is_wanted_back());
    CHECK(limit.try_take({3}, now));
    CHECK_FALSE(limit.is_wanted_back());
  }
  SUBCASE("who wanted it has left") {
    CHECK_FALSE(limit.withdraw(3, 0));
    CHECK_FALSE(limit.is_wanted_back());
  }
  SUBCASE("one of two has left") {
    REQUIRE_FALSE(limit.try_take({4}, now));
    CHECK_FALSE(limit.withdraw(3, 0));
    CHECK(limit.is_wanted_back());
  }
}

TEST_CASE("there is nothing to spare while another pool wants it") {
  constexpr Nanoseconds now = seconds(1);
  SharedLimit limit(2);
  CHECK(limit.has_room_to_spare(1, now));
  CHECK(limit.try_take({1}, now));
  CHECK(limit.try_take({1}, now));
  CHECK(!limit.has_room_to_spare(1, now));
  CHECK(!limit.try_take({2}, now));
  CHECK(limit.give_back(1));
  CHECK(!limit.has_room_to_spare(1, now));
  CHECK(limit.has_room_to_spare(2, now));
  CHECK(limit.has_room_to_spare(1, SharedLimit::want_time + now + 1));
}

TEST_CASE("pools that have gone are forgotten") {
  SharedLimit limit(1);
  CHECK(limit.try_take({1}, 0));
  for (uint64_t pool = 2; pool < 100'000; ++pool)
    CHECK(!limit.try_take({pool}, static_cast<Nanoseconds>(pool) * seconds(1)));
  CHECK(limit.give_back(1));
  CHECK(limit.try_take({5}, seconds(200'000)));
  CHECK(limit.taken_by(5) == 1);
}

TEST_CASE("two threads never take more than the shared limit allows") {
  SharedLimit limit(3);
  const auto work = [&](uint64_t pool) {
    for (Nanoseconds time = 0; time < 20'000; ++time) {
      if (limit.try_take({pool}, time * milliseconds(1))) {
        REQUIRE(limit.taken() <= 3);
        (void)limit.give_up(pool);
        (void)limit.give_back(pool);
      }
    }
  };
  std::thread other(work, 2);
  work(1);
  other.join();
  CHECK(limit.taken() == 0);
}

TEST_CASE("nothing is kept for a pool that has withdrawn, on all cores that wanted") {
  SharedLimit limit(1);
  const LimitClaim holder{1};
  const LimitClaim first{2, 1, 0, 0};
  const LimitClaim first_elsewhere{2, 1, 0, 1};
  const LimitClaim second{3};
  REQUIRE(limit.try_take(holder, 0));
  REQUIRE_FALSE(limit.try_take(first, 1));
  REQUIRE_FALSE(limit.try_take(first_elsewhere, 2));
  REQUIRE_FALSE(limit.try_take(second, 3));
  CHECK_FALSE(limit.withdraw(2, 0));  // Nothing is free: nobody has to be told.
  CHECK(limit.give_back(1));
  CHECK_FALSE(limit.try_take(second, 4));  // It came later than the first, which still wants it.
  CHECK(limit.withdraw(2, 1));
  CHECK_FALSE(limit.withdraw(2, 1));
  CHECK(limit.try_take(second, 5));
}

TEST_CASE("a limit that becomes smaller asks back what is beyond it, each connection once") {
  SharedLimit limit(5);
  for (int i = 0; i < 5; ++i) REQUIRE(limit.try_take({1, 1, 0}, 0));
  limit.set_max(2);
  CHECK(limit.has_surplus());
  CHECK_FALSE(limit.has_room());
  CHECK(limit.give_up_surplus());
  CHECK(limit.give_up_surplus());
  // One ends by itself: those that were asked are on their way.
  (void)limit.give_back(1);
  CHECK(limit.give_up_surplus() == true);
  CHECK_FALSE(limit.give_up_surplus());
  for (int i = 0; i < 3; ++i) (void)limit.give_back(1);
  CHECK(limit.taken() == 1);
  CHECK_FALSE(limit.has_surplus());
  CHECK(limit.try_take({1, 1, 0}, 0));
  CHECK_FALSE(limit.try_take({1, 1, 0}, 0));
  limit.set_max(3);
  CHECK(limit.try_take({1, 1, 0}, 0));
  limit.set_max(1);
  CHECK(limit.has_surplus());
  limit.set_max(0);
  CHECK_FALSE(limit.has_surplus());
}

}  // namespace helios
