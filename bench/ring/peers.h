// What the relay stands between: a load that checks every byte, and a server that sends back what
// it gets.
//
// Both use epoll and plain system calls, in processes of their own, single-threaded: their cost
// does not count, and must not depend on the switches.
#pragma once

#include <sys/types.h>

#include "bench/ring/run.h"
#include "helios/base/result.h"

namespace helios::bench {

// Accepts its connections and serves them until all have ended.
[[nodiscard]] Result<bool> run_echo(const RunOptions& options, int listener);

// Each connection sends a message, waits until it is back, checks it and sends the next one. Fills
// `page.result`.
[[nodiscard]] Result<bool> run_load(const RunOptions& options, const Address& target, pid_t relay,
                                    SharedPage& page);

}  // namespace helios::bench
