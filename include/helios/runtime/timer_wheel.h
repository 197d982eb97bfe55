// Deadlines of one core, in user space: no timeout op per connection.
//
// A hierarchical wheel of intrusive nodes with slots of one millisecond: a timer never fires early,
// and not later than the turn after its deadline. schedule and cancel are O(1) and allocate
// nothing; a timer moves between slots at most seven times in its life, when others fire. One
// core's data.
#pragma once

#include <cstdint>
#include <memory>

#include "helios/base/clock.h"
#include "helios/base/intrusive_list.h"

namespace helios {

struct TimerTag;

// A deadline and what to do then. Embedded in its owner. Note: the callback may schedule or cancel
// any timer, this one included, and may destroy the timer's owner.
class Timer : public ListNode<TimerTag> {
 public:
  using Callback = void (*)(void* context) noexcept;
  Timer(Callback callback, void* context) noexcept : callback_(callback), context_(context) {}

  [[nodiscard]] bool is_scheduled() const noexcept { return is_linked(); }
  [[nodiscard]] Nanoseconds deadline() const noexcept { return deadline_; }

 private:
  friend class TimerWheel;
  Callback callback_;
  void* context_;
  Nanoseconds deadline_ = never;
  uint32_t slot_ = 0;
};

class TimerWheel {
 public:
  explicit TimerWheel(Nanoseconds now) noexcept;
  ~TimerWheel();  // Requires: no timer is scheduled.

  // Sets or moves the deadline. One in the past fires at the next advance; `never` cancels. Note:
  // scheduled from a callback, it fires at a later advance than the running one.
  void schedule(Timer& timer, Nanoseconds deadline) noexcept;
  // Does nothing when the timer is not scheduled.
  void cancel(Timer& timer) noexcept;
  // Fires every timer whose deadline is <= now, each once, in no particular order. Requires: not
  // called from a callback.
  void advance(Nanoseconds now) noexcept;
  // A time not later than the earliest deadline: the deadline itself unless an earlier one was
  // cancelled. `never` when nothing is scheduled. Cheap: two bit scans.
  [[nodiscard]] Nanoseconds next_wakeup() const noexcept;
  [[nodiscard]] size_t size() const noexcept { return count_; }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  size_t count_ = 0;
};

}  // namespace helios
