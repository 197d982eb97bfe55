// A limit on server connections that several pools share, and who gets what: of a node, a database
// or a user.
//
// The permits of a pool are dealt out over the cores (slice.h). These totals are one count for the
// process instead. It is touched when a server connection begins or has ended, so it is exact, and
// a mutex does; on the path of a query only is_wanted_back() and is_starved() are read, which
// change rarely. Any thread.
//
// When the limit is full, pools that want more share it by weight: a pool is due before another
// when after its next connection it would still have less for its weight than the other has, or
// when it has less than its minimum and the other more. What is free goes to nobody else while a
// pool that is due wants it; where nothing is free, a pool that has too much is asked to give one
// up at its next release. Pools that have nothing come before all others once they have wanted for
// `patience`, in the order in which they came: so they take turns where a limit is smaller than
// their number.
//
// A pool says that it wants more by trying; it has to try again within want_time (every
// retry_interval, say), or what is free is no longer kept for it. Each of its cores does so, and
// withdraws when nobody waits there any more.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "helios/base/clock.h"
#include "helios/runtime/mailbox.h"

namespace helios {

// A pool, as the limit knows it, and the core that speaks for it.
struct LimitClaim {
  uint64_t pool = 0;  // Any number that tells pools apart, not 0.
  uint32_t weight = 1;
  uint32_t minimum = 0;
  CoreId core = 0;
};

class SharedLimit {
 public:
  static constexpr Nanoseconds want_time = milliseconds(250);
  // How often a pool that was refused should try again.
  static constexpr Nanoseconds retry_interval = milliseconds(100);
  // A pool that has nothing wants something for so long before it is its turn.
  static constexpr Nanoseconds patience = milliseconds(200);
  // How long a connection that makes room may take to end before another one is closed.
  static constexpr Nanoseconds room_patience = seconds(1);

  // `max` 0: no limit; everything is counted all the same.
  explicit SharedLimit(uint32_t max) noexcept : max_(max) {}
  SharedLimit(const SharedLimit&) = delete;
  SharedLimit& operator=(const SharedLimit&) = delete;

  // Takes one for this pool. On failure the pool is remembered as wanting.
  [[nodiscard]] bool try_take(const LimitClaim& claim, Nanoseconds now);
  // This core of the pool was refused and wants nothing any more. True when what was kept for it
  // may help another that was refused: tell every core to try again.
  [[nodiscard]] bool withdraw(uint64_t pool, CoreId core);
  // Requires: the pool has one. True when a pool was refused since the last time this returned
  // true: tell every core to try again.
  [[nodiscard]] bool give_back(uint64_t pool);

  // A pool was refused and nothing was given back since.
  [[nodiscard]] bool is_starved() const noexcept {
    return starved_.load(std::memory_order_relaxed) != 0;
  }
  // Another than this one. Requires: is_starved() was seen; may be wrong by then.
  [[nodiscard]] bool is_starved_by_other(uint64_t pool) const noexcept {
    const uint64_t starved = starved_.load(std::memory_order_relaxed);
    return starved != 0 && starved != pool;
  }
  // Some pool is asked to give one up, because of its weight; give_up() tells which.
  [[nodiscard]] bool is_wanted_back() const noexcept {
    return asked_.load(std::memory_order_relaxed) != 0;
  }
  // True once for each time that this pool was asked, and has given none back since: it closes one
  // connection.
  [[nodiscard]] bool give_up(uint64_t pool) noexcept {
    uint64_t expected = pool;
    return asked_.load(std::memory_order_relaxed) == pool &&
           asked_.compare_exchange_strong(expected, 0);
  }

