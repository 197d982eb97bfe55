// One core's part of one pool: its permits, its idle backends and its waiters, and the borrowing
// from other cores.
//
// A pool's limit is dealt out over the cores as permits (pool_cores.h). A permit is the right to
// one server connection and is held by that connection for its whole life, until the server has let
// go. Acquire takes, in this order: an idle backend of this core, a permit of this core, a loan
// from another core, a place in the queue.
//
// Borrowing: a core whose waiters outnumber what is on its way tells the others, one at a time, how
// many it has and since when the oldest waits (`want`). A core that is asked sends idle backends,
// else bare permits, answers how many (`promise`), and keeps the rest of the wish on record. From
// then on, whatever it frees goes to the oldest waiter it knows of, here or there. The record is
// renewed when the asker's oldest waiter has changed by more than half of fairness_bound, or when
// it has more waiters than the record says. A core that holds all permits asks nobody.
//
// Each permit has a home, the core to which it was dealt. A slice that nobody uses sends foreign
// permits home, so that slices can be forgotten and made anew.
//
// The reserve (reserve_connections) is one more home, and one counter for all cores. A slice whose
// oldest waiter has waited for longer than reserve_after and that has no free permit takes one from
// it; it may be lent like any other. Permits are all alike, so the reserve is the first to get one
// back: when a slice that holds one has a free permit at the end of a pump, or an idle backend,
// which is then closed.
//
// Minimum: each core keeps its share of min_connections open while any core has clients of the
// pool; the cores tell each other when they get their first and have lost their last (`use`). The
// share goes with the permits: what was lent counts where it is.
//
// Fairness: a waiter for whom nothing is on its way is overtaken by one of another core that is
// younger by more than fairness_bound only until its core has told the others: a message and its
// answer for each, less than 2 x cores times the time of a message and a turn. (The simulation in
// tests/pool measures it.) That time begins when nothing is on its way, or, where its core holds
// all permits, when the first of them leaves: whoever gets that one is told before. It begins once
// more when a permit came that is of no use (a shared limit is full, or the node is down): whoever
// sent it took that for the help that was asked for.
//
// Generations: when a new configuration changes or removes the pool, the slice is superseded. It
// begins nothing new, lends no backend, and its owner moves waiters and idle backends out of it (to
// the slice of the next generation, where they take permits of that one) or ends them. Its own
// permits stay among the slices of its generation, until nobody uses them.
//
// Belongs to one core. Does no IO itself: it says what is to be done through SlicePort, so that a
// test can run many slices in one thread.
//
// Invariants:
// - permits free + connecting + held by backends (idle, leased, moving, closing), over all cores, +
// in messages = the limit + taken from the reserve.
// - Behind a pump no free permit is the reserve's.
// - While a backend is idle, nobody waits that this slice knows of.
// - A waiter is in exactly one list.
#pragma once

#include <cstdint>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/intrusive_list.h"
#include "helios/pool/accepted_statements.h"
#include "helios/pool/pool_cores.h"
#include "helios/pool/pool_messages.h"
#include "helios/pool/pool_spec.h"
#include "helios/pool/statistics.h"
#include "helios/runtime/mailbox.h"

namespace helios {

class Slice;
struct IdleTag;
struct WaiterTag;
struct ActiveSliceTag;

// The home of permits that were taken from the reserve. No core has this number.
constexpr CoreId reserve_home = UINT16_MAX;

// What a slice knows of a backend. pool/backend.h derives the real one.
class PooledBackend : public ListNode<IdleTag> {
 public:
  Nanoseconds created_at = 0;
  Nanoseconds idle_since = 0;

 protected:
  ~PooledBackend() = default;
};

// Somebody in a slice's queue. pool/lessee.h derives the real one.
class Waiter : public ListNode<WaiterTag> {
 public:
  Nanoseconds waiting_since = 0;

