#include "helios/pool/slice.h"

#include <algorithm>

#include "helios/base/assert.h"

namespace helios {

Slice::Slice(PoolSpecRef spec, SlicePort& port, Postbox& postbox) noexcept
    : spec_(std::move(spec)),
      port_(port),
      postbox_(postbox),
      peers_(postbox.cores_count()),
      permits_free_(0) {
  permits_free_ = share_of(spec_->limits.max_connections);
  peers_[postbox.core()].held_count = permits_free_;
}

Slice::~Slice() {
  ASSERT(idle_.empty());
  ASSERT(waiters_.empty());
  ASSERT(backends_count_ == 0);
  ASSERT(connecting_count_ == 0);
}

// Every core computes the same deal without asking anyone.
uint32_t Slice::share_of(uint32_t total) const noexcept {
  const uint32_t cores = postbox_.cores_count();
  return total / cores + (postbox_.core() < total % cores ? 1 : 0);
}

PooledBackend* Slice::try_acquire() noexcept {
  if (!waiters_.empty()) return nullptr;
  return idle_.pop_back();
}

void Slice::enqueue(Waiter& waiter, Nanoseconds now) noexcept {
  waiter.waiting_since = now;
  waiters_.push_back(waiter);
  port_.activate(*this);
}

void Slice::remove(Waiter& waiter) noexcept {
  waiters_.remove(waiter);
  port_.activate(*this);  // What was asked for it may have to be taken back.
}

Waiter* Slice::take_oldest_waiter() noexcept {
  port_.activate(*this);
  return waiters_.pop_front();
}

void Slice::on_connected(PooledBackend& backend, Nanoseconds now) noexcept {
  ASSERT(connecting_count_ > 0);
  --connecting_count_;
  ++backends_count_;
  retry_at_ = 0;
  place(backend, now);
}

void Slice::on_connect_failed(Nanoseconds retry_at) noexcept {
  ASSERT(connecting_count_ > 0);
  --connecting_count_;
  ++permits_free_;
  retry_at_ = retry_at;
  port_.activate(*this);
}

void Slice::release(PooledBackend& backend, Nanoseconds now) noexcept {
  place(backend, now);
}

void Slice::take_idle(PooledBackend& backend) noexcept {
  idle_.remove(backend);
}

void Slice::on_gone() noexcept {
  ASSERT(backends_count_ > 0);
  --backends_count_;
  ++permits_free_;
  port_.activate(*this);
}

CoreId Slice::on_moved(CoreId to) noexcept {
  ASSERT(backends_count_ > 0);
  --backends_count_;
  return let_go_of_permit(to);
}

void Slice::on_move_failed(CoreId to) noexcept {
  Peer& peer = peers_[to];
  send(to, MessageKind::unpromise, 1);
  // The wish is open again. If it was withdrawn meanwhile, the other core answers unpromise with
  // another withdrawal.
  set_wish(peer, peer.wish_count + 1, peer.wish_count > 0 ? peer.wish_oldest : 0);
  port_.activate(*this);
}

void Slice::on_want(CoreId from, uint32_t count, Nanoseconds oldest, bool answer) noexcept {
  ASSERT(from != postbox_.core());
  Peer& peer = peers_[from];
  set_wish(peer, count, oldest);
  if (!answer) {
    port_.activate(*this);
    return;
  }
  // The promise goes first: messages of a pair arrive in order, so the asker knows of each grant
  // before it comes.
  const uint32_t before = peer.wish_count;
  const uint32_t idle = static_cast<uint32_t>(idle_.size());
  const uint32_t promised = std::min(before, idle + spare_permits(peer));
  send(from, MessageKind::promise, promised);
  for (uint32_t i = 0; i < promised; ++i) {
    if (!idle_.empty()) {
      grant_backend(peer, *idle_.pop_front());
    } else {
      grant_permit(peer);
    }
  }
}

void Slice::on_promise(CoreId from, uint32_t count) noexcept {
  ASSERT(ask_in_flight_);
  ASSERT(asked_ == from);
  ask_in_flight_ = false;
  peers_[from].promised_count += count;
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
  peers_[home].held_count += count;
  permits_free_ += count;
  receive_grants(peers_[from], count);
  // A loan that only comes home was taken off no wish.
  if (home == postbox_.core()) peers_[from].renewed = true;
  port_.activate(*this);
}

void Slice::forget_wishes() noexcept {
  for (Peer& peer : peers_) set_wish(peer, 0, never);
}

void Slice::on_arrived(PooledBackend& backend, CoreId from, CoreId home, Nanoseconds now) noexcept {
  ++peers_[home].held_count;
  ++backends_count_;
  receive_grants(peers_[from], 1);
  place(backend, now);
}

void Slice::on_limit_freed() noexcept {
  is_limit_full_ = false;
  port_.activate(*this);
}

Nanoseconds Slice::pump(Nanoseconds now) noexcept {
  serve_wishes();
  connect_for_waiters(now);
  ask_others();
  const bool wants_retry = retry_at_ > now && permits_free_ > 0 && !waiters_.empty();
  return wants_retry ? retry_at_ : never;
}

void Slice::give_back_loans() noexcept {
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
      sessions_count > 0)
    return false;
  if (permits_free_ != share_of(spec_->limits.max_connections)) return false;
  for (const Peer& peer : peers_)
    if (peer.wish_count > 0 || peer.promised_count > 0 || (peer.told && peer.told_count > 0))
      return false;
  return peers_[postbox_.core()].held_count == permits_free_;
}

