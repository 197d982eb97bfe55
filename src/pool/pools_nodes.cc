// Nodes that are down, and nodes whose addresses change.
//
// While a node is down, NodeHealth allows one attempt at a time. Where a connect fails or is not
// allowed, the core watches the node: at the time of the next attempt it connects for those who
// wait, and where nobody waits, for one of its pools all the same, so that the node's return is
// seen without traffic. Beside an attempt that is accepted and not answered it sends probes. All
// cores are told how an attempt ended.
#include <algorithm>
#include <atomic>
#include <cstring>
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
// What was sent to a node that hung is answered so soon after it is seen to be back, or never. Much
// longer than a server takes for its first word, and short for those who wait.
constexpr Nanoseconds answer_grace = milliseconds(200);
// Connections to addresses that a name has left are replaced within this time, not all at once.
constexpr Nanoseconds move_time = seconds(10);

bool contains(const Resolution& resolution, const SocketAddress& address) {
  const auto& all = resolution.addresses;
  return std::find(all.begin(), all.end(), address) != all.end();
}

}  // namespace

// `by_words`: it has not only ended a connection, as a node that hangs may do to one of several.
void Pools::on_node_answered(Node& node, const NodeAttempt& attempt, bool by_words) noexcept {
  const auto down_for = node.health.on_answer(attempt, now());
  if (!down_for.has_value()) return;
  const double down_seconds = static_cast<double>(*down_for) / 1e9;
  LOG(info, "node \"%s\" (%s) answers again, after %.1f s", node.name.c_str(), node.label.c_str(),
      down_seconds);
  const Nanoseconds answered_from = by_words ? attempt.began_at : 0;
  tell_of_node(MessageKind::node_returned, node, answered_from);
  on_node_returned(node, answered_from);
}

