#include "helios/runtime/timer_wheel.h"

#include <doctest/doctest.h>

#include <array>
#include <map>
#include <memory>
#include <random>
#include <vector>

namespace helios {
namespace {

struct Alarm {
  Alarm() noexcept : timer(on_timer, this) {}
  static void on_timer(void* context) noexcept {
    auto* alarm = static_cast<Alarm*>(context);
    ++alarm->fired_count;
  }
  Timer timer;
  int fired_count = 0;
};

// Far from zero and not on a boundary of anything.
constexpr Nanoseconds start = seconds(123'456) + 789'012;

}  // namespace

TEST_CASE("a timer fires at its deadline and not a nanosecond earlier") {
  for (const Nanoseconds distance :
       {Nanoseconds{1}, microseconds(900), milliseconds(1), milliseconds(63), milliseconds(64),
        milliseconds(65), seconds(4) + 96'000'001, seconds(300), seconds(86'400),
        seconds(40'000'000)}) {
    CAPTURE(distance);
    TimerWheel wheel(start);
    Alarm alarm;
    wheel.schedule(alarm.timer, start + distance);
    CHECK(wheel.next_wakeup() == start + distance);
    wheel.advance(start + distance - 1);
    CHECK(alarm.fired_count == 0);
    CHECK(alarm.timer.is_scheduled());
    wheel.advance(start + distance);
    CHECK(alarm.fired_count == 1);
    CHECK_FALSE(alarm.timer.is_scheduled());
    wheel.advance(start + 2 * distance);
    CHECK(alarm.fired_count == 1);
    CHECK(wheel.size() == 0);
  }
}

TEST_CASE("nothing scheduled never wakes") {
  TimerWheel wheel(start);
  CHECK(wheel.next_wakeup() == never);
  Alarm alarm;
  wheel.schedule(alarm.timer, start + seconds(1));
  wheel.schedule(alarm.timer, never);
  CHECK_FALSE(alarm.timer.is_scheduled());
  CHECK(wheel.next_wakeup() == never);
}

TEST_CASE("a far deadline does not wake the core before its time") {
  TimerWheel wheel(start);
  Alarm alarm;
  const Nanoseconds deadline = start + seconds(3'600) + 1;
  wheel.schedule(alarm.timer, deadline);
  for (Nanoseconds now = start; now < deadline; now += seconds(7)) {
    wheel.advance(now);
    REQUIRE(wheel.next_wakeup() == deadline);
  }
  wheel.advance(deadline);
  CHECK(alarm.fired_count == 1);
}

TEST_CASE("a deadline in the past fires at the next advance") {
  TimerWheel wheel(start);
  wheel.advance(start + seconds(10));
  Alarm past, negative;
  wheel.schedule(past.timer, start);
  wheel.schedule(negative.timer, -5);
  CHECK(wheel.next_wakeup() <= start);
  wheel.advance(start + seconds(10));
  CHECK(past.fired_count == 1);
  CHECK(negative.fired_count == 1);
}

TEST_CASE("a cancelled timer does not fire and a moved one fires once, at its last deadline") {
  TimerWheel wheel(start);
  Alarm cancelled, later, earlier;
  wheel.schedule(cancelled.timer, start + milliseconds(5));
  wheel.schedule(later.timer, start + milliseconds(5));
  wheel.schedule(earlier.timer, start + seconds(500));
  wheel.cancel(cancelled.timer);
  wheel.cancel(cancelled.timer);
  wheel.schedule(later.timer, start + seconds(400));
  wheel.schedule(earlier.timer, start + milliseconds(7));
  CHECK(wheel.size() == 2);
  wheel.advance(start + seconds(399));
  CHECK(cancelled.fired_count == 0);
  CHECK(later.fired_count == 0);
  CHECK(earlier.fired_count == 1);
  wheel.advance(start + seconds(400));
  CHECK(later.fired_count == 1);
}

TEST_CASE("a callback that schedules its timer again in the past fires once for each advance") {
  struct Again {
    Again(TimerWheel& its_wheel) noexcept : wheel(its_wheel), timer(on_timer, this) {}
    static void on_timer(void* context) noexcept {
      auto* again = static_cast<Again*>(context);
      ++again->fired_count;
      again->wheel.schedule(again->timer, start - 1);
    }
    TimerWheel& wheel;
    Timer timer;
    int fired_count = 0;
  };
  TimerWheel wheel(start);
  Again again(wheel);
  wheel.schedule(again.timer, start);
  for (int turn = 1; turn <= 5; ++turn) {
    wheel.advance(start + seconds(turn));
    CHECK(again.fired_count == turn);
    CHECK(wheel.next_wakeup() <= start + seconds(turn));
  }
  wheel.cancel(again.timer);
}

TEST_CASE("a callback may cancel, move and destroy timers that are due in the same advance") {
  struct Group {
    explicit Group(TimerWheel& its_wheel) : wheel(its_wheel) {
      for (auto& timer : timers) timer = std::make_unique<Timer>(on_timer, this);
    }
    static void on_timer(void* context) noexcept {
      auto* group = static_cast<Group*>(context);
      if (++group->fired_count > 1) return;
      // Whichever comes first takes care of the other three.
      int handled_count = 0;
      for (auto& timer : group->timers) {
        if (!timer->is_scheduled()) {
          timer.reset();  // The one that is running.
        } else if (handled_count++ == 0) {
          group->wheel.cancel(*timer);
          timer.reset();
        } else {
          group->wheel.schedule(*timer, start + seconds(2));
        }
      }
    }
    TimerWheel& wheel;
    std::array<std::unique_ptr<Timer>, 4> timers;
    int fired_count = 0;
  };
  TimerWheel wheel(start);
  Group group(wheel);
  for (auto& timer : group.timers) wheel.schedule(*timer, start + seconds(1));
  wheel.advance(start + seconds(1));
  CHECK(group.fired_count == 1);
  CHECK(wheel.size() == 2);
  wheel.advance(start + seconds(2));
  CHECK(group.fired_count == 3);
  CHECK(wheel.size() == 0);
}

TEST_CASE("a random history agrees with a multimap of deadlines") {
  struct Probe {
    Probe() noexcept : timer(on_timer, this) {}
    static void on_timer(void* context) noexcept { static_cast<Probe*>(context)->is_fired = true; }
    Timer timer;
    bool is_fired = false;
  };
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    std::vector<std::unique_ptr<Probe>> probes;
    for (int i = 0; i < 200; ++i) probes.push_back(std::make_unique<Probe>());
    Nanoseconds now = start;
    TimerWheel wheel(now);
    std::multimap<Nanoseconds, Probe*> model;
    const auto forget = [&](Probe* probe) {
      for (auto entry = model.begin(); entry != model.end(); ++entry) {
        if (entry->second != probe) continue;
        model.erase(entry);
        return;
      }
    };
    // Distances of every size, from nanoseconds to weeks.
    const auto distance = [&] {
      return static_cast<Nanoseconds>(random() >> (13 + random() % 50));
    };
    for (int step = 0; step < 3'000; ++step) {
      Probe* probe = probes[random() % probes.size()].get();
      const uint64_t action = random() % 4;
      if (action <= 1) {
        forget(probe);
        const Nanoseconds deadline = now + distance() - (random() % 8 == 0 ? milliseconds(2) : 0);
        wheel.schedule(probe->timer, deadline);
        model.emplace(deadline, probe);
      } else if (action == 2) {
        forget(probe);
        wheel.cancel(probe->timer);
      } else {
        // Half of the time to exactly the next deadline or just before it.
        const Nanoseconds next = model.empty() ? now : std::max(now, model.begin()->first);
        now = random() % 2 == 0 ? std::max(now, next - static_cast<Nanoseconds>(random() % 2))
                                : now + distance() / 1024;
        wheel.advance(now);
        const auto end = model.upper_bound(now);
        for (auto entry = model.begin(); entry != end; ++entry) {
          REQUIRE(entry->second->is_fired);
          entry->second->is_fired = false;
        }
        model.erase(model.begin(), end);
        for (const auto& each : probes) REQUIRE_FALSE(each->is_fired);
      }
      REQUIRE(wheel.size() == model.size());
      REQUIRE((wheel.next_wakeup() == never) == model.empty());
      if (!model.empty()) REQUIRE(wheel.next_wakeup() <= model.begin()->first);
    }
    for (const auto& each : probes) wheel.cancel(each->timer);
  }
}

TEST_CASE("sleeping until next_wakeup takes few wake-ups that fire nothing") {
  // A core that sleeps to the given time, advances and asks again: after cancellations it may wake
  // for nothing, but not more than once for each.
  std::mt19937_64 random(3);
  TimerWheel wheel(start);
  std::vector<std::unique_ptr<Alarm>> alarms;
  for (int i = 0; i < 500; ++i) {
    alarms.push_back(std::make_unique<Alarm>());
    wheel.schedule(
        alarms.back()->timer,
        start + static_cast<Nanoseconds>(random() % static_cast<uint64_t>(seconds(7'200))));
  }
  for (int i = 0; i < 500; i += 2) wheel.cancel(alarms[static_cast<size_t>(i)]->timer);
  int wakes_count = 0;
  while (wheel.size() > 0) {
    wheel.advance(wheel.next_wakeup());
    ++wakes_count;
    REQUIRE(wakes_count <= 500);
  }
  for (size_t i = 0; i < alarms.size(); ++i)
    CHECK(alarms[i]->fired_count == static_cast<int>(i % 2));
}

}  // namespace helios