 protected:
  ~Waiter() = default;
};

// What a slice wants done. None of these may call back into the slice before it returns, except
// where noted.
class SlicePort {
 public:
  // Begin a connect; ends in on_connected or on_connect_failed. Returns false when a shared limit
  // has no room: the permit stays free and the slice tries again at on_limit_freed.
  virtual bool connect(Slice& slice) noexcept = 0;
  // Nobody here needs any more what connect() was refused. May call back (on_limit_freed).
  virtual void withdraw(Slice& slice) noexcept = 0;
  // Whether this backend, which was idle until now, may be handed to a waiter. If not, it is being
  // tested (it comes back by release) or has been closed. May call back (on_gone).
  virtual bool screen(Slice& slice, PooledBackend& backend) noexcept = 0;
  // The waiter has left the queue and gets this backend. May call back (release, enqueue).
  virtual void hand_over(Slice& slice, PooledBackend& backend, Waiter& waiter) noexcept = 0;
  // Send this backend to another core; ends in on_moved or, when it was lost, in on_move_failed (at
  // once, it may be).
  virtual void move(Slice& slice, PooledBackend& backend, CoreId to) noexcept = 0;
  // End this backend, which was idle; ends in on_gone.
  virtual void close(Slice& slice, PooledBackend& backend) noexcept = 0;
  // The reserve has room again after somebody was refused: on_limit_freed of this pool's slices, on
  // every core, this one too. May call that back.
  virtual void on_reserve_freed(Slice& slice) noexcept = 0;
  // The slice has work for its next pump().
  virtual void activate(Slice& slice) noexcept = 0;

 protected:
  ~SlicePort() = default;
};

class Slice : public ListNode<ActiveSliceTag> {
 public:
  // A waiter of another core counts as older only when it is older by more than this.
  static constexpr Nanoseconds fairness_bound = milliseconds(2);

  Slice(PoolSpecRef spec, SlicePort& port, Postbox& postbox) noexcept;
  ~Slice();  // Requires: no backend, no waiter.

  [[nodiscard]] const PoolSpec& spec() const noexcept { return *spec_; }
  [[nodiscard]] const PoolSpecRef& spec_ref() const noexcept { return spec_; }

  // --- Sessions ---

  // The idle backend that was used last; nullptr when there is none or others wait already.
  [[nodiscard]] PooledBackend* try_acquire() noexcept;
  // Queues a waiter; it ends in SlicePort::hand_over or remove. False: max_waiters wait already,
  // over all cores, and nothing was done. Requires: try_acquire failed.
  bool enqueue(Waiter& waiter, Nanoseconds now) noexcept;
  // Queues one who has waited in an earlier generation of this pool, with its time; max_waiters
  // does not apply. What is idle is handed over by the next pump.
  void take_over(Waiter& waiter) noexcept;
  void remove(Waiter& waiter) noexcept;
  // Takes out the oldest waiter (to tell it of a failure); nullptr when nobody waits.
  [[nodiscard]] Waiter* take_oldest_waiter() noexcept;
  [[nodiscard]] size_t waiters_count() const noexcept { return waiters_.size(); }
  // `never`: nobody waits.
  [[nodiscard]] Nanoseconds oldest_waiting_since() noexcept {
    return waiters_.empty() ? never : waiters_.front()->waiting_since;
  }
  // Somebody waits, here or (as far as this core was told) elsewhere.
  [[nodiscard]] bool has_waiters() const noexcept { return !waiters_.empty() || wishes_count_ > 0; }

  // Who waits here or (as far as this core was told) elsewhere, and has nothing on its way.
  [[nodiscard]] uint32_t unserved_count() const noexcept;

  // --- Backends ---

  // A backend that connect() began is ready.
  void on_connected(PooledBackend& backend, Nanoseconds now) noexcept;
  // It is not; its permit is free again. The slice does not connect again before `retry_at` (0: at
  // once, if connect() allows it).
  void on_connect_failed(Nanoseconds retry_at) noexcept;
  // Of one that is under way: it may never end well, and nobody is to count on it; or it will after
  // all (or is about to end).
  void on_connect_doubted() noexcept;
  void on_connect_trusted() noexcept;
  // A leased backend is clean: to the oldest waiter, else idle.
  void release(PooledBackend& backend, Nanoseconds now) noexcept;
  // The same for a backend of an earlier generation, which takes a free permit of this one.
  // Requires: permits_free() > 0.
  void adopt(PooledBackend& backend, Nanoseconds now) noexcept;
  // A backend of this slice that was idle is about to end, be tested or be handed on by its owner.
  void take_idle(PooledBackend& backend) noexcept;
  // The server has let the connection of a former backend go: its permit is free.
  void on_gone() noexcept;
  // A backend is on its way to `to` with its permit; the caller sends the message. Returns the
  // permit's home, which the message carries.
  [[nodiscard]] CoreId on_moved(CoreId to) noexcept;
  // It ended before it could leave (its permit comes back by on_gone).
  void on_move_failed(CoreId to) noexcept;

  // --- Messages ---

