// When a pool may connect, where its node answers: the gate of the node, the limit over its own
// generations and the pools that count with it, and the limits that it shares with others. The
// order is fixed: gate, pool, node, database, user; who waits holds nothing.
#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <utility>

#include "helios/base/assert.h"
#include "helios/pool/pools.h"

namespace helios {
namespace {

// Tells pools apart where a wrong answer costs a connection at most. Never 0.
uint64_t pool_number(const PoolSpec& spec) noexcept {
  return std::hash<std::string>{}(spec.key) | 1;
}

}  // namespace

// --- The gate of a node: few connects at once ---

// Comes before the limits: who waits here holds nothing, and a full limit holds no place.
bool Pools::take_place(PoolEntry& entry) noexcept {
  if (std::exchange(entry.has_place, false)) return true;
  if (entry.is_linked()) return false;
  Node& node = *entry.slice.spec().node;
  entry.gate_since = now();
  // Behind those of this core that wait already.
  if (first_at_gate(node) == nullptr &&
      node.gate.try_enter(context_.postbox.core(), entry.gate_since))
    return true;
  at_gates_.push_back(entry);
  return false;
}

void Pools::give_back_place(Node& node) noexcept {
  const std::optional<CoreId> core = node.gate.leave();
  if (!core) return;
  if (*core == context_.postbox.core()) return on_place(node);
  Message message = make_message(MessageKind::place);
  message.words[0] = reinterpret_cast<uint64_t>(&node);
  context_.postbox.send(*core, message);
}

// A place is ours: the pool that waits longest gets it, if any still does.
void Pools::on_place(Node& node) noexcept {
  PoolEntry* first = first_at_gate(node);
  if (first == nullptr) {
    node.gate.withdraw(context_.postbox.core());
    return give_back_place(node);
  }
  grant_place(*first);
  serve_gate(node);
}

// The pool connects at the end of the turn; if it needs no backend any more, the place goes on.
void Pools::grant_place(PoolEntry& entry) noexcept {
  at_gates_.remove(entry);
  ASSERT(!entry.has_place);
  entry.has_place = true;
  granted_.push_back(&entry);
  entry.slice.on_limit_freed();
}

// Takes what is free for those who wait, and says since when the first of the others does.
void Pools::serve_gate(Node& node) noexcept {
  while (PoolEntry* first = first_at_gate(node)) {
    if (!node.gate.try_enter(context_.postbox.core(), first->gate_since)) return;
    grant_place(*first);
  }
  node.gate.withdraw(context_.postbox.core());
}

void Pools::leave_gate(PoolEntry& entry) noexcept {
  at_gates_.remove(entry);
  Node& node = *entry.slice.spec().node;
  if (first_at_gate(node) == nullptr) node.gate.withdraw(context_.postbox.core());
}

PoolEntry* Pools::first_at_gate(const Node& node) noexcept {
  PoolEntry* entry = at_gates_.front();
  while (entry != nullptr && entry->slice.spec().node != &node) entry = at_gates_.next(*entry);
  return entry;
}

// --- Limits ---

// The order is fixed, and nothing is kept when one is full: no two pools can wait for each other.
bool Pools::take_limits(const PoolSpec& spec) noexcept {
  const LimitClaim claim{pool_number(spec), spec.limits.weight, spec.limits.min_connections,
                         context_.postbox.core()};
  const auto limits = limits_of(spec);
  size_t taken = 0;
  for (SharedLimit* limit : limits) {
    if (limit != nullptr && !limit->try_take(claim, now())) break;
    ++taken;
  }
  if (taken == limits.size()) {
    if (spec.is_of_hub) count_hub(spec, 1);
    return true;
  }
  bool tell = false;
  for (size_t i = 0; i < taken; ++i)
    tell |= limits[i] != nullptr && limits[i]->give_back(claim.pool);
  if (tell) tell_limit_freed();
  ask_for_room(*limits[taken], claim.pool);
  // What is free may be kept for another pool, which may not come for it.
  if (!limit_timer_.is_scheduled())
    context_.timers.schedule(limit_timer_, now() + SharedLimit::retry_interval);
  return false;
}

void Pools::count_hub(const PoolSpec& spec, int change) noexcept {
  for (SharedLimit* limit : limits_of(spec))
    if (limit != nullptr)
      limit->hubs_count.fetch_add(static_cast<uint32_t>(change), std::memory_order_relaxed);
}

// A hub takes its connection while a client of its pool has another one, so something is left for
// clients; but for limits that have become smaller since.
void Pools::close_hubs_in_the_way() noexcept {
  const auto is_full_of_hubs = [](const SharedLimit* limit) {
    return limit != nullptr && limit->max() > 0 &&
           limit->hubs_count.load(std::memory_order_relaxed) >= limit->max();
  };
  for (auto& [key, entry] : entries_) {
    if (entry->hub == nullptr || entry->hub->own_pool().is_null()) continue;
    const auto limits = limits_of(*entry->hub->own_pool());
    if (std::any_of(limits.begin(), limits.end(), is_full_of_hubs)) entry->hub->give_up();
  }
}

// Whatever is kept for it there may go to other pools.
void Pools::withdraw(Slice& slice) noexcept {
  const uint64_t pool = pool_number(slice.spec());
  bool tell = false;
  for (SharedLimit* limit : limits_of(slice.spec()))
    tell |= limit != nullptr && limit->withdraw(pool, context_.postbox.core());
  if (tell) tell_limit_freed();
}

// The first is the pool's own: full while connections of an earlier generation end, or where other
// pools count with it.
std::array<SharedLimit*, 4> Pools::limits_of(const PoolSpec& spec) noexcept {
  return {spec.shared->connections->limit.get(), &spec.node->limit, spec.database_limit.get(),
          spec.user_limit.get()};
}

// A limit is full and a pool starves: an idle backend of another pool makes room, here or on
// another core.
void Pools::ask_for_room(SharedLimit& limit, uint64_t pool) noexcept {
  const uint64_t request = limit.ask_for_room(now());
  if (request == 0 || make_room(limit, pool, request)) return;
  Message message = make_message(MessageKind::make_room);
  message.words[0] = reinterpret_cast<uint64_t>(&limit);
  message.words[1] = pool;
  message.words[2] = request;
  context_.postbox.send_to_others(message);
}

// Closes the backend that was idle for longest among those of other pools that hold a permit of
// this limit, and more than their minimum of them. (Its own pool's idle backends come to it by
// lending.) Where there is none, pools that count with the one that starves look at their next
// releases whether they have to make room.
bool Pools::make_room(SharedLimit& limit, uint64_t pool, uint64_t request) noexcept {
  PooledBackend* oldest = nullptr;
  for (auto& [key, entry] : entries_) {
    const PoolSpec& spec = entry->slice.spec();
    const auto limits = limits_of(spec);
    if (std::find(limits.begin(), limits.end(), &limit) == limits.end()) continue;
    if (pool_number(spec) == pool) continue;
    if (&limit == spec.shared->connections->limit.get()) entry->slice.has_rivals = true;
    PooledBackend* candidate = entry->slice.least_recently_used();
    if (candidate == nullptr || is_guaranteed(limit, entry->slice)) continue;
    if (oldest == nullptr || candidate->idle_since < oldest->idle_since) oldest = candidate;
  }
  if (oldest == nullptr) return false;
  // Another core may have been first.
  if (!limit.begin_making_room(request, now())) return true;
  static_cast<Backend*>(oldest)->close("makes room for another pool", CloseReason::made_room);
  return true;
}

bool Pools::has_room_to_spare(const PoolSpec& spec) noexcept {
  const auto limits = limits_of(spec);
  const uint64_t pool = pool_number(spec);
  return std::all_of(limits.begin(), limits.end(), [&](const SharedLimit* limit) {
    return limit == nullptr || limit->has_room_to_spare(pool, now());
  });
}

// Read at each release: only what changes rarely, unless a limit is full.
[[gnu::hot]] bool Pools::must_make_room(Slice& slice) noexcept {
  const PoolSpec& spec = slice.spec();
  for (SharedLimit* total : {&spec.node->limit, spec.database_limit.get(), spec.user_limit.get()}) {
    if (total == nullptr ||
        (!total->is_wanted_back() && !total->is_starved() && !total->has_surplus()))
      continue;
    if (total->give_up_surplus() || is_due_to_others(*total, slice)) return true;
  }
  return slice.has_rivals && is_due_to_rivals(slice);
}

bool Pools::is_due_to_others(SharedLimit& limit, const Slice& slice) noexcept {
  const uint64_t pool = pool_number(slice.spec());
  return limit.give_up(pool) ||
         (limit.is_starved_by_other(pool) && !slice.has_waiters() && !is_guaranteed(limit, slice));
}

// The minimum of a pool that is used.
bool Pools::is_guaranteed(const SharedLimit& limit, const Slice& slice) noexcept {
  const PoolSpec& spec = slice.spec();
  return slice.is_used() &&
         limit.is_guaranteed(pool_number(spec), spec.limits.min_connections, now());
}

// Until nobody wants anything any more: who does says so again and again.
bool Pools::is_due_to_rivals(Slice& slice) noexcept {
  SharedLimit& limit = *slice.spec().shared->connections->limit;
  slice.has_rivals = limit.is_wanted_back() || limit.is_starved();
  return slice.has_rivals && is_due_to_others(limit, slice);
}

void Pools::give_back_limits(const PoolSpec& spec) noexcept {
  if (spec.is_of_hub) count_hub(spec, -1);
  const uint64_t pool = pool_number(spec);
  bool tell = false;
  for (SharedLimit* limit : limits_of(spec)) tell |= limit != nullptr && limit->give_back(pool);
  if (tell) tell_limit_freed();
}

void Pools::tell_limit_freed() noexcept {
  context_.postbox.send_to_others(make_message(MessageKind::limit_freed));
  on_limit_freed();
}

void Pools::on_limit_freed() noexcept {
  for (auto& [key, entry] : entries_) entry->slice.on_limit_freed();
}

void Pools::on_limit_retry(void* self) noexcept {
  static_cast<Pools*>(self)->on_limit_freed();
}

}  // namespace helios
