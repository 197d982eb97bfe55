// Generations of pools: what a new configuration changes while everything goes on.
//
// A pool's specification never changes. Where a new configuration has other terms for it, the pool
// is superseded, and its next generation has permits of its own. Both exist side by side for a
// while, each under its key in `entries_`. What the two may not exceed together is counted outside
// of them: by PoolShared::connections, and by the limits of node, database and user.
//
// Each core changes over in a turn of its own. Messages between one that has and one that has not
// carry the specification they are about, and so find the right generation on either.
#include <algorithm>
#include <utility>
#include <vector>

#include "helios/base/assert.h"
#include "helios/pool/pools.h"
#include "helios/wire/error_response.h"

namespace helios {
namespace {

// A pool's key begins with a digit (pool_key), and so does whatever follows in it: no pool has
// this.
std::string generation_key(const PoolSpec& spec) {
  return spec.key + "/" + std::to_string(spec.shared->generation);
}

bool is_same_pool(const PoolSpec& one, const PoolSpec& other) noexcept {
  return one.shared == other.shared;
}

}  // namespace

PoolEntry& Pools::pool_of(const PoolSpecRef& spec) noexcept {
  PoolEntry* found = find_pool(spec->key);
  if (found != nullptr && is_same_pool(found->slice.spec(), *spec)) return *found;
  const std::string own_key = generation_key(*spec);
  if (PoolEntry* other = find_pool(own_key)) return *other;
  const PoolSpecRef current = current_terms(*spec);
  const bool is_current = !current.is_null() && is_same_pool(*current, *spec);
  if (is_current) return make_pool(found == nullptr ? spec->key : own_key, current);
  // It ended before this core knew of it.
  PoolEntry& entry = make_pool(own_key, spec);
  entry.slice.supersede();
  return entry;
}

PoolEntry& Pools::make_pool(std::string key, const PoolSpecRef& spec) noexcept {
  auto made = std::make_unique<PoolEntry>(spec, *this, context_.postbox);
  PoolEntry& entry = *made;
  entry.slice.unused_since = now();
  know_addresses(*spec->node);
  entries_.emplace(std::move(key), std::move(made));
  return entry;
}

NotificationHub& Pools::hub_of(PoolEntry& entry) noexcept {
  if (entry.hub == nullptr)
    entry.hub = std::make_unique<NotificationHub>(*this, entry.slice.spec_ref());
  return *entry.hub;
}

PoolEntry& Pools::entry_of(Slice& slice) noexcept {
  PoolEntry* found = find_pool(slice.spec().key);
  if (found == nullptr || &found->slice != &slice) found = find_pool(generation_key(slice.spec()));
  ASSERT(found != nullptr);
  ASSERT(&found->slice == &slice);
  return *found;
}

// What this core's configuration says of the pool; null: there is no such pool any more.
PoolSpecRef Pools::current_terms(const PoolSpec& spec) const {
  // Made from the same configuration or a later one, of which this core will hear.
  if (spec.is_of_hub || spec.epoch >= epoch_) return PoolSpecRef(&spec);
  return source_->pool_of(spec.database, spec.user, spec.login.parameters);
}

// This very generation is what this core's configuration has.
bool Pools::is_configured(const PoolSpec& spec) const {
  const PoolSpecRef now = source_->pool_of(spec.database, spec.user, spec.login.parameters);
  return !now.is_null() && is_same_pool(*now, spec);
}

PoolEntry* Pools::successor_of(const PoolEntry& entry) noexcept {
  ASSERT(source_ != nullptr);
  const PoolSpec& old = entry.slice.spec();
  PoolEntry* known = find_pool(old.key);
  if (known != nullptr && !known->slice.is_superseded()) return known;
  const PoolSpecRef next = source_->pool_of(old.database, old.user, old.login.parameters);
  return next.is_null() ? nullptr : &pool_of(next);
}

PoolError Pools::why_removed(const std::string& database, const std::string& user) const {
  ASSERT(source_ != nullptr);
  if (!source_->has_database(database))
    return {std::string(sqlstate::database_dropped),
            "database \"" + database + "\" was removed from the configuration of the pooler"};
  return {std::string(sqlstate::admin_shutdown),
          "user \"" + user + "\" was removed from the configuration of the pooler"};
}

void Pools::begin_reload(const PoolSource& source) noexcept {
  ASSERT(source.epoch() > epoch_);
  source_ = &source;
  epoch_ = source.epoch();
  supersede_changed();
  std::vector<PoolEntry*> left;
  for (auto& [key, entry] : entries_)
    if (entry->slice.is_superseded()) left.push_back(entry.get());
  for (PoolEntry* entry : left) hand_on(*entry);
}

// Afterwards the generation that sessions use is found by the pool's key. Other cores may have told
// of it before this one's turn, and of later ones too, which go on waiting for theirs.
void Pools::supersede_changed() noexcept {
  std::vector<std::string> others;  // Have the pool's key.
  std::vector<std::string> begun;   // Have not.
  for (auto& [key, entry] : entries_) {
    Slice& slice = entry->slice;
    if (slice.is_superseded() || slice.spec().is_of_hub) continue;
    const bool has_pools_key = key == slice.spec().key;
    const bool is_now = is_configured(slice.spec());
    if (!is_now && slice.spec().epoch < epoch_) {
      slice.supersede();
      if (entry->is_linked()) leave_gate(*entry);
      if (has_pools_key) others.push_back(key);
    } else if (has_pools_key != is_now) {
      (has_pools_key ? others : begun).push_back(key);
    }
  }
  for (const std::string& key : others) rename(key, generation_key(entries_.at(key)->slice.spec()));
  for (const std::string& key : begun) rename(key, entries_.at(key)->slice.spec().key);
}

void Pools::rename(const std::string& from, const std::string& to) noexcept {
  auto node = entries_.extract(from);
  node.key() = to;
  const bool is_new = entries_.insert(std::move(node)).inserted;
  ASSERT(is_new);
}

// The waiters, and what is known of the server.
void Pools::hand_on(PoolEntry& old) noexcept {
  const PoolSpec& spec = old.slice.spec();
  PoolEntry* next = successor_of(old);
  if (next == nullptr)
    return fail_waiters(old, why_removed(spec.database, spec.user), WaitFailure::removed);
  const bool is_same_server = spec.shares_connections_with(next->slice.spec());
  if (is_same_server && next->welcome.empty() && !old.welcome.empty())
    set_welcome(*next, old.welcome);
  if (next->hub == nullptr && old.hub != nullptr && old.hub->serves(next->slice.spec())) {
    next->hub = std::move(old.hub);
    next->hub->set_pool(next->slice.spec_ref());
  }
  while (Waiter* waiter = old.slice.take_oldest_waiter()) {
    static_cast<Lessee*>(waiter)->on_pool_changed(*next);
    next->slice.take_over(*waiter);
  }
}

void Pools::finish_reload() noexcept {
  backends_.for_each([this](Backend& backend) {
    if (backend.slice().is_superseded()) {
      close_unfit(backend);
    } else if (backend.state() == Backend::State::idle && backend.is_linked() &&
               must_make_room(backend.slice())) {
      backend.close("a limit has become smaller", CloseReason::made_room);
    }
  });
  close_hubs_in_the_way();
  stop_needless_probes();
  // Gates and limits may have become wider, for waiters of any pool.
  std::vector<Node*> nodes;
  for (PoolEntry* entry = at_gates_.front(); entry != nullptr; entry = at_gates_.next(*entry))
    nodes.push_back(entry->slice.spec().node);
  for (Node* node : nodes) serve_gate(*node);
  on_limit_freed();
}

// The pool that can use the connections of a superseded one; nullptr: none can.
PoolEntry* Pools::heir_of(const PoolSpec& superseded) noexcept {
  PoolEntry* next = find_pool(superseded.key);
  const bool fits = next != nullptr && superseded.shares_connections_with(next->slice.spec());
  return fits ? next : nullptr;
}

// One of a superseded pool: idle ones leave, and what is on its way to a place where nobody wants
// to go any more must not hold up the rest.
void Pools::close_unfit(Backend& backend) noexcept {
  if (backend.state() == Backend::State::idle && backend.is_linked())
    return leave_superseded(backend);
  if (backend.is_being_made() && heir_of(backend.slice().spec()) == nullptr)
    backend.close("its pool has changed", CloseReason::reconfigured);
}

void Pools::leave_superseded(Backend& backend) noexcept {
  if (backend.state() != Backend::State::idle || !backend.is_linked()) return;
  Slice& old = backend.slice();
  ASSERT(old.is_superseded());
  PoolEntry* next = heir_of(old.spec());
  const bool is_wanted =
      !old.spec().limits.is_single_use || (next != nullptr && next->slice.waiters_count() > 0);
  const bool fits = next != nullptr && is_wanted && !draining_ && next->slice.permits_free() > 0;
  if (!fits) return backend.close("its pool has changed", CloseReason::reconfigured);
  ASSERT(old.spec().shared->connections == next->slice.spec().shared->connections);
  // Made before the change, and ready behind it: what its server said went to its own generation.
  if (next->welcome.empty()) {
    set_welcome(*next, entry_of(old).welcome);
    spread_welcome(*next);
  }
  old.take_idle(backend);
  old.on_gone();
  backend.set_slice(next->slice);
  backend.expire_by(expiry(next->slice.spec()));
  next->slice.adopt(backend, now());
}

}  // namespace helios
