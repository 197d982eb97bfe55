#include "helios/pool/statistics.h"

#include <algorithm>

#include "helios/base/assert.h"
#include "helios/pool/pools.h"

namespace helios {

const char* to_text(WaitFailure failure) noexcept {
  switch (failure) {
    case WaitFailure::timed_out:
      return "timed out";
    case WaitFailure::node_error:
      return "node's error";
    case WaitFailure::client_left:
      return "client left";
    case WaitFailure::cancelled:
      return "cancelled";
    case WaitFailure::removed:
      return "removed";
    case WaitFailure::shutting_down:
      return "shutting down";
  }
  UNREACHABLE("wait failure");
}

const char* to_text(CloseReason reason) noexcept {
  switch (reason) {
    case CloseReason::idle:
      return "idle";
    case CloseReason::lifetime:
      return "lifetime";
    case CloseReason::failed:
      return "failed";
    case CloseReason::dropped:
      return "dropped";
    case CloseReason::single_use:
      return "single use";
    case CloseReason::made_room:
      return "made room";
    case CloseReason::reconfigured:
      return "reconfigured";
    case CloseReason::shutting_down:
      return "shutting down";
  }
  UNREACHABLE("close reason");
}

const char* to_text(TimeLimit limit) noexcept {
  switch (limit) {
    case TimeLimit::query:
      return "query";
    case TimeLimit::idle_transaction:
      return "idle transaction";
    case TimeLimit::transaction:
      return "transaction";
    case TimeLimit::client_idle:
      return "client idle";
  }
  UNREACHABLE("time limit");
}

void PoolCounters::add(const PoolCounters& other) noexcept {
  at_once += other.at_once;
  waited += other.waited;
  waiters_max = std::max(waiters_max, other.waiters_max);
  failures.add(other.failures);
  connects += other.connects;
  connect_failures += other.connect_failures;
  closes.add(other.closes);
  tests += other.tests;
  tests_failed += other.tests_failed;
  waits_refused += other.waits_refused;
  trials += other.trials;
  recoveries += other.recoveries;
  resets += other.resets;
  pins.add(other.pins);
  state_probes += other.state_probes;
  moves_in += other.moves_in;
  moves_out += other.moves_out;
  cancels += other.cancels;
  cancels_dropped += other.cancels_dropped;
  client_parses += other.client_parses;
  server_parses += other.server_parses;
  binds += other.binds;
  violations += other.violations;
  overruns.add(other.overruns);
  late_ends += other.late_ends;
  wait_time.merge(other.wait_time);
  connect_time.merge(other.connect_time);
  use_time.merge(other.use_time);
}

void PoolGauges::add(const PoolGauges& other) noexcept {
  connecting += other.connecting;
  leased += other.leased;
  pinned += other.pinned;
  pins.add(other.pins);
  idle += other.idle;
  settling += other.settling;
  closing += other.closing;
  permits_free += other.permits_free;
  waiters += other.waiters;
  clients += other.clients;
  oldest_wait = std::max(oldest_wait, other.oldest_wait);
  oldest_pin = std::max(oldest_pin, other.oldest_pin);
  oldest_backend = std::max(oldest_backend, other.oldest_backend);
  newest_backend = std::min(newest_backend, other.newest_backend);
}

void Statistics::add(const std::string& key, const PoolStatistics& pool) {
  NodeStatistics& node = nodes[pool.node->name];
  node.node = pool.node;
  node.figures.add(pool.figures);
  total.add(pool.figures);
  const auto [known, is_new] = pools.try_emplace(key, pool);
  if (!is_new) known->second.figures.add(pool.figures);
}

void Statistics::add_gone(const Node& node, const PoolCounters& counters) {
  NodeStatistics& known = nodes[node.name];
  known.node = &node;
  known.figures.counters.add(counters);
  total.counters.add(counters);
}

void Statistics::merge(const Statistics& other) {
  for (const auto& [key, pool] : other.pools) {
    const auto [known, is_new] = pools.try_emplace(key, pool);
    if (!is_new) known->second.figures.add(pool.figures);
  }
  for (const auto& [name, node] : other.nodes) {
    const auto [known, is_new] = nodes.try_emplace(name, node);
    if (!is_new) known->second.figures.add(node.figures);
  }
  total.add(other.total);
  pins.insert(pins.end(), other.pins.begin(), other.pins.end());
}

namespace {

uint64_t& gauge_of(PoolGauges& gauges, const Backend& backend) noexcept {
  if (backend.state() == Backend::State::closing) return gauges.closing;
  if (!backend.was_ready()) return gauges.connecting;
  if (backend.state() == Backend::State::leased) return gauges.leased;
  if (backend.state() == Backend::State::idle) return gauges.idle;
  return gauges.settling;
}

// What the slice knows; the backends come on top.
PoolGauges gauges_of(Slice& slice, Nanoseconds now) noexcept {
  PoolGauges gauges;
  gauges.permits_free = slice.permits_free();
  gauges.waiters = slice.waiters_count();
  gauges.clients = slice.sessions_count;
  if (gauges.waiters > 0) gauges.oldest_wait = now - slice.oldest_waiting_since();
  return gauges;
}

void count(PoolGauges& gauges, const Backend& backend, Nanoseconds now) noexcept {
  if (backend.state() == Backend::State::ended) return;  // Its permit is free, or has moved on.
  ++gauge_of(gauges, backend);
  if (const Pins& pins = backend.pins(); !pins.is_empty()) {
    ++gauges.pinned;
    for_each_reason(pins.reasons(), [&](PinReason reason) { ++gauges.pins[reason]; });
    gauges.oldest_pin = std::max(gauges.oldest_pin, pins.longest(now));
  }
  const Nanoseconds age = now - backend.created_at;
  gauges.oldest_backend = std::max(gauges.oldest_backend, age);
  gauges.newest_backend = std::min(gauges.newest_backend, age);
}

PinStatistics pin_of(const Backend& backend, Nanoseconds now) {
  const PoolSpec& spec = backend.slice().spec();
  const Pins& pins = backend.pins();
  return {backend.pinning_client(), spec.user,         spec.database,
          backend.process_id(),     pins.longest(now), pins.text(now)};
}

// What tells most comes first, because the table cuts it.
std::string settings_text(const std::vector<NamedValue>& settings) {
  std::string text;
  for (const bool is_replication : {true, false})
    for (const auto& [name, value] : settings)
      if ((name == replication_parameter) == is_replication)
        text += (text.empty() ? "" : ",") + name + "=" + value;
  return text;
}

}  // namespace

Statistics Pools::statistics() noexcept {
  const Nanoseconds time = now();
  std::unordered_map<const Slice*, PoolGauges> gauges;
  for (auto& [key, entry] : entries_) gauges[&entry->slice] = gauges_of(entry->slice, time);
  Statistics all = gone_;
  backends_.for_each([&](Backend& backend) {
    count(gauges[&backend.slice()], backend, time);
    if (!backend.pins().is_empty()) all.pins.push_back(pin_of(backend, time));
  });
  for (auto& [key, entry] : entries_) {
    const Slice& slice = entry->slice;
    const PoolSpec& spec = slice.spec();
    all.add(spec.key, {spec.user,
                       spec.database,
                       spec.is_of_hub ? "(notifications)" : settings_text(spec.login.parameters),
                       spec.node,
                       spec.limits.max_connections,
                       {gauges[&slice], slice.counters}});
  }
  return all;
}

}  // namespace helios
