// The relay under test: what one socket of a pair says goes to the other one, through io_uring.
//
// Runs in a process of its own, single-threaded. Every switch of switches.h acts here.
#pragma once

#include <vector>

#include "bench/ring/run.h"
#include "helios/base/result.h"

namespace helios::bench {

// Accepts its clients, connects each to `target`, and relays until all have ended.
[[nodiscard]] Result<bool> run_relay(const RunOptions& options, int listener, const Address& target,
                                     RelayCounters& counters);

}  // namespace helios::bench
