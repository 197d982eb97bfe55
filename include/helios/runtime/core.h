// One core: a pinned thread with a ring, a timer wheel and a mailbox, and the loop that drives
// them.
//
// A turn of the loop:
//   deliver what completed (the ring), then the mail (at most 64 messages), then the timers; let
//   the application do what it put off (on_turn_end queues its sends); publish messages; then enter
//   the kernel once: submit everything, and sleep until something completes, a timer is due or
//   another core wakes us.
//
// Everything of a core is made, used and destroyed in its own thread (the kernel insists on it for
// the ring). Shared with other threads are the mailbox system and the wake table only; both outlive
// every core.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <pthread.h>

#include "helios/base/clock.h"
#include "helios/base/result.h"
#include "helios/runtime/mailbox.h"
#include "helios/runtime/ring.h"
#include "helios/runtime/ring_waker.h"
#include "helios/runtime/timer_wheel.h"

namespace helios {

// The time as one core sees it: read at the first question in a turn and the same until the turn
// ends. One thread. Note: read after the sleep, not before, so that a deadline counted from an
// event is not short of the sleep's length.
class TurnClock final : public Clock {
 public:
  explicit TurnClock(Clock& source) noexcept : source_(source) {}
  [[nodiscard]] Nanoseconds now() noexcept override {
    if (!is_read_) now_ = source_.now();
    is_read_ = true;
    return now_;
  }
  // The turn is over.
  void expire() noexcept { is_read_ = false; }

 private:
  Clock& source_;
  Nanoseconds now_ = 0;
  bool is_read_ = false;
};

// Of one core, since its start. Its thread only.
struct CoreCounters {
  uint64_t turns = 0;
  uint64_t sleeps = 0;      // Turns that waited, if only for a moment.
  uint64_t busy_turns = 0;  // Turns that did not, because there was mail, a timer or more to do.
};

// What a core's application works with. Lives as long as the application.
struct CoreContext {
  CoreId id;
  Ring& ring;
  Mailbox& mailbox;
  TimerWheel& timers;
  Clock& clock;  // The turn's time.
  const CoreCounters& counters;
};

// What runs on a core; `server` implements it. All calls come from the core's thread. Messages
// (on_message) come between events.
class CoreApplication : public MessageHandler {
 public:
  virtual ~CoreApplication() = default;
  // Once, before the first turn; the ring is ready.
  virtual void on_start() noexcept = 0;
  // Once per turn after all events, timers and messages. Returns true when there is more to do at
  // once (do not sleep).
  virtual bool on_turn_end(Nanoseconds now) noexcept = 0;
  // The loop ends when true. Asked after on_turn_end. Requires then: no op is in flight, no timer
  // is scheduled when the application is destroyed, which follows.
  virtual bool is_finished() noexcept = 0;
};

// Makes the application, in the core's thread. An error ends the start of the core.
using CoreApplicationFactory =
    std::function<Result<std::unique_ptr<CoreApplication>>(CoreContext& context)>;

// What all cores share.
struct CoreShared {
  MailboxSystem& mailboxes;
  WakeTable& wakes;
};

struct CoreOptions {
  CoreId id = 0;
  int cpu = -1;  // The CPU that the thread is pinned to; -1: none.
  RingOptions ring;
};

class Core {
 public:
  // Starts the thread and waits until its ring and application exist. The error is a sentence for a
  // person: the thread, the ring (see Ring::create) or the application could not be made, and
  // nothing is left behind. Main thread. Requires: `shared` outlives the core.
  [[nodiscard]] static Result<std::unique_ptr<Core>> start(const CoreOptions& options,
                                                           const CoreShared& shared,
                                                           CoreApplicationFactory factory);
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;
  // Requires: joined.
  ~Core();

  // Waits for the end of the thread: until the application has finished. It is told to by message.
  // Main thread.
  void join() noexcept;
  // Whether the loop has ended, so that join will not wait. Any thread.
  [[nodiscard]] bool has_ended() const noexcept {
    return has_ended_.load(std::memory_order_acquire);
  }
  [[nodiscard]] CoreId id() const noexcept { return options_.id; }

 private:
  enum class StartState : uint32_t { starting, running, failed };

  Core(const CoreOptions& options, const CoreShared& shared, CoreApplicationFactory factory);
  static void* run_thread(void* core) noexcept;
  [[nodiscard]] Result<bool> run() noexcept;
  void report_start(StartState state) noexcept;

  CoreOptions options_;
  CoreShared shared_;
  CoreApplicationFactory factory_;
  pthread_t thread_{};
  bool is_joined_ = true;
  // Release by the thread, acquire by `start`, which waits on it: start_error_ is written before.
  std::atomic<StartState> start_state_{StartState::starting};
  std::string start_error_;
  std::atomic<bool> has_ended_{false};  // Release by the thread, acquire by has_ended.
};

// Wakes cores from a thread that has no ring (the main thread's mailbox).
class EventWaker final : public Waker {
 public:
  explicit EventWaker(WakeTable& wakes) noexcept : wakes_(wakes) {}
  void wake(CoreId peer) noexcept override { wakes_.wake_by_event(peer); }

 private:
  WakeTable& wakes_;
};

}  // namespace helios