void Slice::warm_up(Nanoseconds now) noexcept {
  if (permits_free_ == 0 || is_limit_full_ || now < retry_at_) return;
  if (!port_.connect(*this)) {
    is_limit_full_ = true;
    return;
  }
  --permits_free_;
  ++connecting_count_;
}

// The peer with the oldest open wish; nullptr when there is none.
Slice::Peer* Slice::oldest_wish() noexcept {
  if (wishes_count_ == 0) return nullptr;
  Peer* oldest = nullptr;
  for (Peer& peer : peers_)
    if (peer.wish_count > 0 && (oldest == nullptr || peer.wish_oldest < oldest->wish_oldest))
      oldest = &peer;
  ASSERT(oldest != nullptr);
  return oldest;
}

bool Slice::is_before_local(const Peer& peer) noexcept {
  Waiter* local = waiters_.front();
  return local == nullptr || peer.wish_oldest < local->waiting_since - fairness_bound;
}

// While a shared limit is full a bare permit helps nobody, and would take the wish for a backend
// off the record.
uint32_t Slice::spare_permits(const Peer& peer) noexcept {
  if (is_limit_full_) return 0;
  const uint32_t waiting = static_cast<uint32_t>(waiters_.size());
  if (waiting <= connecting_count_ || is_before_local(peer)) return permits_free_;
  return permits_free_ - std::min(permits_free_, waiting - connecting_count_);
}

// Backends that waiters here need and that are not on their way.
uint32_t Slice::needed_count() const noexcept {
  uint32_t coming = connecting_count_;
  for (const Peer& peer : peers_) coming += peer.promised_count;
  const uint32_t waiting = static_cast<uint32_t>(waiters_.size());
  return waiting > coming ? waiting - coming : 0;
}

void Slice::place(PooledBackend& backend, Nanoseconds now) noexcept {
  backend.idle_since = now;
  idle_.push_back(backend);
  // A waiter may give its backend back at once (to learn the welcome only); the outer call goes on
  // then, so that thousands of them do not nest.
  if (is_placing_) return;
  is_placing_ = true;
  while (!idle_.empty()) {
    Peer* peer = oldest_wish();
    const bool is_remote = peer != nullptr && is_before_local(*peer);
    if (!is_remote && waiters_.empty()) break;
    PooledBackend& next = *idle_.pop_back();
    if (is_remote) {
      // A waiter here may have counted on it.
      if (!waiters_.empty()) port_.activate(*this);
      grant_backend(*peer, next);
    } else {
      Waiter& waiter = *waiters_.pop_front();
      port_.activate(*this);
      port_.hand_over(*this, next, waiter);
    }
  }
  is_placing_ = false;
}