// The next good address is tried at once; where there is none, those who wait hear of it.
void Pools::on_attempt_failed(Node& node, const NodeAttempt& attempt,
                              const PoolError& error) noexcept {
  node.refresh_soon();
  if (node.health.on_failure(attempt, error, now(), random_number()))
    LOG(warning, "node \"%s\" (%s) is down: %s", node.name.c_str(), node.label.c_str(),
        error.message.c_str());
  if (!node.health.is_down()) return;
  watch(node);
  tell_of_node(MessageKind::node_failed, node);
  on_node_failed(node);
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

void Pools::on_node_returned(const Node& node, Nanoseconds answered_from) noexcept {
  // While the news was under way the node may have gone again, and this core have seen it: then it
  // may be the only one that watches.
  if (!node.health.is_down()) std::erase(watched_, &node);
  for (auto& [key, entry] : entries_)
    if (entry->slice.spec().node == &node) entry->slice.on_limit_freed();
  doubt_older(node, answered_from);
}

// What was begun before the node came back may hang for the rest of its time: others begin for
// those who counted on it, and its permit is not held for long.
void Pools::doubt_older(const Node& node, Nanoseconds answered_from) noexcept {
  backends_.for_each([&](Backend& backend) {
    if (backend.slice().spec().node == &node && backend.created_at < answered_from)
      backend.doubt(now() + answer_grace);
  });
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

void Pools::tell_of_node(MessageKind kind, Node& node, Nanoseconds answered_from) noexcept {
  Message message = make_message(kind);
  message.words[0] = reinterpret_cast<uint64_t>(&node);
  message.words[1] = static_cast<uint64_t>(answered_from);
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
  schedule_watch(now());
}

bool Pools::is_watched(const Node& node) const noexcept {
  return std::find(watched_.begin(), watched_.end(), &node) != watched_.end();
}

// At `due_at` for what is due already.
void Pools::schedule_watch(Nanoseconds due_at) noexcept {
  Nanoseconds next = never;
  for (const Node* node : watched_) {
    Nanoseconds at = node->health.retry_at();
    // An attempt is under way: its end is told, but who makes it may have no use for the next.
    if (at == never) at = now() + watch_interval;
    next = std::min(next, at > now() ? at : due_at);
  }
  if (next != never && !draining_) context_.timers.schedule(watch_timer_, next);
}

void Pools::on_watch(void* self) noexcept {
  Pools& pools = *static_cast<Pools*>(self);
  if (pools.draining_) return;
  for (Node* node : std::exchange(pools.watched_, {})) {
    if (!node->health.is_down()) continue;
    if (pools.look_after(*node) && !pools.is_watched(*node)) pools.watched_.push_back(node);
  }
  // Until then what was due has begun, here or elsewhere, or there was nothing to begin it with.
  pools.schedule_watch(pools.now() + watch_interval);
}

// True: it stays watched. One that this core has no permit for is another's to watch, unless it is
// tried: a probe needs none.
bool Pools::look_after(Node& node) noexcept {
  if (node.health.retry_at() > now()) return true;
  if (!node.health.is_tried()) return try_node(node);
  if (!has_pool_at(node)) return false;
  start_probe(node);
  return true;
}

// Lets one of the pools of this core connect: one with waiters, by its next pump, else the one that
// was in use last. (Waiters that count on connects from before the node was down ask for no other.)
// False: there is none.
bool Pools::try_node(const Node& node) noexcept {
  Slice* latest = nullptr;
  bool is_wanted = false;
  bool is_begun = false;
  for (auto& [key, entry] : entries_) {
    Slice& slice = entry->slice;
    if (slice.spec().node != &node || slice.is_superseded()) continue;
    slice.on_limit_freed();
    is_wanted = is_wanted || slice.waiters_count() > 0;
    is_begun =
        is_begun || (slice.waiters_count() > slice.connecting_count() && slice.permits_free() > 0);
    if (slice.permits_free() > 0 && !slice.spec().limits.is_single_use &&
        (latest == nullptr || slice.unused_since > latest->unused_since))
      latest = &slice;
  }
  if (!is_begun && latest != nullptr) (void)latest->warm_up(now());
  return is_wanted || latest != nullptr;
}

// One that sessions use.
bool Pools::has_pool_at(const Node& node) const noexcept {
  return std::any_of(entries_.begin(), entries_.end(), [&](const auto& one) {
    const Slice& slice = one.second->slice;
    return slice.spec().node == &node && !slice.is_superseded() && !slice.spec().is_of_hub;
  });
}

// --- Probes ---

void Pools::start_probe(Node& node) noexcept {
  const Resolution resolution = node.addresses();
  const auto attempt = node.health.begin_probe(resolution.addresses, now());
  if (!attempt.has_value()) return;  // Another core was first.
  if (attempt->address.family() == AF_UNSPEC)
    return on_attempt_failed(node, *attempt,
                             {std::string(sqlstate::connection_failure), resolution.error});
  probes_.push_back(std::make_unique<NodeProbe>(*this, node, *attempt));
}

void Pools::on_probe_over(NodeProbe& probe, NodeProbe::Outcome outcome, int error) noexcept {
  Node& node = probe.node();
  const NodeAttempt& attempt = probe.attempt();
  // What answers at an address that the name has left says nothing of the node.
  if (outcome == NodeProbe::Outcome::answered && !contains(node.addresses(), attempt.address))
    outcome = NodeProbe::Outcome::no_answer;
  switch (outcome) {
    case NodeProbe::Outcome::answered:
      return on_node_answered(node, attempt, true);
    case NodeProbe::Outcome::no_answer:
      node.health.on_given_up(attempt, now(), random_number());
      if (node.health.is_down()) watch(node);
      return;
    case NodeProbe::Outcome::refused:
      return on_attempt_failed(node, attempt,
                               {std::string(sqlstate::connection_failure), strerror(error)});
    case NodeProbe::Outcome::stopped:
      return node.health.on_abandoned(attempt);
  }
}

void Pools::on_probe_closed(NodeProbe& probe) noexcept {
  const auto found = std::find_if(probes_.begin(), probes_.end(),
                                  [&](const auto& one) { return one.get() == &probe; });
  ASSERT(found != probes_.end());
  closed_probes_.push_back(std::move(*found));
  probes_.erase(found);
}

void Pools::stop_probes() noexcept {
  for (const auto& probe : probes_) probe->stop();
}

// At nodes that this core has no pool of any more.
void Pools::stop_needless_probes() noexcept {
  for (const auto& probe : probes_)
    if (!has_pool_at(probe->node())) probe->stop();
}

// --- Addresses ---

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
