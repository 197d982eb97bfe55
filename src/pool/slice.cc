#include "helios/pool/slice.h"

#include <algorithm>

#include "helios/base/assert.h"

namespace helios {

Slice::Slice(PoolSpecRef spec, SlicePort& port, Postbox& postbox) noexcept
    : spec_(std::move(spec)),
      port_(port),
      postbox_(postbox),
      cores_(spec_->key, postbox.cores_count()),
      peers_(postbox.cores_count()),
      permits_free_(0) {
  permits_free_ = cores_.share_of(spec_->limits.max_connections, postbox.core());
  peers_[postbox.core()].held_count = permits_free_;
}

Slice::~Slice() {
  ASSERT(idle_.empty());
  ASSERT(waiters_.empty());
  ASSERT(backends_count_ == 0);
  ASSERT(connecting_count_ == 0);
  ASSERT(reserve_held_ <= permits_free_);
  // Shutting down: nobody pumps any more.
  for (; reserve_held_ > 0; --reserve_held_) (void)spec_->shared->reserve.give_back();
}

uint32_t Slice::minimum() const noexcept {
  const PoolLimits& limits = spec_->limits;
  uint32_t total = 0;
  for (CoreId home = 0; home < peers_.size(); ++home) {
    const uint32_t share = cores_.share_of(limits.min_connections, home);
    const uint32_t held = peers_[home].held_count;
    if (home == postbox_.core()) {
      const uint32_t lent = cores_.share_of(limits.max_connections, home) - held;
      total += share - std::min(share, lent);
    } else {
      total += std::min(share, held);
    }
  }
  return total;
}

PooledBackend* Slice::try_acquire() noexcept {
  if (!waiters_.empty()) return nullptr;
  return idle_.pop_back();
}

bool Slice::enqueue(Waiter& waiter, Nanoseconds now) noexcept {
  ASSERT(!is_superseded_);
  if (spec_->limits.max_waiters > 0 && !spec_->shared->waiters.try_take()) return false;
  waiter.waiting_since = now;
  waiters_.push_back(waiter);
  ++counters.waited;
  counters.waiters_max = std::max<uint64_t>(counters.waiters_max, waiters_.size());
  port_.activate(*this);
  return true;
}

void Slice::take_over(Waiter& waiter) noexcept {
  ASSERT(!is_superseded_);
  if (spec_->limits.max_waiters > 0) spec_->shared->waiters.take_regardless();
  // A client that came from a core that knew of this generation before may wait here already.
  Waiter* older = waiters_.back();
  while (older != nullptr && older->waiting_since > waiter.waiting_since)
    older = waiters_.previous(*older);
  waiters_.insert_behind(older, waiter);
  port_.activate(*this);
}

void Slice::remove(Waiter& waiter) noexcept {
  waiters_.remove(waiter);
  on_queue_left();
  port_.activate(*this);  // What was asked for it may have to be taken back.
}

Waiter* Slice::take_oldest_waiter() noexcept {
  port_.activate(*this);
  Waiter* oldest = waiters_.pop_front();
  if (oldest != nullptr) on_queue_left();
  return oldest;
}

// One waiter less. Nobody waits for a place in the queue: who finds none is refused.
void Slice::on_queue_left() noexcept {
  if (spec_->limits.max_waiters > 0) (void)spec_->shared->waiters.give_back();
}

void Slice::on_connected(PooledBackend& backend, Nanoseconds now) noexcept {
  ASSERT(connecting_count_ > 0);
  --connecting_count_;
  ++backends_count_;
  retry_at_ = 0;
  port_.activate(*this);  // After a failure the others were held back for this one.
  place(backend, now);
}

void Slice::on_connect_failed(Nanoseconds retry_at) noexcept {
  ASSERT(connecting_count_ > 0);
  --connecting_count_;
  ++permits_free_;
  retry_at_ = retry_at;
  port_.activate(*this);
}

void Slice::on_connect_doubted() noexcept {
  ASSERT(doubted_count_ < connecting_count_);
  ++doubted_count_;
  port_.activate(*this);
}

void Slice::on_connect_trusted() noexcept {
  ASSERT(doubted_count_ > 0);
  --doubted_count_;
}

void Slice::release(PooledBackend& backend, Nanoseconds now) noexcept {
  place(backend, now);
}

void Slice::adopt(PooledBackend& backend, Nanoseconds now) noexcept {
  ASSERT(permits_free_ > 0);
  ASSERT(!is_superseded_);
  --permits_free_;
  ++backends_count_;
  place(backend, now);
}

void Slice::take_idle(PooledBackend& backend) noexcept {
  idle_.remove(backend);
}

void Slice::on_gone() noexcept {
  ASSERT(backends_count_ > 0);
  --backends_count_;
  ++permits_free_;
  if (returning_count_ > 0) --returning_count_;
  port_.activate(*this);
}

CoreId Slice::on_moved(CoreId to) noexcept {
  ASSERT(backends_count_ > 0);
  --backends_count_;
  --peers_[to].moving_count;
  return let_go_of_permit(to);
}

void Slice::on_move_failed(CoreId to) noexcept {
  Peer& peer = peers_[to];
  --peer.moving_count;
  send(to, MessageKind::unpromise, 1);
  // The wish is open again. If it was withdrawn meanwhile, the other core answers unpromise with
  // another withdrawal.
  if (!is_superseded_)
    set_wish(peer, peer.wish_count + 1, peer.wish_count > 0 ? peer.wish_oldest : 0);
  port_.activate(*this);
}

void Slice::on_want(CoreId from, uint32_t count, Nanoseconds oldest, uint64_t flags) noexcept {
  ASSERT(from != postbox_.core());
  Peer& peer = peers_[from];
  // Who waits there moves to the next generation too, as soon as that core knows of it.
  set_wish(peer, is_superseded_ ? 0 : count, oldest);
  peer.wish_takes_permits = (flags & want_flags::takes_permits) != 0;
  const bool answer = (flags & want_flags::answer) != 0;
  if (!answer) {
    port_.activate(*this);
    return;
  }
  // The promise goes first: messages of a pair arrive in order, so the asker knows of each grant
  // before it comes.
  const uint32_t before = peer.wish_count;
  const uint32_t idle = static_cast<uint32_t>(idle_.size());
  const uint32_t promised = std::min(before, idle + spare_permits(peer));
  send(from, MessageKind::promise, promised, peer.moving_count);
  for (uint32_t i = 0; i < promised; ++i) {
    if (!idle_.empty()) {
      grant_backend(peer, *idle_.pop_front());
    } else {
      grant_permit(peer);
    }
  }
}

void Slice::on_promise(CoreId from, uint32_t count, uint32_t late_count) noexcept {
  ASSERT(ask_in_flight_);
  ASSERT(asked_ == from);
  ask_in_flight_ = false;
  peers_[from].promised_count += count;
  if (late_count > 0) peers_[from].renewed = true;
  port_.activate(*this);
}

void Slice::on_unpromise(CoreId from) noexcept {
  Peer& peer = peers_[from];
  if (peer.promised_count > 0) --peer.promised_count;
  if (!peer.told) {
    // We withdrew the wish that it has opened again: the next pump withdraws or renews it.
    peer.told = true;
    peer.told_count = 1;
    peer.told_oldest = 0;
  }
  port_.activate(*this);
}

void Slice::on_permits(CoreId from, uint32_t count, CoreId home) noexcept {
  held_count_of(home) += count;
  permits_free_ += count;
  Peer& peer = peers_[from];
  receive_grants(peer, count);
  // A loan that was sent home looks like a grant, and leaves our wish on record there.
  if (peer.told && home == postbox_.core()) peer.renewed = true;
  port_.activate(*this);
}

void Slice::forget_wishes() noexcept {
  for (Peer& peer : peers_) set_wish(peer, 0, never);
}

void Slice::supersede() noexcept {
  ASSERT(!is_superseded_);
  is_superseded_ = true;
  wants_successor = false;
  forget_wishes();
  port_.activate(*this);
}

void Slice::on_arrived(CoreId from, CoreId home) noexcept {
  ++held_count_of(home);
  ++backends_count_;
  receive_grants(peers_[from], 1);
  // It may be tested first, and the test may fail: who waits for it goes on asking.
  if (!waiters_.empty()) port_.activate(*this);
}

void Slice::on_use(CoreId from, bool uses) noexcept {
  Peer& peer = peers_[from];
  if (peer.uses == uses) return;
  peer.uses = uses;
  users_count_ += uses ? 1 : -1;
  port_.activate(*this);
}

void Slice::tell_use() noexcept {
  const bool uses = sessions_count > 0;
  if (uses == told_use_ || spec_->limits.min_connections == 0) return;
  told_use_ = uses;
  for (CoreId core = 0; core < peers_.size(); ++core)
    if (core != postbox_.core()) send(core, MessageKind::use, uses ? 1 : 0);
}

void Slice::on_limit_freed() noexcept {
  is_limit_full_ = false;
  port_.activate(*this);
}

Nanoseconds Slice::pump(Nanoseconds now) noexcept {
  if (sessions_count > 0) tell_use();
  if (!waiters_.empty() && !idle_.empty()) hand_out_idle();
  serve_wishes();
  connect_for_waiters(now);
  ask_others();
  give_back_reserve();
  if (wants_room_ && needed_count() == 0) {
    wants_room_ = false;
    port_.withdraw(*this);
  }
  DEBUG_ASSERT(is_permit_sum_right());
  return next_try(now);
}

// When a waiter may be helped although nothing happens until then.
Nanoseconds Slice::next_try(Nanoseconds now) noexcept {
  if (waiters_.empty()) return never;
  const Nanoseconds at = permits_free_ > 0 ? retry_at_ : std::max(retry_at_, reserve_opens_at());
  return at > now ? at : never;
}

// Every permit that is here has a home.
bool Slice::is_permit_sum_right() const noexcept {
  uint32_t sum = reserve_held_;
  for (const Peer& peer : peers_) sum += peer.held_count;
  return sum == permits_free_ + connecting_count_ + backends_count_;
}

void Slice::give_back_loans() noexcept {
  give_back_reserve();
  for (Peer& peer : peers_) {
    const CoreId home = id_of(peer);
    if (home == postbox_.core()) continue;
    const uint32_t count = std::min(permits_free_, peer.held_count);
    if (count == 0) continue;
    permits_free_ -= count;
    peer.held_count -= count;
    send(home, MessageKind::permits, count, home);
  }
}

bool Slice::is_pristine() const noexcept {
  if (backends_count_ > 0 || connecting_count_ > 0 || !waiters_.empty() || ask_in_flight_ ||
      is_used() || told_use_)
    return false;
  if (reserve_held_ > 0) return false;
  if (permits_free_ != cores_.share_of(spec_->limits.max_connections, postbox_.core()))
    return false;
  for (const Peer& peer : peers_)
    if (peer.wish_count > 0 || peer.promised_count > 0 || (peer.told && peer.told_count > 0))
      return false;
  return peers_[postbox_.core()].held_count == permits_free_;
}

bool Slice::warm_up(Nanoseconds now) noexcept {
  if (is_superseded_ || permits_free_ == 0 || is_limit_full_ || now < retry_at_) return false;
  if (retry_at_ != 0 && connecting_count_ > 0) return false;
  return try_connect();
}

bool Slice::try_connect() noexcept {
  const bool has_begun = port_.connect(*this);
  is_limit_full_ = !has_begun;
  wants_room_ = !has_begun;
  if (!has_begun) return false;
  --permits_free_;
  ++connecting_count_;
  return true;
}

// The peer with the oldest open wish, of those that a grant of this kind would help; nullptr when
// there is none.
Slice::Peer* Slice::oldest_wish(Grant grant) noexcept {
  if (wishes_count_ == 0) return nullptr;
  Peer* oldest = nullptr;
  for (Peer& peer : peers_) {
    const bool is_open =
        peer.wish_count > 0 && (grant == Grant::backend || peer.wish_takes_permits);
    if (is_open && (oldest == nullptr || peer.wish_oldest < oldest->wish_oldest)) oldest = &peer;
  }
  return oldest;
}

bool Slice::is_before_local(const Peer& peer) noexcept {
  Waiter* local = waiters_.front();
  return local == nullptr || peer.wish_oldest < local->waiting_since - fairness_bound;
}

// While a shared limit is full a bare permit helps nobody, and would take the wish for a backend
// off the record.
uint32_t Slice::spare_permits(const Peer& peer) noexcept {
  if (is_limit_full_ || !peer.wish_takes_permits) return 0;
  const uint32_t waiting = static_cast<uint32_t>(waiters_.size());
  if (waiting <= coming_count() || is_before_local(peer)) return permits_free_;
  return permits_free_ - std::min(permits_free_, waiting - coming_count());
}

// Backends that waiters here need and that are not on their way.
uint32_t Slice::needed_count() const noexcept {
  uint32_t coming = coming_count();
  for (const Peer& peer : peers_) coming += peer.promised_count;
  const uint32_t waiting = static_cast<uint32_t>(waiters_.size());
  return waiting > coming ? waiting - coming : 0;
}

uint32_t Slice::unserved_count() const noexcept {
  uint32_t count = needed_count();
  for (const Peer& peer : peers_) count += peer.wish_count;
  return count;
}

void Slice::place(PooledBackend& backend, Nanoseconds now) noexcept {
  backend.idle_since = now;
  idle_.push_back(backend);
  hand_out();
}

// Waiters stand beside what was idle: they came from an earlier generation, and a core that knew of
// this one before may have sent the backend.
void Slice::hand_out_idle() noexcept {
  IntrusiveList<PooledBackend, IdleTag> fit;
  while (fit.size() < waiters_.size() && !idle_.empty()) {
    PooledBackend& next = *idle_.pop_back();
    if (port_.screen(*this, next)) fit.push_back(next);
  }
  while (!fit.empty()) idle_.push_back(*fit.pop_back());
  hand_out();
}

// What is idle goes to whoever waits longest.
[[gnu::hot]] void Slice::hand_out() noexcept {
  // A waiter may give its backend back at once (to learn the welcome only); the outer call goes on
  // then, so that thousands of them do not nest.
  if (is_placing_) return;
  is_placing_ = true;
  while (!idle_.empty()) {
    Peer* peer = oldest_wish(Grant::backend);
    // What was made for one client only stays where that one is.
    const bool is_remote =
        peer != nullptr && is_before_local(*peer) && !spec_->limits.is_single_use;
    if (!is_remote && waiters_.empty()) break;
    PooledBackend& next = *idle_.pop_back();
    if (is_remote) {
      // A waiter here may have counted on it, and be older than the next one there: the other side
      // has to know that before the backend comes.
      if (needed_count() > 0) renew(*peer);
      if (!waiters_.empty()) port_.activate(*this);
      grant_backend(*peer, next);
    } else {
      Waiter& waiter = *waiters_.pop_front();
      on_queue_left();
      port_.activate(*this);
      port_.hand_over(*this, next, waiter);
    }
  }
  is_placing_ = false;
  if (reserve_held_ > 0 && !idle_.empty()) port_.activate(*this);
}

void Slice::grant_backend(Peer& peer, PooledBackend& backend) noexcept {
  ASSERT(!backend.is_linked());
  note_grant(peer);
  ++peer.moving_count;
  port_.move(*this, backend, id_of(peer));
}

void Slice::grant_permit(Peer& peer) noexcept {
  ASSERT(permits_free_ > 0);
  const CoreId to = id_of(peer);
  --permits_free_;
  note_grant(peer);
  send(to, MessageKind::permits, 1, let_go_of_permit(to));
}

// One permit leaves for `to`: its own if we hold one, else the reserve's, else another core's, ours
// last. Returns its home.
CoreId Slice::let_go_of_permit(CoreId to) noexcept {
  Peer* chosen = &peers_[to];
  // While all permits were here the others were not told of those who wait. They hear of them
  // before they have this one.
  if (!waiters_.empty()) ask_others();
  if (chosen->held_count == 0 && reserve_held_ > 0) {
    --reserve_held_;
    return reserve_home;
  }
  if (chosen->held_count == 0) {
    chosen = &peers_[postbox_.core()];
    for (Peer& peer : peers_)
      if (peer.held_count > 0 && &peer != &peers_[postbox_.core()]) chosen = &peer;
  }
  ASSERT(chosen->held_count > 0);
  --chosen->held_count;
  return id_of(*chosen);
}

bool Slice::holds_all_permits() const noexcept {
  return spec_->limits.reserve_connections == 0 &&
         permits_free_ + connecting_count_ + backends_count_ == spec_->limits.max_connections;
}

void Slice::note_grant(Peer& peer) noexcept {
  ASSERT(peer.wish_count > 0);
  set_wish(peer, peer.wish_count - 1, peer.wish_oldest);
}

void Slice::receive_grants(Peer& peer, uint32_t count) noexcept {
  peer.promised_count -= std::min(peer.promised_count, count);
  // The other side has taken it off our wish too; but what comes before its answer belongs to an
  // earlier one.
  if (ask_in_flight_ && asked_ == id_of(peer)) return;
  peer.told_count -= std::min(peer.told_count, count);
}

// What is idle or free here goes to waiters elsewhere that come before ours, and what ours do not
// need to any.
void Slice::serve_wishes() noexcept {
  while (!idle_.empty() || permits_free_ > 0) {
    Peer* peer = oldest_wish(idle_.empty() ? Grant::permit : Grant::backend);
    if (peer == nullptr) return;
    if (!idle_.empty()) {
      grant_backend(*peer, *idle_.pop_front());
    } else if (spare_permits(*peer) > 0) {
      grant_permit(*peer);
    } else {
      return;
    }
  }
}

void Slice::connect_for_waiters(Nanoseconds now) noexcept {
  if (now < retry_at_ || is_limit_full_) return;
  // After a failure one attempt at a time shows whether the node is back.
  const uint32_t connects_max = retry_at_ != 0 ? 1 : UINT32_MAX;
  while (needed_count() > 0 && coming_count() < connects_max &&
         (permits_free_ > 0 || take_from_reserve(now)))
    if (!try_connect()) return;
}

// `never` while nobody waits, or without a reserve.
Nanoseconds Slice::reserve_opens_at() noexcept {
  if (spec_->limits.reserve_connections == 0 || waiters_.empty()) return never;
  return waiters_.front()->waiting_since + spec_->limits.reserve_after;
}

// A refusal is remembered by the counter: when there is room again, on_limit_freed comes.
bool Slice::take_from_reserve(Nanoseconds now) noexcept {
  if (now < reserve_opens_at() || !spec_->shared->reserve.try_take()) return false;
  ++permits_free_;
  ++reserve_held_;
  return true;
}

// What the reserve is owed. A free permit goes back at once, also one that waiters could not use (a
// shared limit is full, or the node fails): they take it anew. An idle backend is closed first.
void Slice::give_back_reserve() noexcept {
  bool is_awaited = false;
  for (; reserve_held_ > 0 && permits_free_ > 0; --reserve_held_, --permits_free_)
    is_awaited |= spec_->shared->reserve.give_back();
  while (reserve_held_ > returning_count_ && !idle_.empty()) {
    ++returning_count_;
    port_.close(*this, *idle_.pop_front());
  }
  if (is_awaited) port_.on_reserve_freed(*this);
}

// Asks the other cores one at a time; once all have been told, renews what they know when it has
// changed enough to matter.
[[gnu::hot]] void Slice::ask_others() noexcept {
  const uint32_t needed = needed_count();
  const Nanoseconds oldest = oldest_waiting_since();
  // Also with a permit of its own (it may be waiting for the node or for a shared limit): others
  // may have an idle backend.
  const bool wanting = needed > 0 && !holds_all_permits();
  for (size_t i = 0; i < peers_.size(); ++i) {
    Peer& peer = peers_[i];
    if (i == postbox_.core()) continue;
    if (!wanting) {
      if (peer.told && !(ask_in_flight_ && asked_ == i)) {
        // After a renewal, or when a permit came home, the other side may have more on record than
        // we think: a grant may have been under way.
        if (peer.told_count > 0 || peer.renewed) tell(peer, 0, false);
        peer.told = false;
        peer.renewed = false;
      }
    } else if (!peer.told) {
      if (ask_in_flight_) continue;
      ask_in_flight_ = true;
      asked_ = static_cast<CoreId>(i);
      tell(peer, needed, true);
    } else if (oldest - peer.told_oldest > fairness_bound / 2 || needed > peer.told_count ||
               (permits_free_ == 0 && !peer.told_takes_permits)) {
      renew(peer);
    }
  }
}

// Tells a core anew that we want, without waiting for an answer.
void Slice::renew(Peer& peer) noexcept {
  peer.renewed = true;
  tell(peer, needed_count(), false);
}

void Slice::tell(Peer& peer, uint32_t count, bool answer) noexcept {
  peer.told = true;
  peer.told_count = count;
  peer.told_oldest = oldest_waiting_since();
  // Who has a permit and waits all the same (for the node, or for a shared limit) is not helped by
  // another: two such cores would send each other the same permit for ever.
  peer.told_takes_permits = permits_free_ == 0;
  const uint64_t flags =
      (answer ? want_flags::answer : 0) | (peer.told_takes_permits ? want_flags::takes_permits : 0);
  send(id_of(peer), MessageKind::want, count, static_cast<uint64_t>(peer.told_oldest), flags);
}

void Slice::set_wish(Peer& peer, uint32_t count, Nanoseconds oldest) noexcept {
  if (peer.wish_count == 0 && count > 0) ++wishes_count_;
  if (peer.wish_count > 0 && count == 0) --wishes_count_;
  peer.wish_count = count;
  peer.wish_oldest = count > 0 ? oldest : never;
}

void Slice::send(CoreId to, MessageKind kind, uint32_t count, uint64_t word1,
                 uint64_t word2) noexcept {
  Message message = make_message(kind);
  message.count = count;
  message.words[0] = spec_.to_word();
  message.words[1] = word1;
  message.words[2] = word2;
  postbox_.send(to, message);
}

}  // namespace helios