void Slice::grant_backend(Peer& peer, PooledBackend& backend) noexcept {
  ASSERT(!backend.is_linked());
  note_grant(peer);
  port_.move(*this, backend, id_of(peer));
}

void Slice::grant_permit(Peer& peer) noexcept {
  ASSERT(permits_free_ > 0);
  const CoreId to = id_of(peer);
  --permits_free_;
  note_grant(peer);
  send(to, MessageKind::permits, 1, let_go_of_permit(to));
}

// One permit leaves for `to`: its own if we hold one, else another core's, ours last. Returns its
// home.
CoreId Slice::let_go_of_permit(CoreId to) noexcept {
  Peer* chosen = &peers_[to];
  if (chosen->held_count == 0) {
    chosen = &peers_[postbox_.core()];
    for (Peer& peer : peers_)
      if (peer.held_count > 0 && &peer != &peers_[postbox_.core()]) chosen = &peer;
  }
  ASSERT(chosen->held_count > 0);
  --chosen->held_count;
  return id_of(*chosen);
}

void Slice::note_grant(Peer& peer) noexcept {
  ASSERT(peer.wish_count > 0);
  set_wish(peer, peer.wish_count - 1, peer.wish_oldest);
}

void Slice::receive_grants(Peer& peer, uint32_t count) noexcept {
  peer.promised_count -= std::min(peer.promised_count, count);
  // The other side has taken it off our wish too.
  peer.told_count -= std::min(peer.told_count, count);
}

// What is idle or free here goes to waiters elsewhere that come before ours, and what ours do not
// need to any.
void Slice::serve_wishes() noexcept {
  for (Peer* peer = oldest_wish(); peer != nullptr; peer = oldest_wish()) {
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
  while (permits_free_ > 0 && needed_count() > 0 && connecting_count_ < connects_max) {
    if (!port_.connect(*this)) {
      is_limit_full_ = true;
      return;
    }
    --permits_free_;
    ++connecting_count_;
  }
}

// Asks the other cores one at a time; once all have been told, renews what they know when it has
// changed enough to matter.
void Slice::ask_others() noexcept {
  const uint32_t needed = needed_count();
  const Nanoseconds oldest = waiters_.empty() ? never : waiters_.front()->waiting_since;
  // Also with a permit of its own (it may be waiting for the node or for a shared limit): others
  // may have an idle backend.
  const bool wanting = needed > 0;
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
    } else if (oldest - peer.told_oldest > fairness_bound / 2 || needed > peer.told_count) {
      peer.renewed = true;
      tell(peer, needed, false);
    }
  }
}

void Slice::tell(Peer& peer, uint32_t count, bool answer) noexcept {
  peer.told = true;
  peer.told_count = count;
  peer.told_oldest = waiters_.empty() ? never : waiters_.front()->waiting_since;
  send(id_of(peer), MessageKind::want, count, static_cast<uint64_t>(peer.told_oldest),
       answer ? 1 : 0);
}

void Slice::set_wish(Peer& peer, uint32_t count, Nanoseconds oldest) noexcept {
  if (peer.wish_count == 0 && count > 0) ++wishes_count_;
  if (peer.wish_count > 0 && count == 0) --wishes_count_;
  peer.wish_count = count;
  peer.wish_oldest = count > 0 ? oldest : never;
}

void Slice::send(CoreId to, MessageKind kind, uint32_t count, uint64_t word1,
                 uint64_t word2) noexcept {
  Message message;
  message.kind = static_cast<uint16_t>(kind);
  message.count = count;
  message.words[0] = spec_.to_word();
  message.words[1] = word1;
  message.words[2] = word2;
  postbox_.send(to, message);
}

}  // namespace helios
