// Accepts on one listening socket of one core, with one multishot op.
//
// When descriptors or memory are out it stops and tries again after a while instead of spinning;
// clients wait in the kernel's queue meanwhile. Stopping accepts what is queued and then closes.
// Called on its core only. Invariant: `accepting` has the accept op in flight, `waiting` has the
// timer scheduled, never both.
#pragma once

#include <cstdint>

#include "helios/base/clock.h"
#include "helios/runtime/io.h"
#include "helios/runtime/timer_wheel.h"

namespace helios {

class Listener;

class ListenerOwner {
 public:
  // A client came. The descriptor (non-blocking, close-on-exec) is the owner's.
  virtual void on_accepted(Listener& listener, int fd, int family) noexcept = 0;
  // After stop(): the socket is closed. The owner may destroy the listener here.
  virtual void on_stopped(Listener& listener) noexcept = 0;

 protected:
  ~ListenerOwner() = default;
};

// accept4(2) at once: a descriptor or a negative errno. A seam: descriptors of a fake Io are not
// the kernel's.
using AcceptNow = int (*)(int fd) noexcept;
[[nodiscard]] int accept_now(int fd) noexcept;

class Listener final : public IoTarget {
 public:
  enum class State : uint8_t {
    closed,     // No socket.
    accepting,  // The accept op is in flight.
    waiting,    // Out of descriptors or memory: the timer starts again.
    stopping,   // The accept op is being cancelled; then the rest of the queue and the end.
  };

  Listener(Io& io, TimerWheel& timers, Clock& clock, ListenerOwner& owner) noexcept;
  ~Listener();  // Requires: closed.

  // Takes over a listening descriptor. Requires: closed.
  void start(int fd, int family) noexcept;
  // Accepts what is queued, closes, then on_stopped: from the loop, or from here when no op is in
  // flight. Idempotent.
  void stop(AcceptNow accept = accept_now) noexcept;

  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] uint64_t accepted_count() const noexcept { return accepted_count_; }
  // How often accepting had to wait.
  [[nodiscard]] uint64_t shortages_count() const noexcept { return shortages_count_; }

  void on_io(const IoEvent& event) noexcept override;

  static constexpr Nanoseconds shortage_delay = milliseconds(100);
  static constexpr Nanoseconds warning_interval = seconds(10);

 private:
  void arm() noexcept;
  void wait(int error) noexcept;
  void finish() noexcept;

  Io& io_;
  TimerWheel& timers_;
  Clock& clock_;
  ListenerOwner& owner_;
  Timer timer_;
  AcceptNow accept_ = accept_now;
  TargetId target_;
  int fd_ = -1;
  int family_ = 0;
  bool in_flight_ = false;
  State state_ = State::closed;
  Nanoseconds warned_at_ = 0;
  uint64_t accepted_count_ = 0;
  uint64_t shortages_count_ = 0;
};

}  // namespace helios
