#include "helios/runtime/core.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/runtime/cpu_set.h"

namespace helios {
namespace {

// How long a core sleeps at most: kernels before 6.8 could lose a completion that came together
// with the end of a wait, and the next enter then delivers it.
constexpr Nanoseconds sleep_max = seconds(1);
// How long it sleeps at most while messages of its own wait for room in another's ring.
constexpr Nanoseconds unsent_retry = microseconds(200);
// How long a receive waits to be verified after it had data (Ring::verify_receives): the end of a
// connection that the kernel missed is seen that much later. A busy socket costs one poll in that
// time, an idle one nothing.
constexpr Nanoseconds verify_delay = milliseconds(500);

class RingWaker final : public Waker {
 public:
  explicit RingWaker(Ring& ring) noexcept : ring_(ring) {}
  void wake(CoreId peer) noexcept override { ring_.wake(peer); }

 private:
  Ring& ring_;
};

// The loop of one core; all of it lives in the core's thread.
class Loop {
 public:
  Loop(const CoreOptions& options, const CoreShared& shared, Ring& ring)
      : ring_(ring),
        waker_(ring),
        mailbox_(shared.mailboxes, options.id, waker_),
        turn_clock_(clock_),
        timers_(clock_.now()),
        verify_timer_(on_verify, this),
        context_{options.id, ring_, mailbox_, timers_, turn_clock_, counters_} {}

  [[nodiscard]] CoreContext& context() noexcept { return context_; }

  void run(CoreApplication& application) noexcept {
    application.on_start();
    while (!run_turn(application)) {
    }
    timers_.cancel(verify_timer_);
    // Wake-ups that the last flush queued have still to leave.
    ring_.turn(0);
    if (mailbox_.has_unsent())
      LOG(warning, "messages to other cores are lost: they ended without taking them");
  }

 private:
  // True when the application has finished.
  bool run_turn(CoreApplication& application) noexcept {
    ++counters_.turns;
    mailbox_.drain(application);
    timers_.advance(turn_clock_.now());
    const bool has_more = application.on_turn_end(turn_clock_.now());
    mailbox_.flush();
    if (application.is_finished()) return true;
    const Nanoseconds timeout = has_more ? 0 : time_to_sleep();
    const bool sleeps = timeout > 0 && mailbox_.prepare_sleep();
    ++(sleeps ? counters_.sleeps : counters_.busy_turns);
    turn_clock_.expire();
    ring_.turn(sleeps ? timeout : 0);
    if (sleeps) mailbox_.awake();
    if (ring_.has_unverified() && !verify_timer_.is_scheduled())
      timers_.schedule(verify_timer_, turn_clock_.now() + verify_delay);
    return false;
  }

  static void on_verify(void* self) noexcept { static_cast<Loop*>(self)->ring_.verify_receives(); }

  [[nodiscard]] Nanoseconds time_to_sleep() noexcept {
    const Nanoseconds now = turn_clock_.now();
    const Nanoseconds longest = now + (mailbox_.has_unsent() ? unsent_retry : sleep_max);
    return std::max<Nanoseconds>(std::min(timers_.next_wakeup(), longest) - now, 0);
  }

  Ring& ring_;
  RingWaker waker_;
  Mailbox mailbox_;
  MonotonicClock clock_;
  TurnClock turn_clock_;
  TimerWheel timers_;
  Timer verify_timer_;
  CoreCounters counters_;
  CoreContext context_;
};

}  // namespace

Core::Core(const CoreOptions& options, const CoreShared& shared, CoreApplicationFactory factory)
    : options_(options), shared_(shared), factory_(std::move(factory)) {
  ASSERT(options.id < shared.mailboxes.cores_count());
  ASSERT(shared.wakes.cores_count() == shared.mailboxes.cores_count());
}

Core::~Core() {
  ASSERT(is_joined_);
}

Result<std::unique_ptr<Core>> Core::start(const CoreOptions& options, const CoreShared& shared,
                                          CoreApplicationFactory factory) {
  std::unique_ptr<Core> core(new Core(options, shared, std::move(factory)));
  const int error = pthread_create(&core->thread_, nullptr, run_thread, core.get());
  if (error != 0) {
    return Error{"the thread of core " + std::to_string(options.id) +
                 " could not be started: " + strerror(error)};
  }
  core->is_joined_ = false;
  core->start_state_.wait(StartState::starting, std::memory_order_acquire);
  if (core->start_state_.load(std::memory_order_acquire) == StartState::failed) {
    core->join();
    return Error{"core " + std::to_string(options.id) + ": " + core->start_error_};
  }
  return core;
}

void Core::join() noexcept {
  if (is_joined_) return;
  const int error = pthread_join(thread_, nullptr);
  ASSERT(error == 0);
  is_joined_ = true;
}

void* Core::run_thread(void* argument) noexcept {
  Core& core = *static_cast<Core*>(argument);
  set_current_core(core.options_.id);
  char name[16];  // The kernel's limit.
  snprintf(name, sizeof(name), "helios-%u", unsigned{core.options_.id});
  pthread_setname_np(pthread_self(), name);
  if (core.options_.cpu >= 0 && !pin_current_thread(core.options_.cpu))
    LOG(warning, "the thread could not be pinned to CPU %d", core.options_.cpu);
  const Result<bool> result = core.run();
  core.has_ended_.store(true, std::memory_order_release);
  if (!result.ok()) {
    core.start_error_ = result.error();
    core.report_start(StartState::failed);
  }
  return nullptr;
}

// Returns when the loop has ended, or with what prevented its start.
[[gnu::hot]] Result<bool> Core::run() noexcept {
  Result<std::unique_ptr<Ring>> ring = Ring::create(options_.ring);
  if (!ring.ok()) return Error{ring.error()};
  ring.value()->accept_wakes(shared_.wakes, options_.id);
  Loop loop(options_, shared_, *ring.value());
  Result<std::unique_ptr<CoreApplication>> application = factory_(loop.context());
  if (!application.ok()) return Error{application.error()};
  report_start(StartState::running);
  loop.run(*application.value());
  return true;
}

void Core::report_start(StartState state) noexcept {
  start_state_.store(state, std::memory_order_release);
  start_state_.notify_one();
}

}  // namespace helios
