// A limit that all cores share: on the server connections or on the clients of a node, a database
// or a user.
//
// The permits of a pool are dealt out over the cores (slice.h). These totals are one counter for
// the process instead: it is touched only when a connection begins or has ended, never on the path
// of a query, so its cache line does not matter there, and it is exact. Any thread.
#pragma once

#include <atomic>
#include <cstdint>

#include "helios/base/assert.h"

namespace helios {

class Limit {
 public:
  // Starved callers of more than one kind.
  static constexpr uint64_t several = UINT64_MAX;

  // `max` 0: no limit.
  explicit Limit(uint32_t max) noexcept : max_(max) {}

  // Takes one unless `max` are taken. On failure the caller is remembered as starved (see
  // give_back); `who`: any number that tells callers apart, not 0.
  [[nodiscard]] bool try_take(uint64_t who = several) noexcept {
    if (take()) return true;
    // Announce, then look again: whoever gives back after our announcement will see it.
    uint64_t none = 0;
    if (!starved_.compare_exchange_strong(none, who) && none != who) starved_.store(several);
    return take();
  }
  // True when somebody was refused since the last time this returned true: tell every core to try
  // again.
  [[nodiscard]] bool give_back() noexcept {
    const uint32_t before = taken_.fetch_sub(1);
    ASSERT(before > 0);
    return starved_.load() != 0 && starved_.exchange(0) != 0;
  }
  // Somebody was refused and nothing was given back since. Cheap: the line changes only then.
  [[nodiscard]] bool is_starved() const noexcept {
    return starved_.load(std::memory_order_relaxed) != 0;
  }
  // By anybody but this one.
  [[nodiscard]] bool is_starved_by_other(uint64_t who) const noexcept {
    const uint64_t starved = starved_.load(std::memory_order_relaxed);
    return starved != 0 && starved != who;
  }
  [[nodiscard]] uint32_t taken() const noexcept { return taken_.load(std::memory_order_relaxed); }
  // At this moment.
  [[nodiscard]] bool has_room() const noexcept { return max_ == 0 || taken() < max_; }
  [[nodiscard]] uint32_t max() const noexcept { return max_; }

 private:
  bool take() noexcept {
    uint32_t taken = taken_.load();
    do {
      if (max_ != 0 && taken >= max_) return false;
    } while (!taken_.compare_exchange_weak(taken, taken + 1));
    return true;
  }

  uint32_t max_;
  std::atomic<uint32_t> taken_{0};
  // Partner of `taken_`: both sequentially consistent, so that a refusal and a give_back cannot
  // miss each other.
  // On a line of its own: it is read when a backend goes idle.
  alignas(128) std::atomic<uint64_t> starved_{0};
};

}  // namespace helios