  // `flags`: want_flags.
  void on_want(CoreId from, uint32_t count, Nanoseconds oldest, uint64_t flags) noexcept;
  void on_promise(CoreId from, uint32_t count, uint32_t late_count = 0) noexcept;
  void on_unpromise(CoreId from) noexcept;
  void on_permits(CoreId from, uint32_t count, CoreId home) noexcept;
  // A backend came from another core, with a permit of `home`. Its owner releases it, at once or
  // when it was tested.
  void on_arrived(CoreId from, CoreId home) noexcept;
  void on_use(CoreId from, bool uses) noexcept;
  void on_limit_freed() noexcept;
  // For an owner that shuts down: nobody elsewhere waits.
  void forget_wishes() noexcept;
  // The pool has ended. Its owner takes the waiters and the idle backends out.
  void supersede() noexcept;
  [[nodiscard]] bool is_superseded() const noexcept { return is_superseded_; }

  // Connects, lends and asks as far as needed. Once per turn for each active slice. Returns the
  // time at which it wants to be called again; `never` when only on events.
  Nanoseconds pump(Nanoseconds now) noexcept;

  // Sends the free permits of other cores home. For slices that nobody uses.
  void give_back_loans() noexcept;
  // Holds its dealt share and nothing else: forgetting it and making it anew changes nothing.
  [[nodiscard]] bool is_pristine() const noexcept;

  // Counts, for limits, statistics and tests.
  [[nodiscard]] uint32_t permits_free() const noexcept { return permits_free_; }
  [[nodiscard]] uint32_t connecting_count() const noexcept { return connecting_count_; }
  // Of the permits that are held here in whatever form: those that are the reserve's.
  [[nodiscard]] uint32_t reserve_held() const noexcept { return reserve_held_; }
  [[nodiscard]] uint32_t backends_count() const noexcept { return backends_count_; }
  // No other core has a permit of this pool, in whatever form: nobody else can be served, and there
  // is nothing to ask for. Never of a pool with a reserve, of which others may have taken.
  [[nodiscard]] bool holds_all_permits() const noexcept;
  [[nodiscard]] size_t idle_count() const noexcept { return idle_.size(); }
  // Backends this core keeps open: its share of min_connections, less what was lent, and that of
  // others as far as it was lent to this one.
  [[nodiscard]] uint32_t minimum() const noexcept;
  // The pool has clients, here or on another core.
  [[nodiscard]] bool is_used() const noexcept { return sessions_count > 0 || users_count_ > 0; }
  // Fewer backends than the minimum of a pool that is used.
  [[nodiscard]] bool lacks_backends() const noexcept {
    const uint32_t count = backends_count_ + coming_count();
    // Asked in every turn in which somebody waits: most pools have enough on one core alone.
    return count < spec_->limits.min_connections && is_used() && !is_superseded_ &&
           count < minimum();
  }
  // After a failed connect: no other one begins before. 0 or past when there is nothing to wait
  // for.
  [[nodiscard]] Nanoseconds retry_at() const noexcept { return retry_at_; }
  [[nodiscard]] PooledBackend* least_recently_used() noexcept { return idle_.front(); }
  [[nodiscard]] PooledBackend* next_idle(PooledBackend& backend) noexcept {
    return idle_.next(backend);
  }
  // Opens one more connection than waiters need (warm-up), if a permit is free here; after a
  // failure one at a time. Returns whether it did.
  bool warm_up(Nanoseconds now) noexcept;
  // Tells the other cores whether this one has clients of the pool, when that has changed. Once per
  // turn while it has, but not at once when the last one has gone: another may come.
  void tell_use() noexcept;

  // Sessions that use this slice. Kept by its users.
  uint32_t sessions_count = 0;
  // One backend more is wanted than the waiters and the minimum need, for one that ends. Kept by
  // its owner.
  bool wants_successor = false;
  // A pool that counts with this one (PoolTerms::counts_with) has wanted a connection and found
  // none. Kept by its owner.
  bool has_rivals = false;
  // When it was used last (is_used). Kept by its owner.
  Nanoseconds used_at = 0;
  // Since when it has neither sessions nor backends. Kept by its owner.
  Nanoseconds unused_since = 0;
  // The slice counts those who queue; everything else is counted where it happens.
  PoolCounters counters;
  // Kept by its backends.
  AcceptedStatements accepted_statements;

