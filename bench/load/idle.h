// What idle clients cost a pooler in memory: connect, ask one thing each, rest, measure, ask again.
#pragma once

#include <cstdint>

#include "helios/base/clock.h"
#include "helios/base/result.h"
#include "load/load.h"

namespace helios::bench {

struct IdleOptions {
  // Of these, those about connections, clients, cores and watched processes.
  LoadOptions load;
  // Between the last answer and the measurement. What was needed for a moment only takes some
  // seconds to go back.
  Nanoseconds settle = seconds(4);
};

// Of the watched processes and their children, in bytes.
struct Memory {
  uint64_t rss = 0;
  uint64_t pss = 0;
  bool has_pss = false;  // Else it could not be read.
  // Of all TCP sockets of the machine, buffers only. Not part of RSS, and both ends of a
  // connection over loopback count.
  uint64_t tcp = 0;
};

struct IdleSummary {
  Memory before;                 // Without clients.
  Memory connected;              // With all of them, each having asked once.
  Memory after;                  // When they have left.
  uint64_t answered_first = 0;   // Right answers when connected...
  uint64_t answered_second = 0;  // ... and after the rest.
  LoadSummary load;              // Connects and errors.
};

[[nodiscard]] Result<IdleSummary> run_idle(const IdleOptions& options);

// The number behind "mem" in the TCP line of /proc/net/sockstat, in bytes.
[[nodiscard]] uint64_t tcp_memory_of(const char* sockstat);

}  // namespace helios::bench
