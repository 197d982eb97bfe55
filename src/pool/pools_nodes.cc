// Nodes that are down, and nodes whose addresses change.
//
// While a node is down, NodeHealth allows one attempt at a time. Where a connect fails or is not
// allowed, the core watches the node: at the time of the next attempt it connects for those who
// wait, and where nobody waits, for one of its pools all the same, so that the node's return is
// seen without traffic. All cores are told how an attempt ended.
#include <algorithm>
#include <atomic>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/pool/pools.h"
#include "pool/connect_error.h"

namespace helios {
namespace {

// Where this core has no permit to try a node with, or another trial is under way, it looks again
// after this: longer than trial_time and, with it, less than a second.
constexpr Nanoseconds watch_interval = milliseconds(950);
// Connections to addresses that a name has left are replaced within this time, not all at once.
constexpr Nanoseconds move_time = seconds(10);

bool contains(const Resolution& resolution, const SocketAddress& address) {
  const auto& all = resolution.addresses;
  return std::find(all.begin(), all.end(), address) != all.end();
}

}  // namespace

void Pools::on_node_answered(const Backend& backend) noexcept {
  Node& node = *backend.slice().spec().node;
  const auto down_for = node.health.on_answer(backend.attempt(), now());
  if (!down_for.has_value()) return;
  LOG(info, "node \"%s\" (%s) answers again, after %.1f s", node.name.c_str(), node.label.c_str(),
      static_cast<double>(*down_for) / 1e9);
  tell_of_node(MessageKind::node_returned, node);
  on_node_returned(node);
}

// The next good address is tried at once; where there is none, those who wait hear of it.
void Pools::on_attempt_failed(Backend& backend, const PoolError& error) noexcept {
  Node& node = *backend.slice().spec().node;
  backend.retry_at = 0;  // The node's health decides.
  node.refresh_soon();
  if (node.health.on_failure(backend.attempt(), error, now(), random_number()))
    LOG(warning, "node \"%s\" (%s) is down: %s", node.name.c_str(), node.label.c_str(),
        error.message.c_str());
  if (!node.health.is_down()) return;
  watch(node);
  tell_of_node(MessageKind::node_failed, node);
  on_node_failed(node);
}

void Pools::on_trial_answered(Backend& backend) noexcept {
  backend.retry_at = 0;
  on_node_answered(backend);
}

void Pools::on_trial_given_up(Backend& backend) noexcept {
  Node& node = *backend.slice().spec().node;
  backend.retry_at = 0;  // The node's health decides.
  node.health.on_given_up(backend.attempt(), now(), random_number());
  if (node.health.is_down()) watch(node);
}

void Pools::on_node_failed(Node& node) noexcept {
  const PoolError error = node.health.last_error();
  const bool is_final = node.fail_fast.load(std::memory_order_relaxed) && !may_pass(error);
  for (auto& [key, entry] : entries_) {
    Slice& slice = entry->slice;
    if (slice.spec().node != &node) continue;
    if (is_final && !has_connection(slice.spec()))
      fail_waiters(*entry, connect_error(slice.spec(), error), WaitFailure::node_error);
    slice.on_limit_freed();  // Who still waits asks again, and so watches the node.
  }
}

// On any core: those who wait may get it.
bool Pools::has_connection(const PoolSpec& spec) noexcept {
  return spec.shared->connections->alive_count.load(std::memory_order_relaxed) > 0;
}

void Pools::on_node_returned(const Node& node) noexcept {
  // While the news was under way the node may have gone again, and this core have seen it: then it
  // may be the only one that watches.
  if (!node.health.is_down()) std::erase(watched_, &node);
  for (auto& [key, entry] : entries_)
    if (entry->slice.spec().node == &node) entry->slice.on_limit_freed();
}

// With fail_fast: a wait that ends before the node is tried again is in vain, unless the pool has a
// connection, here or elsewhere. Asked when somebody has come, a connection has gone or the node
// has: whoever cannot be helped is told what the node said, and does not wait for it.
void Pools::fail_who_is_late(Slice& slice) noexcept {
  const PoolSpec& spec = slice.spec();
  const Node& node = *spec.node;
  if (!node.fail_fast || !node.health.is_down() || spec.limits.acquire_timeout == 0) return;
  if (has_connection(spec)) return;
  if (node.health.is_tried()) return;
  const Nanoseconds retry_at = node.health.retry_at();
  const PoolError error = connect_error(spec, node.health.last_error());
  for (size_t count = slice.waiters_count(); count > 0; --count) {
    if (slice.oldest_waiting_since() + spec.limits.acquire_timeout > retry_at) return;
    fail_oldest_waiter(slice, error, WaitFailure::node_error);
  }
}

void Pools::tell_of_node(MessageKind kind, Node& node) noexcept {
  Message message = make_message(kind);
  message.words[0] = reinterpret_cast<uint64_t>(&node);
  context_.postbox.send_to_others(message);
}

// An attempt was allowed and could not begin: there is no room. Other cores may have counted on it.
void Pools::abandon(Node& node, const NodeAttempt& attempt) noexcept {
  node.health.on_abandoned(attempt);
  if (attempt.kind == NodeAttempt::Kind::plain) return;
  if (!is_watched(node)) watched_.push_back(&node);
  // Not at once: the next would find no room either.
  if (!watch_timer_.is_scheduled()) context_.timers.schedule(watch_timer_, now() + watch_interval);
}

void Pools::watch(Node& node) noexcept {
  if (!is_watched(node)) watched_.push_back(&node);
  schedule_watch();
}

bool Pools::is_watched(const Node& node) const noexcept {
  return std::find(watched_.begin(), watched_.end(), &node) != watched_.end();
}

void Pools::schedule_watch() noexcept {
  Nanoseconds next = never;
  for (const Node* node : watched_) {
    const Nanoseconds retry_at = node->health.retry_at();
    // An attempt is under way: its end is told, but who makes it may have no use for the next.
    next = std::min(next, retry_at != never ? std::max(retry_at, now()) : now() + watch_interval);
  }
  if (next != never && !draining_) context_.timers.schedule(watch_timer_, next);
}

void Pools::on_watch(void* self) noexcept {
  Pools& pools = *static_cast<Pools*>(self);
  if (pools.draining_) return;
  for (Node* node : std::exchange(pools.watched_, {})) {
    if (!node->health.is_down()) continue;
    // One that this core has no permit for is another's to watch.
    const bool is_tried = node->health.retry_at() > pools.now() || pools.try_node(*node);
    if (is_tried && !pools.is_watched(*node)) pools.watched_.push_back(node);
  }
  if (pools.watched_.empty()) return;
  // Until then the attempt has begun, here or elsewhere, or there was nothing to begin it with.
  pools.context_.timers.schedule(pools.watch_timer_, pools.now() + watch_interval);
}

// Lets one of the pools of this core connect: one with waiters, by its next pump, else the one that
// was in use last. Beside a trial that is under way its waiters ask for no other: then the latter,
// in any case. False: there is none.
bool Pools::try_node(const Node& node) noexcept {
  Slice* latest = nullptr;
  bool is_wanted = false;
  for (auto& [key, entry] : entries_) {
    Slice& slice = entry->slice;
    if (slice.spec().node != &node || slice.is_superseded()) continue;
    slice.on_limit_freed();
    is_wanted = is_wanted || slice.waiters_count() > 0;
    if (slice.permits_free() > 0 && !slice.spec().limits.is_single_use &&
        (latest == nullptr || slice.unused_since > latest->unused_since))
      latest = &slice;
  }
  if ((!is_wanted || node.health.is_tried()) && latest != nullptr) (void)latest->warm_up(now());
  return is_wanted || latest != nullptr;
}

// Of each node that has pools here, from the first on: the sweep then makes nothing new.
void Pools::know_addresses(const Node& node) noexcept {
  if (addresses_.contains(&node)) return;
  const uint64_t version = node.addresses_version();
  addresses_.emplace(&node, KnownAddresses{version, node.addresses().addresses});
}

// A name may come to stand for other machines: connections to those that it has left are replaced,
// while they are idle.
void Pools::follow_addresses(Nanoseconds time) noexcept {
  for (auto& [node, known] : addresses_) {
    const uint64_t version = node->addresses_version();
    if (known.version == version) continue;
    Resolution resolution = node->addresses();
    if (known.addresses != resolution.addresses) expire_outdated(*node, resolution, time);
    known = {version, std::move(resolution.addresses)};
  }
}

void Pools::expire_outdated(const Node& node, const Resolution& resolution,
                            Nanoseconds time) noexcept {
  uint32_t count = 0;
  backends_.for_each([&](Backend& backend) {
    if (backend.slice().spec().node != &node || contains(resolution, backend.address())) return;
    backend.expire_by(time +
                      static_cast<Nanoseconds>(random_number() % static_cast<uint64_t>(move_time)));
    ++count;
  });
  if (count > 0)
    LOG(info, "node \"%s\" (%s) has other addresses now: %u server connections are replaced",
        node.name.c_str(), node.label.c_str(), count);
}

}  // namespace helios
