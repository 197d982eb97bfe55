#include "helios/runtime/ring_waker.h"

#include <atomic>
#include <thread>

#include "ring_support.h"

namespace helios {
namespace {

using testing::make_ring;

// A core that sleeps without a deadline until it has been woken `wakes_count` times, and answers
// each wake-up with one of core 0. No assertion inside: doctest's belong to the main thread.
void answer_wakes(WakeTable& table, const RingOptions& options, uint64_t wakes_count,
                  std::atomic<bool>& is_ready) {
  auto ring = Ring::create(options);
  if (!ring.ok()) return;
  Ring& self = *ring.value();
  self.accept_wakes(table, 1);
  is_ready.store(true);
  is_ready.notify_all();
  while (self.counters().wakes_received < wakes_count) {
    const uint64_t before = self.counters().wakes_received;
    (void)self.turn(never);
    if (self.counters().wakes_received > before) self.wake(0);
  }
  (void)self.turn(0);  // Submits the last answer.
}

// Wakes a sleeping core and sleeps until it answers, many times. A lost wake-up stops the test for
// ever, so each wait has a limit that is far longer than any answer takes.
void exchange_wakes(FeatureMask ours, FeatureMask theirs) {
  RingOptions options;
  options.targets_max = 16;
  options.features_off = ours;
  constexpr uint64_t rounds = 2000;
  WakeTable table(2);
  REQUIRE(table.ok());
  auto ring = make_ring(options);
  ring->accept_wakes(table, 0);
  options.features_off = theirs;
  std::atomic<bool> is_ready{false};
  std::thread peer([&] { answer_wakes(table, options, rounds, is_ready); });
  is_ready.wait(false);
  bool was_lost = false;
  for (uint64_t i = 1; i <= rounds && !was_lost; ++i) {
    ring->wake(1);
    int idle_turns = 0;
    while (ring->counters().wakes_received < i && !was_lost)
      if (ring->turn(seconds(5)) == 0) was_lost = ++idle_turns > 4;
  }
  // After a loss the peer must still be ended.
  for (uint64_t i = 0; was_lost && i < rounds; ++i) {
    table.wake_by_event(1);
    (void)ring->turn(milliseconds(10));
  }
  peer.join();
  CHECK_FALSE(was_lost);
  CHECK(ring->counters().wakes_sent == rounds);
}

TEST_CASE("two sleeping cores wake each other by whatever the kernel offers") {
  exchange_wakes({}, {});
}

TEST_CASE("two sleeping cores wake each other by eventfd where MSG_RING is not to be had") {
  exchange_wakes(mask_of_kernel_6_1(), mask_of_kernel_6_1());
}

TEST_CASE("cores with different features wake each other") {
  exchange_wakes({}, mask_of_kernel_6_1());
  exchange_wakes(mask_of_kernel_6_1(), {});
}

TEST_CASE("a thread without a ring wakes a core that sleeps without a deadline") {
  WakeTable table(1);
  auto ring = make_ring({});
  ring->accept_wakes(table, 0);
  std::thread outsider([&] { table.wake_by_event(0); });
  while (ring->counters().wakes_received == 0) (void)ring->turn(never);
  outsider.join();
  CHECK(ring->counters().wakes_received == 1);
}

TEST_CASE("a wake-up that came before the ring was made ends its first sleep") {
  WakeTable table(1);
  table.wake_by_event(0);
  auto ring = make_ring({});
  ring->accept_wakes(table, 0);
  while (ring->counters().wakes_received == 0) (void)ring->turn(never);
  CHECK(ring->counters().wakes_received == 1);
}

TEST_CASE("waking a core whose ring is gone does nothing") {
  testing::on_each_kernel([](RingOptions options) {
    WakeTable table(2);
    auto ring = make_ring(options);
    ring->accept_wakes(table, 0);
    {
      auto gone = make_ring(options);
      gone->accept_wakes(table, 1);
      // Queued while the ring is there, submitted when it is gone.
      ring->wake(1);
    }
    CHECK(table.ring_fd(1) == -1);
    (void)ring->turn(0);
    ring->wake(1);
    (void)ring->turn(0);
    CHECK(ring->counters().wakes_sent == 2);
  });
}

}  // namespace
}  // namespace helios
