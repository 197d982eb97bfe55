// How long it takes to wake a thread that sleeps in its ring, there and back again.
//
// Two threads, each with a ring of its own and nothing to do but answer the other one: by MSG_RING,
// an op of the sender's ring, or by a write to an eventfd that the sleeper's ring polls.
#pragma once

#include <cstdint>

#include "helios/base/clock.h"
#include "helios/base/result.h"

namespace helios::bench {

enum class WakeKind : uint8_t { event_fd, msg_ring };

struct WakeOptions {
  WakeKind kind = WakeKind::event_fd;
  int first_cpu = 0;
  int second_cpu = 0;
  bool batch_policy = true;
  Nanoseconds span = milliseconds(500);
};

// Nanoseconds for one round trip, the mean over `span`. Each one is checked. Runs two threads that
// are gone when it returns.
[[nodiscard]] Result<double> measure_wake(const WakeOptions& options);

}  // namespace helios::bench
