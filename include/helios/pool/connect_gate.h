// The cap on connects to a node that are under way, over all cores.
//
// A connect holds a place from its beginning until the backend is ready or, when it fails, gone. A
// core that is refused says since when its first pool waits. A place that is left goes to the core
// that has waited longest, and is not free for whoever asks in between: nobody is passed over.
//
// Any thread: one object for each node, touched only when a server connection begins or is ready.
// Invariant: places taken, those on their way in messages included, <= max (but for set_max).
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "helios/base/clock.h"
#include "helios/runtime/mailbox.h"

namespace helios {

class ConnectGate {
 public:
  // `max` 0: no cap.
  ConnectGate(uint32_t max, CoreId cores_count) noexcept;

  // Takes a place. False: there is none; `core` waits for one since `since`, and for no other time
  // that it has told before. A leave() will return it.
  [[nodiscard]] bool try_enter(CoreId core, Nanoseconds since) noexcept;
  // Nobody on this core waits any more. Note: a place may be on its way to it.
  void withdraw(CoreId core) noexcept;
  // Gives a place back. Returns the core whose place it is now, for the caller to tell; nullopt: it
  // is free.
  [[nodiscard]] std::optional<CoreId> leave() noexcept;

  // From now on. Places taken beyond a smaller cap stay until they are left; after a larger one,
  // who waits has to try again.
  void set_max(uint32_t max) noexcept { max_.store(max); }
  [[nodiscard]] uint32_t taken() const noexcept { return taken_.load(std::memory_order_relaxed); }

 private:
  bool take() noexcept;
  [[nodiscard]] bool is_over() const noexcept;
  [[nodiscard]] std::optional<CoreId> longest_waiting() const noexcept;
  std::optional<CoreId> pick() noexcept;

  std::atomic<uint32_t> max_;
  std::atomic<uint32_t> taken_{0};
  // For each core; `never`: it does not wait. Partner of `taken_`: all sequentially consistent, so
  // that a refusal and a leave cannot miss each other.
  std::vector<std::atomic<Nanoseconds>> waiting_since_;
};

}  // namespace helios