  // Somebody wants a connection of another pool closed, to make room: a new request, with this
  // number. Earlier ones are void. 0: not now, one is on its way out.
  [[nodiscard]] uint64_t ask_for_room(Nanoseconds now) noexcept {
    if (making_room_until_.load(std::memory_order_relaxed) > now) return 0;
    const uint64_t request = ++requests_count_;
    room_request_.store(request, std::memory_order_relaxed);
    return request;
  }
  // True to one caller for each request: it closes one, and until that has gone, or for
  // room_patience, there is no other request.
  [[nodiscard]] bool begin_making_room(uint64_t request, Nanoseconds now) noexcept {
    uint64_t open = request;
    if (!room_request_.compare_exchange_strong(open, 0)) return false;
    making_room_until_.store(now + room_patience, std::memory_order_relaxed);
    return true;
  }
  // A pool with so many, and this minimum, keeps them: it has no more than its minimum, and there
  // is no pool that has nothing and whose turn it is.
  [[nodiscard]] bool is_guaranteed(uint64_t pool, uint32_t minimum, Nanoseconds now) const;

  // From now on. After a smaller one connections beyond it are asked back (give_up_surplus); after
  // a larger one every core has to try again.
  void set_max(uint32_t max);
  // More are taken than a limit that was made smaller allows, and not all of them were asked for.
  [[nodiscard]] bool has_surplus() const noexcept {
    return surplus_.load(std::memory_order_relaxed) > 0;
  }
  // True once for each connection beyond the limit: whoever gets it closes one.
  [[nodiscard]] bool give_up_surplus() noexcept;

  [[nodiscard]] uint32_t taken() const noexcept { return taken_.load(std::memory_order_relaxed); }
  // At this moment.
  [[nodiscard]] bool has_room() const noexcept { return max() == 0 || taken() < max(); }
  // There is room, and no other pool has wanted it of late: for connections that nobody waits for.
  [[nodiscard]] bool has_room_to_spare(uint64_t pool, Nanoseconds now) const;
  [[nodiscard]] uint32_t max() const noexcept { return max_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint32_t taken_by(uint64_t pool) const;

  // Of those that are taken: the connections of hubs, which are never idle. Kept by the users of
  // the limit.
  std::atomic<uint32_t> hubs_count{0};

 private:
  struct Want {
    CoreId core;
    Nanoseconds until;
  };
  struct Member {
    LimitClaim claim;
    uint32_t held = 0;
    std::vector<Want> wants;      // Cores that were refused since it got one.
    Nanoseconds wants_until = 0;  // The latest of them.
    Nanoseconds wants_since = never;
    Nanoseconds taken_at = 0;  // The last time it got one.
    Nanoseconds asked_at = 0;  // The last time it was asked to give one up.
  };

  static void add_want(Member& member, CoreId core, Nanoseconds until);
  static void clear_wants(Member& member) noexcept;
  void forget_vain_ask(Nanoseconds now) noexcept;
  [[nodiscard]] static bool is_starving(const Member& member, Nanoseconds now) noexcept;
  [[nodiscard]] static bool is_due_before(const Member& one, const Member& other) noexcept;
  [[nodiscard]] bool is_kept_for_others(const Member& member, Nanoseconds now) const;
  void ask_one(const Member& wanting, Nanoseconds now);
  void forget_gone(Nanoseconds now);
  [[nodiscard]] uint32_t excess() const noexcept;

  // Several pools starve.
  static constexpr uint64_t several = UINT64_MAX;

  mutable std::mutex mutex_;  // Guards everything below; the atomics may be read without it.
  std::atomic<uint32_t> max_;
  std::unordered_map<uint64_t, Member> members_;  // Pools that have or want something.
  size_t forget_at_ = 64;  // Members, at the next look for those that do not.
  std::atomic<uint32_t> taken_{0};
  std::atomic<uint64_t> requests_count_{0};
  std::atomic<uint64_t> room_request_{0};  // The one that nobody has answered yet; 0: none.
  std::atomic<Nanoseconds> making_room_until_{0};
  // On a line of their own: read when a backend is released.
  alignas(128) std::atomic<uint64_t> starved_{0};
  std::atomic<uint64_t> asked_{0};
  std::atomic<uint32_t> surplus_{0};  // Connections beyond max_ that nobody was asked to close.
};

}  // namespace helios
