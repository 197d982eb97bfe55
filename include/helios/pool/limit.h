// A limit that all cores share: on the clients of a database or user, on the waiters of a pool, on
// what a pool takes from its reserve. (Server connections, which pools share by weight, have one of
// their own: shared_limit.h.)
//
// One counter for the process: it is touched only when a client or server connection begins or has
// ended, and by who waits, never on the path of a query that finds an idle backend, so its cache
// line does not matter, and it is exact. Any thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "helios/base/assert.h"

namespace helios {

class Limit {
 public:
  // `max` 0: no limit.
  explicit Limit(uint32_t max) noexcept : max_(max) {}

  // Takes one unless `max` are taken. A failure is remembered (see give_back).
  [[nodiscard]] bool try_take() noexcept {
    if (take()) return true;
    // Announce, then look again: whoever gives back after our announcement will see it.
    is_starved_.store(true);
    return take();
  }
  // True when somebody was refused since the last time this returned true: tell every core to try
  // again.
  [[nodiscard]] bool give_back() noexcept {
    const uint32_t before = taken_.fetch_sub(1);
    ASSERT(before > 0);
    return is_starved_.load() && is_starved_.exchange(false);
  }
  [[nodiscard]] uint32_t taken() const noexcept { return taken_.load(std::memory_order_relaxed); }
  // Takes one whether there is room or not: for what was let in under another limit.
  void take_regardless() noexcept { taken_.fetch_add(1); }
  // From now on. What is taken beyond a smaller one stays until it is given back; after a larger
  // one, who was refused has to try again.
  void set_max(uint32_t max) noexcept { max_.store(max); }
  // At this moment.
  [[nodiscard]] bool has_room() const noexcept { return max() == 0 || taken() < max(); }
  [[nodiscard]] uint32_t max() const noexcept { return max_.load(std::memory_order_relaxed); }

 private:
  bool take() noexcept {
    const uint32_t max = max_.load();
    uint32_t taken = taken_.load();
    do {
      if (max != 0 && taken >= max) return false;
    } while (!taken_.compare_exchange_weak(taken, taken + 1));
    return true;
  }

  std::atomic<uint32_t> max_;
  std::atomic<uint32_t> taken_{0};
  // Partner of `taken_`: both sequentially consistent, so that a refusal and a give_back cannot
  // miss each other.
  std::atomic<bool> is_starved_{false};
};

}  // namespace helios