 private:
  // What this core knows about another with respect to this pool.
  struct Peer {
    // Its wish: it has this many waiters that we know of, the oldest since `wish_oldest`.
    uint32_t wish_count = 0;
    Nanoseconds wish_oldest = never;
    bool wish_takes_permits = false;  // A bare permit would help it, too.
    // Our wish, as we last told it.
    bool told = false;
    uint32_t told_count = 0;
    Nanoseconds told_oldest = never;
    bool told_takes_permits = false;
    // Grants that it promised and that have not come.
    uint32_t promised_count = 0;
    // It may have more on record than told_count: a renewal went out since it was asked, a permit
    // came home, or a backend that it granted to an earlier wish is still to come.
    bool renewed = false;
    // Backends of ours that are about to leave for it.
    uint32_t moving_count = 0;
    // It has clients of this pool.
    bool uses = false;
    // Permits that we hold, in whatever form, and that were dealt to it. (Debts between pairs of
    // cores would not do: they can form a circle in which nobody has anything to give back.)
    uint32_t held_count = 0;
  };

  enum class Grant : uint8_t { backend, permit };
  [[nodiscard]] Peer* oldest_wish(Grant grant) noexcept;
  [[nodiscard]] CoreId id_of(const Peer& peer) const noexcept {
    return static_cast<CoreId>(&peer - peers_.data());
  }
  // Permits that may go to this core: all when its waiter comes first, else those that waiters here
  // do not need.
  [[nodiscard]] uint32_t spare_permits(const Peer& peer) noexcept;
  [[nodiscard]] bool is_before_local(const Peer& peer) noexcept;
  [[nodiscard]] uint32_t& held_count_of(CoreId home) noexcept {
    return home == reserve_home ? reserve_held_ : peers_[home].held_count;
  }
  [[nodiscard]] bool is_permit_sum_right() const noexcept;
  // Connects that are counted on.
  [[nodiscard]] uint32_t coming_count() const noexcept {
    return connecting_count_ - doubted_count_;
  }
  [[nodiscard]] uint32_t needed_count() const noexcept;
  void on_queue_left() noexcept;
  void place(PooledBackend& backend, Nanoseconds now) noexcept;
  void hand_out_idle() noexcept;
  void hand_out() noexcept;
  void grant_backend(Peer& peer, PooledBackend& backend) noexcept;
  void grant_permit(Peer& peer) noexcept;
  [[nodiscard]] CoreId let_go_of_permit(CoreId to) noexcept;
  void note_grant(Peer& peer) noexcept;
  void receive_grants(Peer& peer, uint32_t count) noexcept;
  void serve_wishes() noexcept;
  void connect_for_waiters(Nanoseconds now) noexcept;
  [[nodiscard]] bool try_connect() noexcept;
  [[nodiscard]] Nanoseconds reserve_opens_at() noexcept;
  [[nodiscard]] bool take_from_reserve(Nanoseconds now) noexcept;
  void give_back_reserve() noexcept;
  [[nodiscard]] Nanoseconds next_try(Nanoseconds now) noexcept;
  void ask_others() noexcept;
  void renew(Peer& peer) noexcept;
  void tell(Peer& peer, uint32_t count, bool answer) noexcept;
  void set_wish(Peer& peer, uint32_t count, Nanoseconds oldest) noexcept;
  void send(CoreId to, MessageKind kind, uint32_t count, uint64_t word1 = 0,
            uint64_t word2 = 0) noexcept;

  PoolSpecRef spec_;
  SlicePort& port_;
  Postbox& postbox_;
  const PoolCores cores_;
  IntrusiveList<PooledBackend, IdleTag> idle_;  // Back: used last.
  IntrusiveList<Waiter, WaiterTag> waiters_;    // Front: oldest.
  std::vector<Peer> peers_;
  uint32_t permits_free_;
  uint32_t connecting_count_ = 0;
  uint32_t doubted_count_ = 0;   // Of these (on_connect_doubted).
  uint32_t backends_count_ = 0;  // Each holds a permit; without those that are connecting.
  uint32_t wishes_count_ = 0;    // Peers with wish_count > 0.
  uint32_t reserve_held_ = 0;    // As Peer::held_count, of the reserve.
  // Backends that were closed for the reserve, less those that have gone since, whichever they
  // were.
  uint32_t returning_count_ = 0;
  uint32_t users_count_ = 0;  // Peers with `uses`.
  Nanoseconds retry_at_ = 0;
  bool is_limit_full_ = false;
  bool wants_room_ = false;  // connect() was refused since it was allowed, or withdrawn.
  bool is_placing_ = false;
  bool is_superseded_ = false;
  bool told_use_ = false;  // The others know that we have clients.
  bool ask_in_flight_ = false;
  CoreId asked_ = 0;
};

}  // namespace helios
