#include "tests/sim/checker.h"

#include <algorithm>

#include "helios/pool/pool_cores.h"
#include "helios/pool/pool_messages.h"

namespace helios::sim {
namespace {

using namespace test;

// What is to end with a sweep ends with the next one.
constexpr Nanoseconds sweep_max = seconds(1) + milliseconds(1);

bool is_queued(Session& session) {
  return static_cast<ListNode<WaiterTag>&>(session).is_linked();
}

bool holds_backend(const Session& session) {
  return session.state() == Session::State::leased || session.state() == Session::State::leaving;
}

std::string in_ms(Nanoseconds duration) {
  return std::to_string(static_cast<double>(duration) / 1e6) + " ms";
}

template <typename T>
bool contains(const std::vector<T>& list, const T& item) {
  return std::find(list.begin(), list.end(), item) != list.end();
}

}  // namespace

Checker::Checker(SessionBench& bench, const Settings& settings, const SharedLimits& shared,
                 std::vector<std::unique_ptr<SimNode>>& nodes, Fail fail)
    : bench_(bench),
      settings_(settings),
      shared_(shared),
      nodes_(nodes),
      fail_(std::move(fail)),
      cores_(settings.cores),
      logins_seen_(nodes.size()) {
  for (const PoolSettings& pool : settings.pools) {
    const PoolSpecRef spec = bench.directory.pool_of("d" + std::to_string(pool.database),
                                                     "u" + std::to_string(pool.user), {});
    keys_.push_back(spec->key);
    pools_shared_.push_back(spec->shared);
  }
  room_since_.assign(keys_.size(), never);
  coming_by_mail_.assign(settings.cores, std::vector<uint32_t>(keys_.size()));
  for (CoreId id = 0; id < settings.cores; ++id) {
    cores_[id].parts.resize(keys_.size());
    cores_[id].had_all_at.resize(keys_.size());
    look_at_pools(id);
  }
}

void Checker::after_turn(CoreId id) {
  cores_[id].old_parts = cores_[id].parts;
  look_at_pools(id);
  look_at_backends(id);
  const std::vector<Waiting> before = cores_[id].waiting;
  const std::vector<Served> served = look_at_sessions(id);
  look_at_mail();
  note_covered();
  check_waiters(id, before);
  check_queue(id, served, before);
  check_fairness(id, served);
  check_room();
  check_permits();
  check_limits();
}

// --- What there is ---

uint32_t Checker::dealt(CoreId core, size_t pool) const {
  return PoolCores(keys_[pool], settings_.cores)
      .share_of(settings_.pools[pool].limits.max_connections, core);
}

size_t Checker::pool_of_key(const std::string& key) const {
  return static_cast<size_t>(std::find(keys_.begin(), keys_.end(), key) - keys_.begin());
}

void Checker::look_at_pools(CoreId id) {
  for (size_t pool = 0; pool < keys_.size(); ++pool) {
    Part& part = cores_[id].parts[pool];
    PoolEntry* entry = bench_.core(id).pools.find_pool(keys_[pool]);
    const bool had_all = part.has_all;  // Until this turn.
    part = Part{};
    part.has_all = entry != nullptr && entry->slice.holds_all_permits();
    if (had_all || part.has_all) cores_[id].had_all_at[pool] = bench_.clock.now();
    part.moving_to.assign(settings_.cores, 0);
    part.free = dealt(id, pool);
    if (entry == nullptr) continue;
    const Slice& slice = entry->slice;
    part.is_there = true;
    part.has_failed = entry->failures_count > 0;
    part.free = slice.permits_free();
    part.connecting = slice.connecting_count();
    part.backends = slice.backends_count();
    part.idle = static_cast<uint32_t>(slice.idle_count());
    part.waited = slice.counters.waited;
    part.refused = slice.counters.waits_refused;
    part.cancelled = slice.counters.failures[WaitFailure::cancelled];
    if (part.idle > 0 && slice.waiters_count() > 0 && !bench_.core(id).pools.is_draining())
      fail_("somebody waits while a backend is idle on the same core");
  }
}

void Checker::look_at_backends(CoreId id) {
  std::vector<uint32_t> counts(keys_.size());
  bench_.core(id).pools.for_each_backend([&](Backend& backend) {
    if (backend.state() == Backend::State::ended) return;
    const size_t pool = pool_of_key(backend.slice().spec().key);
    ++counts[pool];
    check_age(backend, settings_.pools[pool].limits);
    if (backend.state() == Backend::State::moving)
      ++cores_[id].parts[pool].moving_to[backend.moving_to()];
  });
  for (size_t pool = 0; pool < keys_.size(); ++pool) {
    const Part& part = cores_[id].parts[pool];
    if (part.connecting + part.backends != counts[pool])
      fail_("a slice has lost count of its backends");
  }
}

// The sweep finds what is idle for too long or too old.
void Checker::check_age(Backend& backend, const PoolLimits& limits) {
  if (backend.state() != Backend::State::idle || !backend.is_linked()) return;
  // A pool that is in use closes one old backend with each sweep.
  const uint32_t backends_max = limits.max_connections + limits.reserve_connections;
  const Nanoseconds patience = (1 + backends_max) * sweep_max + settings_.hop_max();
  const Nanoseconds now = bench_.clock.now();
  // A slow login may outlast it.
  const Nanoseconds end = std::max(backend.created_at + limits.max_lifetime, backend.idle_since);
  if (limits.max_lifetime > 0 && now - end > patience) fail_("a backend has outlived max_lifetime");
  const bool may_stay = limits.idle_timeout == 0 || limits.min_connections > 0;
  if (!may_stay && now - backend.idle_since > limits.idle_timeout + patience)
    fail_("a backend is idle beyond idle_timeout");
}

// Who waits now, and who has got a backend since the last time. Who was never seen waiting got one
// at once.
std::vector<Checker::Served> Checker::look_at_sessions(CoreId id) {
  CoreFacts& facts = cores_[id];
  std::vector<Served> served;
  std::vector<Waiting> waiting;
  std::vector<SlabId> leased;
  Sessions& sessions = bench_.core(id).sessions;
  const Nanoseconds now = bench_.clock.now();
  sessions.for_each([&](Session& session) {
    if (session.state() == Session::State::ending || session.pool() == nullptr) return;
    const size_t pool = pool_of_key(session.pool()->slice.spec().key);
    const SlabId name = sessions.id_of(session);
    const auto known = std::find_if(facts.waiting.begin(), facts.waiting.end(),
                                    [&](const Waiting& one) { return one.session == name; });
    const bool was_waiting = known != facts.waiting.end();
    // A wait that is over may have been cancelled in this turn, if any was.
    const bool is_sure = facts.parts[pool].cancelled == facts.old_parts[pool].cancelled;
    if (holds_backend(session)) leased.push_back(name);
    if (is_queued(session)) {
      const bool is_same = was_waiting && known->since == session.waiting_since;
      if (was_waiting && !is_same && is_sure) served.push_back({pool, known->since});
      waiting.push_back(
          {name, pool, session.waiting_since, is_same ? known->uncovered_since : never});
      const Nanoseconds patience = settings_.pools[pool].limits.acquire_timeout;
      if (now - session.waiting_since > patience + milliseconds(1) + settings_.hop_max())
        fail_("somebody waits beyond acquire_timeout");
    } else if (was_waiting) {
      if (is_sure || holds_backend(session)) served.push_back({pool, known->since});
    } else if (session.state() == Session::State::leased && !contains(facts.leased, name)) {
      served.push_back({pool, now});
    }
  });
  facts.waiting = std::move(waiting);
  facts.leased = std::move(leased);
  return served;
}

void Checker::look_at_mail() {
  posted_backends_.assign(keys_.size(), 0);
  posted_permits_.assign(keys_.size(), 0);
  posted_sessions_ = 0;
  for (auto& counts : coming_by_mail_) std::fill(counts.begin(), counts.end(), 0);
  bench_.for_each_letter([&](CoreId to, const Letter& letter) {
    const Message& message = letter.message;
    const auto kind = static_cast<MessageKind>(message.kind);
    if (kind == MessageKind::backend) {
      const auto* transfer = reinterpret_cast<const BackendTransfer*>(message.words[0]);
      const size_t pool = pool_of_key(transfer->spec->key);
      ++posted_backends_[pool];
      ++coming_by_mail_[to][pool];
    } else if (kind == MessageKind::permits) {
      const auto* spec = reinterpret_cast<const PoolSpec*>(message.words[0]);
      const size_t pool = pool_of_key(spec->key);
      posted_permits_[pool] += message.count;
      coming_by_mail_[to][pool] += message.count;
    } else if (kind == MessageKind::session) {
      ++posted_sessions_;
    }
  });
}

// --- Fairness ---

// Of the waiters of a slice those are not covered that are left when what is on its way has gone to
// the oldest.
void Checker::note_covered() {
  const Nanoseconds now = bench_.clock.now();
  for (CoreId id = 0; id < settings_.cores; ++id) {
    CoreFacts& facts = cores_[id];
    if (facts.waiting.empty()) continue;
    std::sort(facts.waiting.begin(), facts.waiting.end(),
              [](const Waiting& a, const Waiting& b) { return a.since < b.since; });
    std::vector<uint32_t> coming = coming_by_mail_[id];
    for (size_t pool = 0; pool < keys_.size(); ++pool) {
      coming[pool] += facts.parts[pool].connecting;
      for (const CoreFacts& other : cores_) coming[pool] += other.parts[pool].moving_to[id];
    }
    for (Waiting& one : facts.waiting) {
      const bool is_covered = coming[one.pool] > 0;
      coming[one.pool] -= is_covered ? 1 : 0;
      one.uncovered_since = is_covered ? never : std::min(one.uncovered_since, now);
    }
  }
}

// No more wait than may, who waits is counted, and nobody is refused while there is room in the
// queue. (In the turn of one core nobody comes or goes on the others.)
void Checker::check_waiters(CoreId id, const std::vector<Waiting>& before) {
  const auto count_in = [](const std::vector<Waiting>& waiting, size_t pool) {
    return static_cast<uint64_t>(std::count_if(
        waiting.begin(), waiting.end(), [&](const Waiting& one) { return one.pool == pool; }));
  };
  for (size_t pool = 0; pool < keys_.size(); ++pool) {
    const Part& part = cores_[id].parts[pool];
    const Part& old = cores_[id].old_parts[pool];
    const uint32_t max = settings_.pools[pool].limits.max_waiters;
    if (max == 0) {
      if (part.refused > 0) fail_("a waiter was refused although there is no max_waiters");
      continue;
    }
    uint64_t others = 0;
    for (CoreId other = 0; other < settings_.cores; ++other)
      if (other != id) others += count_in(cores_[other].waiting, pool);
    const uint64_t all = others + count_in(cores_[id].waiting, pool);
    if (all > max) fail_("more wait than max_waiters");
    if (pools_shared_[pool]->waiters.taken() != all) fail_("max_waiters has lost count");
    const uint64_t most = others + count_in(before, pool) + part.waited - old.waited;
    if (part.refused > old.refused && most < max)
      fail_("a waiter was refused although " + std::to_string(most) + " waited at most");
  }
}

// On one core, first come, first served, without exception.
void Checker::check_queue(CoreId id, const std::vector<Served>& served,
                          const std::vector<Waiting>& before) {
  for (const Waiting& one : cores_[id].waiting) {
    const bool waited_before = std::any_of(before.begin(), before.end(), [&](const Waiting& old) {
      return old.session == one.session && old.since == one.since;
    });
    if (!waited_before) continue;
    for (const Served& other : served)
      if (other.pool == one.pool && other.since > one.since)
        fail_("a waiter was overtaken on its own core");
  }
}

// Between cores: somebody for whom nothing is on its way is overtaken by a waiter of another core
// that is younger by more than Slice::fairness_bound only until the other cores have been told: a
// message and its answer for each, 2 x cores x hop_max(), from when its own core has given away the
// first of all permits.
void Checker::check_fairness(CoreId id, const std::vector<Served>& served) {
  const Nanoseconds now = bench_.clock.now();
  for (const Served& winner : served) {
    for (CoreId other = 0; other < settings_.cores; ++other) {
      if (other == id) continue;
      for (const Waiting& loser : cores_[other].waiting) {
        if (loser.pool != winner.pool || loser.uncovered_since == never) continue;
        const Nanoseconds since =
            std::max(loser.uncovered_since, cores_[other].had_all_at[loser.pool]);
        const Nanoseconds excess =
            std::min(winner.since - loser.since - Slice::fairness_bound, now - since);
        excess_max_ = std::max(excess_max_, excess);
        if (excess_hops() <= 2.0 * settings_.cores) continue;
        fail_("a waiter of pool " + std::to_string(loser.pool) + " on core " +
              std::to_string(other) + " was overtaken beyond the bound: since " +
              in_ms(now - loser.since) + ", with nothing on its way since " +
              in_ms(now - loser.uncovered_since) + ", by one of core " + std::to_string(id) +
              " that waited since " + in_ms(now - winner.since));
      }
    }
  }
}

double Checker::excess_hops() const {
  return static_cast<double>(excess_max_) / static_cast<double>(settings_.hop_max());
}

// --- Waiting in vain ---

bool Checker::has_room(size_t pool) const {
  const PoolSettings& settings = settings_.pools[pool];
  uint32_t idle = 0;
  uint32_t free = 0;
  bool has_failed = nodes_[settings_.node_of[settings.database]]->node.health.is_down();
  for (const CoreFacts& facts : cores_) {
    has_failed |= facts.parts[pool].has_failed;
    idle += facts.parts[pool].idle;
    free += facts.parts[pool].free;
  }
  if (idle > 0) return true;
  const SharedLimit* limits[] = {&nodes_[settings_.node_of[settings.database]]->node.limit,
                                 shared_.databases[settings.database].get(),
                                 shared_.users[settings.user].get()};
  return free > 0 && !has_failed &&
         std::all_of(std::begin(limits), std::end(limits), [](const SharedLimit* limit) {
           return limit == nullptr || limit->has_room();
         });
}

// Nobody waits while a backend is idle or could be connected, wherever that is, but until the cores
// have told each other, as above. While connects to a node fail it is tried by one at a time;
// the first may take its time.
void Checker::check_room() {
  const Nanoseconds now = bench_.clock.now();
  // What is free may be kept for another pool, as long as that may still come for it; when its
  // clients have given up, for the next one.
  const auto pools_count = static_cast<Nanoseconds>(keys_.size());
  const Nanoseconds kept_max = pools_count * SharedLimit::want_time + SharedLimit::retry_interval;
  const Nanoseconds news_max =
      2 * settings_.cores * settings_.hop_max() + Slice::fairness_bound + kept_max;
  for (size_t pool = 0; pool < keys_.size(); ++pool)
    room_since_[pool] = has_room(pool) ? std::min(room_since_[pool], now) : never;
  for (CoreId id = 0; id < settings_.cores; ++id) {
    for (const Waiting& one : cores_[id].waiting) {
      if (one.uncovered_since == never || room_since_[one.pool] == never) continue;
      const Nanoseconds since = std::max(one.uncovered_since, room_since_[one.pool]);
      const Nanoseconds pause =
          settings_.has_faults ? 2 * (seconds(1) + settings_.pools[one.pool].limits.connect_timeout)
                               : 0;
      if (now - since > news_max + pause)
        fail_("a waiter of pool " + std::to_string(one.pool) + " on core " + std::to_string(id) +
              " has waited for " + in_ms(now - since) + " although there is room");
    }
  }
}

// --- Permits and limits ---

uint32_t Checker::held_count(size_t pool) const {
  uint32_t count = posted_backends_[pool];
  for (const CoreFacts& facts : cores_)
    count += facts.parts[pool].connecting + facts.parts[pool].backends;
  return count;
}

void Checker::check_permits() {
  uint32_t posted = 0;
  for (size_t pool = 0; pool < keys_.size(); ++pool) {
    uint32_t permits = held_count(pool) + posted_permits_[pool];
    for (const CoreFacts& facts : cores_) permits += facts.parts[pool].free;
    const uint32_t reserve = pools_shared_[pool]->reserve.taken();
    reserve_uses_count_ += reserve > 0 ? 1 : 0;
    if (permits != settings_.pools[pool].limits.max_connections + reserve)
      fail_("permits were made or lost: " + std::to_string(permits) + " of pool " +
            std::to_string(pool));
    posted += posted_backends_[pool];
  }
  if (bench_.transfers_count != posted + posted_sessions_)
    fail_("backends or sessions in messages are not counted");
}

void Checker::check_limits() {
  const auto check = [&](const char* what, const SharedLimit* limit, const auto& applies) {
    if (limit == nullptr) return;
    uint32_t held = 0;
    for (size_t pool = 0; pool < keys_.size(); ++pool)
      held += applies(settings_.pools[pool]) ? held_count(pool) : 0;
    if (limit->taken() != held)
      fail_(std::string("the limit of a ") + what +
            " has lost count: " + std::to_string(limit->taken()) + " of " + std::to_string(held));
    if (limit->max() != 0 && held > limit->max())
      fail_(std::string("more backends than the limit of a ") + what);
  };
  for (size_t i = 0; i < nodes_.size(); ++i)
    check("node", &nodes_[i]->node.limit,
          [&](const PoolSettings& pool) { return settings_.node_of[pool.database] == i; });
  for (size_t i = 0; i < shared_.databases.size(); ++i)
    check("database", shared_.databases[i].get(),
          [&](const PoolSettings& pool) { return pool.database == i; });
  for (size_t i = 0; i < shared_.users.size(); ++i)
    check("user", shared_.users[i].get(), [&](const PoolSettings& pool) { return pool.user == i; });
}

void Checker::after_node(size_t number) {
  // A core that stops at once cuts its connections, and the others may not have stopped yet.
  for (CoreId id = 0; id < settings_.cores; ++id)
    if (bench_.core(id).pools.is_stopped()) return;
  // There can be too many only when another has come.
  if (std::exchange(logins_seen_[number], nodes_[number]->server.logins_count) ==
      nodes_[number]->server.logins_count)
    return;
  std::vector<uint32_t> by_pool(keys_.size());
  for (const auto& node : nodes_)
    for (const ServerSession* session : node->server.open_sessions())
      if (!bench_.network.was_reset(session->fd()))
        ++by_pool[pool_of_key(pool_key(session->database(), session->user(), {}))];
  const auto check = [&](const char* what, uint32_t max, const auto& applies) {
    uint32_t count = 0;
    for (size_t pool = 0; pool < keys_.size(); ++pool)
      count += applies(settings_.pools[pool]) ? by_pool[pool] : 0;
    if (max != 0 && count > max)
      fail_(std::string("the node sees more connections than the limit of a ") + what + ": " +
            std::to_string(count) + " of " + std::to_string(max));
  };
  for (const PoolSettings& one : settings_.pools)
    check("pool", one.limits.max_connections + one.limits.reserve_connections,
          [&](const PoolSettings& pool) { return &pool == &one; });
  for (size_t i = 0; i < settings_.node_max.size(); ++i)
    check("node", settings_.node_max[i],
          [&](const PoolSettings& pool) { return settings_.node_of[pool.database] == i; });
  for (size_t i = 0; i < settings_.database_max.size(); ++i)
    check("database", settings_.database_max[i],
          [&](const PoolSettings& pool) { return pool.database == i; });
  for (size_t i = 0; i < settings_.user_max.size(); ++i)
    check("user", settings_.user_max[i], [&](const PoolSettings& pool) { return pool.user == i; });
}

void Checker::on_server_message(const ServerSession& session, const WireMessage& message) {
  const size_t pool = pool_of_key(pool_key(session.database(), session.user(), {}));
  const std::string& wanted = settings_.pools[pool].limits.connect_query;
  if (wanted.empty() || message.tag == 'X') return;
  const std::string text =
      message.tag == 'Q' ? message.body.substr(0, message.body.size() - 1) : "";
  if (text == "DISCARD ALL") {
    prepared_.erase(&session);
  } else if (text == wanted) {
    prepared_.insert(&session);
    ++connect_queries_count_;
  } else if (!prepared_.contains(&session)) {
    fail_(std::string("a server session got something before connect_query: ") + message.tag);
  }
}

bool Checker::is_at_rest() const {
  for (const CoreFacts& facts : cores_) {
    if (!facts.waiting.empty() || !facts.leased.empty()) return false;
    for (const Part& part : facts.parts)
      if (part.connecting > 0 || part.backends != part.idle) return false;
  }
  bool has_mail = false;
  bench_.for_each_letter([&](CoreId, const Letter&) { has_mail = true; });
  return !has_mail;
}

bool Checker::is_reserve_whole() const {
  return std::all_of(pools_shared_.begin(), pools_shared_.end(),
                     [](const auto& shared) { return shared->reserve.taken() == 0; });
}

bool Checker::is_forgotten() const {
  for (const CoreFacts& facts : cores_)
    for (const Part& part : facts.parts)
      if (part.is_there) return false;
  return true;
}

std::string Checker::describe() {
  std::string text;
  for (CoreId id = 0; id < settings_.cores; ++id) {
    for (size_t pool = 0; pool < keys_.size(); ++pool) {
      PoolEntry* entry = bench_.core(id).pools.find_pool(keys_[pool]);
      if (entry == nullptr) continue;
      const Slice& slice = entry->slice;
      text += "\n  core " + std::to_string(id) + " pool " + std::to_string(pool) + ": free " +
              std::to_string(slice.permits_free()) + ", connecting " +
              std::to_string(slice.connecting_count()) + ", backends " +
              std::to_string(slice.backends_count()) + ", idle " +
              std::to_string(slice.idle_count()) + (slice.is_used() ? ", used" : "") +
              (slice.spec().node->health.is_down() ? ", node down" : "") + ", waiters " +
              std::to_string(slice.waiters_count());
    }
  }
  return text;
}

}  // namespace helios::sim
