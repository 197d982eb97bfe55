// One measurement: a relay between a load and an echo server, each in a process of its own.
//
//   load  <-- connections -->  relay  <-- connections -->  echo server
//
// The parent makes the listening sockets, forks the three and waits for them. What they tell it
// lies in a page that they share.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "bench/ring/sockets.h"
#include "bench/ring/switches.h"
#include "helios/base/clock.h"
#include "helios/base/result.h"

namespace helios::bench {

struct RunOptions {
  Switches switches;
  Family family = Family::tcp;
  uint32_t connections = 1;
  uint32_t message_size = 64;               // A multiple of 8.
  Nanoseconds warm_up = milliseconds(100);  // At least.
  Nanoseconds span = milliseconds(500);     // Counted.
  int relay_cpu = 0;
  int other_cpu = 0;
  bool batch_policy = true;  // SCHED_BATCH: nobody is preempted by whom it wakes.
};

// What the relay counts. It writes after each turn; the load reads at both ends of its span.
struct RelayCounters {
  std::atomic<uint64_t> enters{0};
  std::atomic<uint64_t> starved{0};         // Receives that met an empty ring of buffers.
  std::atomic<uint64_t> direct_sends{0};    // send(2) took everything.
  std::atomic<uint64_t> skipped_sends{0};   // Ops without a completion.
  std::atomic<uint64_t> repeated_sends{0};  // Took less than all, or would have had to wait.
};

// Of the counted span.
struct RunResult {
  uint64_t round_trips = 0;
  Nanoseconds span = 0;
  Nanoseconds relay_cpu = 0;
  Nanoseconds p50 = 0;
  Nanoseconds p99 = 0;
  uint64_t enters = 0;
  uint64_t starved = 0;
};

struct SharedPage {
  RelayCounters relay;
  RunResult result;                // Of the load.
  std::array<char, 1024> error{};  // Of the process that failed first; empty: none.
};

// Fails when a process fails, a byte is wrong, nothing moves any more, or a switch had no effect.
[[nodiscard]] Result<RunResult> run_once(const RunOptions& options);

// Makes the calling thread run on this CPU, under SCHED_BATCH if so asked. False: refused.
[[nodiscard]] bool settle_on(int cpu, bool batch_policy) noexcept;

}  // namespace helios::bench
