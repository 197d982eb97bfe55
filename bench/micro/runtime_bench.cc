// Timers, and messages between cores.
#include <benchmark/benchmark.h>
#include <poll.h>
#include <unistd.h>

#include <cstdint>
#include <deque>
#include <thread>

#include "bench/micro/meter.h"
#include "helios/runtime/core.h"
#include "helios/runtime/mailbox.h"
#include "helios/runtime/ring_waker.h"
#include "helios/runtime/timer_wheel.h"

namespace helios::bench {
namespace {

void count_firing(void* context) noexcept {
  ++*static_cast<uint64_t*>(context);
}

// A query's deadline: set when it begins, cancelled when it ends, among the deadlines of a thousand
// others.
void timer_schedule_cancel(benchmark::State& state) {
  uint64_t fired = 0;
  TimerWheel wheel(0);
  std::deque<Timer> others;
  for (int i = 0; i < 1000; ++i)
    wheel.schedule(others.emplace_back(count_firing, &fired), seconds(30) + milliseconds(i));
  Timer timer(count_firing, &fired);
  {
    Meter meter(state, 1, Allocations::forbidden);
    for (auto _ : state) {
      wheel.schedule(timer, seconds(30));
      wheel.cancel(timer);
    }
  }
  if (fired != 0 || wheel.size() != others.size()) fail(state, "timers are missing");
  for (Timer& other : others) wheel.cancel(other);
}
BENCHMARK(timer_schedule_cancel);

// A thousand timers, one due each millisecond, that are set anew when they fire; an op is one turn.
struct Periodic {
  explicit Periodic(TimerWheel& timer_wheel) noexcept : wheel(timer_wheel), timer(fire, this) {}
  static void fire(void* context) noexcept {
    auto& self = *static_cast<Periodic*>(context);
    ++self.fired;
    self.wheel.schedule(self.timer, self.timer.deadline() + seconds(1));
  }
  TimerWheel& wheel;
  Timer timer;
  uint64_t fired = 0;
};

void timer_advance(benchmark::State& state) {
  TimerWheel wheel(0);
  std::deque<Periodic> timers;
  for (int i = 1; i <= 1000; ++i) {
    Periodic& periodic = timers.emplace_back(wheel);
    wheel.schedule(periodic.timer, milliseconds(i));
  }
  Nanoseconds now = 0;
  {
    Meter meter(state, 1, Allocations::forbidden);
    for (auto _ : state) {
      now += milliseconds(1);
      wheel.advance(now);
      benchmark::DoNotOptimize(wheel.next_wakeup());
    }
  }
  uint64_t fired = 0;
  for (Periodic& periodic : timers) {
    fired += periodic.fired;
    wheel.cancel(periodic.timer);
  }
  if (fired != static_cast<uint64_t>(state.iterations()))
    fail(state, "a timer did not fire in its turn");
}
BENCHMARK(timer_advance);

// A mailbox that keeps the last message.
struct Post final : MessageHandler {
  Post(MailboxSystem& system, CoreId core, Waker& waker) : mailbox(system, core, waker) {}
  void on_message(const Message& message) noexcept override { last = message.words[0]; }
  void send(CoreId to, uint64_t number) noexcept {
    Message message;
    message.words[0] = number;
    mailbox.send(to, message);
    mailbox.flush();
  }
  Mailbox mailbox;
  uint64_t last = 0;
};

// Both cores on this thread: send, publish, drain.
void mailbox_hop(benchmark::State& state) {
  MailboxSystem system(2);
  WakeTable wakes(2);
  EventWaker waker(wakes);
  Post sender(system, 0, waker);
  Post receiver(system, 1, waker);
  uint64_t number = 0;
  {
    Meter meter(state, 1, Allocations::forbidden);
    for (auto _ : state) {
      sender.send(1, ++number);
      receiver.mailbox.drain(receiver);
    }
  }
  if (receiver.last != number) fail(state, "a message is missing");
}
BENCHMARK(mailbox_hop);

// How a core waits for its mail.
enum class Wait : uint8_t { spin, sleep };

constexpr uint64_t stop_number = UINT64_MAX;

void wait_for_mail(Post& post, Wait wait, WakeTable& wakes) noexcept {
  if (wait == Wait::spin) {
    // The other thread may need this CPU.
    for (int i = 0; post.mailbox.drain(post) == 0; ++i)
      if (i % 1024 == 1023) std::this_thread::yield();
    return;
  }
  while (post.mailbox.drain(post) == 0) {
    if (!post.mailbox.prepare_sleep()) continue;
    pollfd entry{wakes.event_fd(post.mailbox.core()), POLLIN, 0};
    (void)poll(&entry, 1, -1);
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t size = read(entry.fd, &count, sizeof(count));
    post.mailbox.awake();
  }
}

// There and back between two threads; an op is both ways.
void mailbox_round_trips(benchmark::State& state, Wait wait) {
  MailboxSystem system(2);
  WakeTable wakes(2);
  if (!wakes.ok()) return fail(state, "no eventfd: too many open files");
  EventWaker waker(wakes);
  Post here(system, 0, waker);
  Post there(system, 1, waker);
  std::thread thread([&] {
    while (there.last != stop_number) {
      wait_for_mail(there, wait, wakes);
      if (there.last != stop_number) there.send(0, there.last);
    }
  });
  uint64_t number = 0;
  bool is_good = true;
  {
    Meter meter(state);
    for (auto _ : state) {
      here.send(1, ++number);
      wait_for_mail(here, wait, wakes);
      is_good &= here.last == number;
    }
  }
  here.send(1, stop_number);
  thread.join();
  if (!is_good) fail(state, "a message is missing");
}

void mailbox_round_trip_awake(benchmark::State& state) {
  mailbox_round_trips(state, Wait::spin);
}
BENCHMARK(mailbox_round_trip_awake)->UseRealTime();

// Each sleeps until the other one wakes it, by eventfd. (MSG_RING: see bench/ring.)
void mailbox_round_trip_asleep(benchmark::State& state) {
  mailbox_round_trips(state, Wait::sleep);
}
BENCHMARK(mailbox_round_trip_asleep)->UseRealTime();

}  // namespace
}  // namespace helios::bench
