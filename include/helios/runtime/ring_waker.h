// Waking another core's ring out of its sleep.
//
// A core that sleeps is inside io_uring_enter of its own ring. Two ways reach it: a MSG_RING op
// from our ring, which leaves with our turn's enter and costs no system call of its own
// (kernel 6.11 and newer), or a write to an eventfd that the sleeper's ring polls. Which one is
// decided for each sleeper.
#pragma once

#include <atomic>
#include <memory>

#include "helios/runtime/mailbox.h"

namespace helios {

// How each core of the process can be woken. Made before the cores start and destroyed after they
// are gone; rings enter themselves (Ring::accept_wakes). Any thread may call anything.
class WakeTable {
 public:
  explicit WakeTable(CoreId cores_count);
  WakeTable(const WakeTable&) = delete;
  WakeTable& operator=(const WakeTable&) = delete;
  ~WakeTable();

  // False when an eventfd could not be made (descriptor limit): the table must not be used then.
  [[nodiscard]] bool ok() const noexcept { return ok_; }
  [[nodiscard]] CoreId cores_count() const noexcept { return count_; }

  // Wakes a core with a system call, from any thread: for threads without a ring, and where
  // MSG_RING is not to be had. A core that has no ring yet finds the wake-up when it has one.
  void wake_by_event(CoreId core) noexcept;

  // Of Ring. The descriptor of the core's ring if it takes MSG_RING, else -1.
  [[nodiscard]] int ring_fd(CoreId core) const noexcept;
  void set_ring_fd(CoreId core, int fd) noexcept;
  [[nodiscard]] int event_fd(CoreId core) const noexcept;

 private:
  struct Entry {
    std::atomic<int> ring_fd{-1};
    int event_fd = -1;
  };
  std::unique_ptr<Entry[]> entries_;
  CoreId count_;
  bool ok_ = true;
};

}  // namespace helios
