// What a session of a pool with time limits (TimeLimits) knows of its client's time.
#pragma once

#include "helios/base/clock.h"
#include "helios/runtime/timer_wheel.h"

namespace helios {

// Times are noted when something changes; the timer is looked at only. It is set when none is, or
// when something is due before it, and it finds out what is really due when it fires: a client that
// works makes no timer operation for each of its queries.
struct SessionTimeouts {
  SessionTimeouts(Timer::Callback callback, void* session) noexcept : timer(callback, session) {}

  Timer timer;
  // Since when the server works on what it works on, or nothing runs.
  Nanoseconds step_since = 0;
  Nanoseconds transaction_since = 0;  // Its first request. Means something while there is a lease.
  bool is_running = false;            // A request has not been answered.
  // The overrun for which what runs is being cancelled, by the time at which it was due; and until
  // when that may take.
  Nanoseconds overrun_at = never;
  Nanoseconds cancel_ends_at = never;
};

}  // namespace helios
