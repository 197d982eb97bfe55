// The signals that the process lives with. No handlers: the main thread waits for them like for any
// event.
//
// Block them first, in the main thread, before any thread is made: threads inherit the mask.
#pragma once

#include <cstdint>
#include <optional>

#include "helios/base/clock.h"

namespace helios {

enum class Signal : uint8_t {
  terminate,   // SIGTERM.
  interrupt,   // SIGINT.
  hangup,      // SIGHUP: reload the configuration.
  statistics,  // SIGUSR1: write statistics to the log.
};

// It asks the program to end.
[[nodiscard]] constexpr bool is_stop(Signal signal) noexcept {
  return signal == Signal::terminate || signal == Signal::interrupt;
}

// Blocks SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGPIPE in the calling thread and in those that it
// makes from now on. A write to a closed socket or pipe then ends in EPIPE.
void block_signals() noexcept;

// Waits until one of them comes (SIGPIPE is of no interest), or came since block_signals. Nothing
// when `timeout` passed first (`never`: waits without limit). Requires: they are blocked in every
// thread.
[[nodiscard]] std::optional<Signal> wait_for_signal(Nanoseconds timeout) noexcept;

}  // namespace helios
