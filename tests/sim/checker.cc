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

// It counts as a client of its database and user.
bool is_logged_in(const Session& session) {
  const Session::State state = session.state();
  return state == Session::State::welcome || state == Session::State::ready ||
         state == Session::State::waiting || state == Session::State::leased;
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
      logins_seen_(nodes.size()),
      of_nodes_(nodes.size()),
      of_databases_(shared.databases.size()),
      of_users_(shared.users.size()),
      of_pools_(settings.pools.size()),
      of_database_clients_(shared.databases.size()),
      of_user_clients_(shared.users.size()) {
  coming_by_mail_.resize(settings.cores);
  for (const PoolSettings& pool : settings.pools) {
    const PoolSpecRef spec = bench.directory.pool_of("d" + std::to_string(pool.database),
                                                     "u" + std::to_string(pool.user), {});
    keys_.push_back(spec->key);
    add_generation(spec);
  }
  for (CoreId id = 0; id < settings.cores; ++id) look_at_pools(id);
  on_limits_changed();
}

void Checker::after_turn(CoreId id) {
  cores_[id].old_parts = cores_[id].parts;
  look_at_pools(id);
  look_at_backends(id);
  const std::vector<Waiting> before = cores_[id].waiting;
  const std::vector<Served> served = look_at_sessions(id);
  look_at_mail();
  note_let_down(id);
  note_covered();
  check_generations(id);
  check_waiters(id, before);
  check_queue(id, served, before);
  check_fairness(id, served);
  check_room();
  check_permits();
  check_limits(id);
  check_clients();
  cores_[id].has_reloaded = false;
}

// --- Generations ---

void Checker::on_change() {
  ++epoch_;
  on_limits_changed();
}

void Checker::on_reload(CoreId id, uint64_t epoch) {
  cores_[id].epoch = epoch;
  cores_[id].reloaded_at = bench_.clock.now();
  cores_[id].has_reloaded = true;
}

bool Checker::is_changed_over() const {
  return std::all_of(cores_.begin(), cores_.end(),
                     [this](const CoreFacts& facts) { return facts.epoch == epoch_; });
}

void Checker::add_generation(const PoolSpecRef& spec) {
  constexpr std::string_view hub_end = "/hub";
  std::string key = spec->key;
  if (spec->is_of_hub) key.erase(key.size() - hub_end.size());
  generations_.push_back({pool_of_key(key), spec});
  room_since_.push_back(never);
  for (auto& counts : coming_by_mail_) counts.push_back(0);
  posted_backends_.push_back(0);
  posted_permits_.push_back(0);
  for (CoreId id = 0; id < settings_.cores; ++id) {
    Part part;
    part.free = dealt(id, generations_.size() - 1);
    part.moving_to.assign(settings_.cores, 0);
    cores_[id].parts.push_back(part);
    cores_[id].old_parts.push_back(part);
    cores_[id].had_all_at.push_back(0);
  }
}

size_t Checker::generation_of(const PoolSpec& spec) const {
  return static_cast<size_t>(
      std::find_if(generations_.begin(), generations_.end(),
                   [&](const Generation& known) { return known.spec->shared == spec.shared; }) -
      generations_.begin());
}

// Where all have taken over the newest configuration, one generation of a pool goes on, and it has
// the terms of that configuration. What a superseded one must not do: look_at_pool.
void Checker::check_generations(CoreId id) {
  Pools& pools = bench_.core(id).pools;
  if (!is_changed_over() || pools.is_draining()) return;
  const Configuration& newest = settings_.configuration(epoch_);
  for (size_t i = 0; i < generations_.size(); ++i) {
    const Part& part = cores_[id].parts[i];
    const Generation& one = generations_[i];
    if (!part.is_there || part.is_superseded || one.is_hub()) continue;
    const PoolSettings& pool = settings_.pools[one.pool];
    if (!newest.has(pool)) fail_("a pool goes on that was removed");
    if (one.limits() != newest.limits[one.pool]) fail_("a pool goes on under other limits");
    if (one.spec->node != &nodes_[newest.node_of[pool.database]]->node)
      fail_("a pool goes on at another node");
    for (const CoreFacts& other : cores_)
      for (size_t j = 0; j < generations_.size(); ++j)
        if (j != i && generations_[j].pool == one.pool && !generations_[j].is_hub() &&
            other.parts[j].is_there && !other.parts[j].is_superseded)
          fail_("two generations of a pool go on");
  }
}

// --- What there is ---

uint32_t Checker::dealt(CoreId core, size_t generation) const {
  const Generation& one = generations_[generation];
  return PoolCores(one.spec->key, settings_.cores).share_of(one.limits().max_connections, core);
}

size_t Checker::pool_of_key(const std::string& key) const {
  return static_cast<size_t>(std::find(keys_.begin(), keys_.end(), key) - keys_.begin());
}

void Checker::look_at_pools(CoreId id) {
  CoreFacts& facts = cores_[id];
  for (size_t i = 0; i < generations_.size(); ++i) {
    Part& part = facts.parts[i];
    if (part.has_all) facts.had_all_at[i] = bench_.clock.now();  // Until this turn.
    part = Part{};
    part.moving_to.assign(settings_.cores, 0);
    part.free = dealt(id, i);
  }
  bench_.core(id).pools.for_each_pool([&](PoolEntry& entry) { look_at_pool(id, entry); });
}

void Checker::look_at_pool(CoreId id, PoolEntry& entry) {
  CoreFacts& facts = cores_[id];
  const Slice& slice = entry.slice;
  const size_t generation = generation_of(slice.spec());
  if (generation == generations_.size()) add_generation(slice.spec_ref());
  Part& part = facts.parts[generation];
  if (part.is_there) fail_("a core has one generation twice");
  part.is_there = true;
  part.is_superseded = slice.is_superseded();
  part.has_all = slice.holds_all_permits();
  if (part.has_all) facts.had_all_at[generation] = bench_.clock.now();
  part.has_failed = entry.failures_count > 0;
  part.free = slice.permits_free();
  part.connecting = slice.connecting_count();
  part.backends = slice.backends_count();
  part.idle = static_cast<uint32_t>(slice.idle_count());
  part.waited = slice.counters.waited;
  part.refused = slice.counters.waits_refused;
  part.cancelled = slice.counters.failures[WaitFailure::cancelled];
  part.connects = slice.counters.connects;
  part.connect_failures = slice.counters.connect_failures;
  const Part& old = facts.old_parts[generation];
  if (part.idle > 0 && slice.waiters_count() > 0 && !bench_.core(id).pools.is_draining())
    fail_("somebody waits while a backend is idle on the same core");
  if (!part.is_superseded) {
    if (old.is_superseded && old.is_there) fail_("a superseded pool has come back");
    return;
  }
  if (slice.waiters_count() > 0) fail_("somebody waits in a superseded pool");
  if (part.idle > 0) fail_("a superseded pool keeps an idle backend");
  if (old.is_superseded && part.connects > old.connects)
    fail_("a superseded pool has begun a connect");
}

void Checker::look_at_backends(CoreId id) {
  std::vector<uint32_t> counts(generations_.size());
  bench_.core(id).pools.for_each_backend([&](Backend& backend) {
    if (backend.state() == Backend::State::ended) return;
    const size_t generation = generation_of(backend.slice().spec());
    ++counts[generation];
    check_age(backend, generation);
    if (backend.state() == Backend::State::moving)
      ++cores_[id].parts[generation].moving_to[backend.moving_to()];
    if (backend.state() == Backend::State::testing) ++cores_[id].parts[generation].testing;
  });
  for (size_t i = 0; i < generations_.size(); ++i) {
    const Part& part = cores_[id].parts[i];
    if (part.connecting + part.backends != counts[i])
      fail_("a slice has lost count of its backends");
  }
}

// The sweep finds what is idle for too long or too old.
void Checker::check_age(Backend& backend, size_t generation) {
  if (backend.state() != Backend::State::idle || !backend.is_linked()) return;
  const PoolLimits& limits = generations_[generation].limits();
  // A pool that is in use closes one old backend with each sweep.
  const uint32_t backends_max = limits.max_connections + limits.reserve_connections;
  const Nanoseconds patience = (1 + backends_max) * sweep_max + settings_.hop_max();
  const Nanoseconds now = bench_.clock.now();
  // A slow login may outlast it. In a later generation a new max_lifetime begins when a backend
  // comes over, which is before it was idle there.
  const bool is_first = generation < keys_.size();
  const Nanoseconds begin = is_first ? backend.created_at : backend.idle_since;
  const Nanoseconds end = std::max(begin + limits.max_lifetime, backend.idle_since);
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
  facts.clients.assign(keys_.size(), 0);
  Sessions& sessions = bench_.core(id).sessions;
  const Nanoseconds now = bench_.clock.now();
  sessions.for_each([&](Session& session) {
    if (session.state() == Session::State::ending || session.pool() == nullptr) return;
    const size_t generation = generation_of(session.pool()->slice.spec());
    if (is_logged_in(session)) ++facts.clients[generations_[generation].pool];
    const SlabId name = sessions.id_of(session);
    const auto known = std::find_if(facts.waiting.begin(), facts.waiting.end(),
                                    [&](const Waiting& one) { return one.session == name; });
    const bool was_waiting = known != facts.waiting.end();
    // A wait that is over may have been cancelled in this turn, if any was.
    const auto has_cancelled = [&](size_t one) {
      return facts.parts[one].cancelled != facts.old_parts[one].cancelled;
    };
    const bool is_sure =
        !has_cancelled(generation) && !(was_waiting && has_cancelled(known->generation));
    if (holds_backend(session)) leased.push_back(name);
    const bool is_new_lease =
        session.state() == Session::State::leased && !contains(facts.leased, name);
    if (is_new_lease && facts.old_parts[generation].is_superseded)
      fail_("a client got a backend of a superseded pool");
    const auto note_served = [&] {
      served.push_back({generation, known->since, known->generation != generation});
    };
    if (is_queued(session)) {
      const bool is_same = was_waiting && known->since == session.waiting_since;
      if (was_waiting && !is_same && is_sure) note_served();
      // In the next generation the others have to be told anew.
      const bool is_known = is_same && known->generation == generation;
      waiting.push_back({name, generation, session.waiting_since,
                         is_known ? known->uncovered_since : never,
                         is_known && known->was_let_down});
      // A reload may have made it shorter.
      const Nanoseconds end =
          std::max(session.waiting_since + generations_[generation].limits().acquire_timeout,
                   facts.reloaded_at);
      if (now > end + milliseconds(1) + settings_.hop_max())
        fail_("somebody waits beyond acquire_timeout");
    } else if (was_waiting) {
      if (is_sure || holds_backend(session)) note_served();
    } else if (is_new_lease) {
      served.push_back({generation, now, false});
    }
  });
  facts.waiting = std::move(waiting);
  facts.leased = std::move(leased);
  return served;
}

void Checker::look_at_mail() {
  posted_backends_.assign(generations_.size(), 0);
  posted_permits_.assign(generations_.size(), 0);
  posted_sessions_ = 0;
  for (auto& counts : coming_by_mail_) std::fill(counts.begin(), counts.end(), 0);
  bench_.for_each_letter([&](CoreId to, const Letter& letter) {
    const Message& message = letter.message;
    const auto kind = static_cast<MessageKind>(message.kind);
    if (kind == MessageKind::backend) {
      const auto* transfer = reinterpret_cast<const BackendTransfer*>(message.words[0]);
      const size_t generation = generation_of(*transfer->spec);
      ++posted_backends_[generation];
      ++coming_by_mail_[to][generation];
    } else if (kind == MessageKind::permits) {
      const auto* spec = reinterpret_cast<const PoolSpec*>(message.words[0]);
      const size_t generation = generation_of(*spec);
      posted_permits_[generation] += message.count;
      coming_by_mail_[to][generation] += message.count;
    } else if (kind == MessageKind::session) {
      ++posted_sessions_;
    }
  });
}

// --- Fairness ---

// A permit has come that is of no use (a shared limit is full, or the node is down), or a connect
// has begun and failed within one turn. That was what somebody waited for, as far as others know:
// they have to be told anew.
void Checker::note_let_down(CoreId id) {
  const CoreFacts& facts = cores_[id];
  for (Waiting& one : cores_[id].waiting) {
    const Part& part = facts.parts[one.generation];
    const Part& old = facts.old_parts[one.generation];
    const bool has_useless = part.free > 0 && old.free == 0;
    const bool has_tried =
        part.connects > old.connects && part.connect_failures > old.connect_failures;
    if (!(has_useless || has_tried) || one.uncovered_since == never || one.was_let_down) continue;
    one.uncovered_since = bench_.clock.now();
    one.was_let_down = true;
  }
}

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
    for (size_t i = 0; i < generations_.size(); ++i) {
      coming[i] += facts.parts[i].connecting + facts.parts[i].testing;
      for (const CoreFacts& other : cores_) coming[i] += other.parts[i].moving_to[id];
    }
    for (Waiting& one : facts.waiting) {
      const bool is_covered = coming[one.generation] > 0;
      coming[one.generation] -= is_covered ? 1 : 0;
      one.uncovered_since = is_covered ? never : std::min(one.uncovered_since, now);
    }
  }
}

// No more wait than may, who waits is counted, and nobody is refused while there is room in the
// queue. (In the turn of one core nobody comes or goes on the others.) Those that a reload brings
// come over whether there is room or not.
void Checker::check_waiters(CoreId id, const std::vector<Waiting>& before) {
  const auto count_in = [](const std::vector<Waiting>& waiting, size_t generation) {
    return static_cast<uint64_t>(
        std::count_if(waiting.begin(), waiting.end(),
                      [&](const Waiting& one) { return one.generation == generation; }));
  };
  for (size_t i = 0; i < generations_.size(); ++i) {
    const Part& part = cores_[id].parts[i];
    const Part& old = cores_[id].old_parts[i];
    if (generations_[i].is_hub()) continue;  // No session waits there.
    const uint32_t max = generations_[i].limits().max_waiters;
    if (max == 0) {
      if (part.refused > 0) fail_("a waiter was refused although there is no max_waiters");
      continue;
    }
    uint64_t others = 0;
    for (CoreId other = 0; other < settings_.cores; ++other)
      if (other != id) others += count_in(cores_[other].waiting, i);
    const uint64_t all = others + count_in(cores_[id].waiting, i);
    if (generations_[i].shared().waiters.taken() != all) fail_("max_waiters has lost count");
    if (cores_[id].has_reloaded) continue;
    const bool is_first = i < keys_.size();
    if (all > max && (is_first || part.waited > old.waited)) fail_("more wait than max_waiters");
    const uint64_t most = others + count_in(before, i) + part.waited - old.waited;
    if (part.refused > old.refused && most < max)
      fail_("a waiter was refused although " + std::to_string(most) + " waited at most");
  }
}

// On one core, first come, first served, without exception.
void Checker::check_queue(CoreId id, const std::vector<Served>& served,
                          const std::vector<Waiting>& before) {
  for (const Waiting& one : cores_[id].waiting) {
    // Until a reload it waits in a generation of its own, whoever is served in the next one.
    const bool waited_before = std::any_of(before.begin(), before.end(), [&](const Waiting& old) {
      return old.session == one.session && old.since == one.since &&
             old.generation == one.generation;
    });
    if (!waited_before) continue;
    for (const Served& other : served)
      if (other.generation == one.generation && other.since > one.since)
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
    if (winner.has_changed_over) continue;
    for (CoreId other = 0; other < settings_.cores; ++other) {
      if (other == id) continue;
      for (const Waiting& loser : cores_[other].waiting) {
        if (loser.generation != winner.generation || loser.uncovered_since == never) continue;
        const Nanoseconds since =
            std::max(loser.uncovered_since, cores_[other].had_all_at[loser.generation]);
        const Nanoseconds excess =
            std::min(winner.since - loser.since - Slice::fairness_bound, now - since);
        excess_max_ = std::max(excess_max_, excess);
        if (excess_hops() <= 2.0 * settings_.cores) continue;
        fail_("a waiter of " + name_of(loser.generation) + " on core " + std::to_string(other) +
              " was overtaken beyond the bound: since " + in_ms(now - loser.since) +
              ", with nothing on its way since " + in_ms(now - loser.uncovered_since) +
              ", by one of core " + std::to_string(id) + " that waited since " +
              in_ms(now - winner.since));
      }
    }
  }
}

double Checker::excess_hops() const {
  return static_cast<double>(excess_max_) / static_cast<double>(settings_.hop_max());
}

// --- Waiting in vain ---

bool Checker::has_room(size_t generation) const {
  // A generation that goes on here and has ended there helps those who wait in it as far as it can.
  if (!is_changed_over()) return false;
  const PoolSpec& spec = *generations_[generation].spec;
  uint32_t idle = 0;
  uint32_t free = 0;
  bool has_failed = spec.node->health.is_down();
  for (const CoreFacts& facts : cores_) {
    has_failed |= facts.parts[generation].has_failed;
    idle += facts.parts[generation].idle;
    free += facts.parts[generation].free;
  }
  if (idle > 0) return true;
  if (!spec.shared->connections->limit->has_room()) return false;
  const SharedLimit* limits[] = {&spec.node->limit, spec.database_limit.get(),
                                 spec.user_limit.get()};
  return free > 0 && !has_failed &&
         std::all_of(std::begin(limits), std::end(limits),
                     [](const SharedLimit* limit) { return limit->has_room(); });
}

// Nobody waits while a backend is idle or could be connected, wherever that is, but until the cores
// have told each other, as above. While connects to a node fail it is tried by one at a time;
// the first may take its time.
void Checker::check_room() {
  const Nanoseconds now = bench_.clock.now();
  // What is free may be kept for another pool, which another limit has stopped since it asked.
  const Nanoseconds news_max = 2 * settings_.cores * settings_.hop_max() + Slice::fairness_bound +
                               SharedLimit::want_time + SharedLimit::retry_interval;
  for (size_t i = 0; i < generations_.size(); ++i)
    room_since_[i] = has_room(i) ? std::min(room_since_[i], now) : never;
  for (CoreId id = 0; id < settings_.cores; ++id) {
    for (const Waiting& one : cores_[id].waiting) {
      if (one.uncovered_since == never || room_since_[one.generation] == never) continue;
      const Nanoseconds since = std::max(one.uncovered_since, room_since_[one.generation]);
      const Nanoseconds pause =
          settings_.has_faults
              ? 2 * (seconds(1) + generations_[one.generation].limits().connect_timeout)
              : 0;
      if (now - since > news_max + pause)
        fail_("a waiter of " + name_of(one.generation) + " on core " + std::to_string(id) +
              " has waited for " + in_ms(now - since) + " although there is room");
    }
  }
}

// --- Permits and limits ---

uint32_t Checker::held_count(size_t generation) const {
  uint32_t count = posted_backends_[generation];
  for (const CoreFacts& facts : cores_)
    count += facts.parts[generation].connecting + facts.parts[generation].backends;
  return count;
}

// Each generation has permits of its own.
void Checker::check_permits() {
  uint32_t posted = 0;
  for (size_t i = 0; i < generations_.size(); ++i) {
    uint32_t permits = held_count(i) + posted_permits_[i];
    for (const CoreFacts& facts : cores_) permits += facts.parts[i].free;
    const uint32_t reserve = generations_[i].shared().reserve.taken();
    reserve_uses_count_ += reserve > 0 ? 1 : 0;
    if (permits != generations_[i].limits().max_connections + reserve)
      fail_("permits were made or lost: " + std::to_string(permits) + " of " + name_of(i));
    posted += posted_backends_[i];
  }
  if (bench_.transfers_count != posted + posted_sessions_)
    fail_("backends or sessions in messages are not counted");
}

// Calls visit(what, limit, ceiling, applies) for each limit, with what counts in it: generations.
template <typename Visit>
void Checker::for_each_limit(Visit visit) {
  for (size_t i = 0; i < nodes_.size(); ++i)
    visit("node", nodes_[i]->node.limit, of_nodes_[i],
          [&](const Generation& one) { return one.spec->node == &nodes_[i]->node; });
  for (size_t i = 0; i < shared_.databases.size(); ++i)
    visit("database", *shared_.databases[i], of_databases_[i],
          [&](const Generation& one) { return settings_.pools[one.pool].database == i; });
  for (size_t i = 0; i < shared_.users.size(); ++i)
    visit("user", *shared_.users[i], of_users_[i],
          [&](const Generation& one) { return settings_.pools[one.pool].user == i; });
  for (size_t i = 0; i < keys_.size(); ++i)
    visit("pool", *generations_[i].shared().connections->limit, of_pools_[i],
          [&](const Generation& one) { return one.pool == i && !one.is_hub(); });
}

template <typename Applies>
uint32_t Checker::held_by(Applies applies) const {
  uint32_t held = 0;
  for (size_t i = 0; i < generations_.size(); ++i)
    if (applies(generations_[i])) held += held_count(i);
  return held;
}

uint32_t Checker::Ceiling::lowered(uint32_t max, uint32_t held) const {
  return max == 0 ? UINT32_MAX : std::max(max, std::min(allowed, held));
}

void Checker::on_limits_changed() {
  for_each_limit([this](const char*, const auto& limit, Ceiling& ceiling, const auto& applies) {
    const uint32_t held = held_by(applies);
    note_size(ceiling, limit.max(), held);
    ceiling.allowed = ceiling.lowered(limit.max(), held);
  });
  for_each_client_limit([this](const char*, const Limit& limit, Ceiling& ceiling, const auto&) {
    note_size(ceiling, limit.max(), limit.taken());
    ceiling.allowed = ceiling.lowered(limit.max(), limit.taken());
  });
  note_size(of_clients_, bench_.shared.clients_max, bench_.shared.clients_count);
  of_clients_.allowed = of_clients_.lowered(bench_.shared.clients_max, bench_.shared.clients_count);
}

void Checker::note_size(Ceiling& ceiling, uint32_t max, uint32_t held) {
  const std::optional<uint32_t> before = std::exchange(ceiling.last_max, max);
  if (!before || *before == max) return;
  ++resizes_count_;
  shrinks_count_ += max > 0 && held > max ? 1 : 0;
}

void Checker::check_limits(CoreId id) {
  const CoreFacts& facts = cores_[id];
  const auto has_connected = [&](const auto& applies) {
    for (size_t i = 0; i < generations_.size(); ++i)
      if (applies(generations_[i]) && facts.parts[i].connects > facts.old_parts[i].connects)
        return true;
    return false;
  };
  for_each_limit([&](const char* what, const auto& limit, Ceiling& ceiling, const auto& applies) {
    const uint32_t held = held_by(applies);
    const uint32_t max = limit.max();
    note_size(ceiling, max, held);
    if (limit.taken() != held)
      fail_(std::string("the limit of a ") + what +
            " has lost count: " + std::to_string(limit.taken()) + " of " + std::to_string(held));
    if (max == 0 || held <= max) {
      ceiling.allowed = ceiling.lowered(max, held);
      return;
    }
    if (held > std::max(max, ceiling.allowed) || has_connected(applies))
      fail_(std::string("more backends than the limit of a ") + what + ": " + std::to_string(held) +
            " of " + std::to_string(max));
    ceiling.allowed = ceiling.lowered(max, held);
  });
}

// Calls visit(what, limit, ceiling, applies) for each limit on clients, with what counts in it:
// pools.
template <typename Visit>
void Checker::for_each_client_limit(Visit visit) {
  for (size_t i = 0; i < of_database_clients_.size(); ++i)
    visit("database", *shared_.database_clients[i], of_database_clients_[i],
          [i](const PoolSettings& pool) { return pool.database == i; });
  for (size_t i = 0; i < of_user_clients_.size(); ++i)
    visit("user", *shared_.user_clients[i], of_user_clients_[i],
          [i](const PoolSettings& pool) { return pool.user == i; });
}

// Whoever is logged in counts once; above a limit that has become smaller nobody comes in.
void Checker::check_clients() {
  const auto check_ceiling = [this](const char* whose, Ceiling& ceiling, uint32_t max,
                                    uint32_t held) {
    if (held > ceiling.allowed)
      fail_(std::string("more clients than max_clients of a ") + whose + ": " +
            std::to_string(held) + " of " + std::to_string(max));
    ceiling.allowed = ceiling.lowered(max, held);
  };
  for_each_client_limit([&](const char* whose, const Limit& limit, Ceiling& ceiling,
                            const auto& applies) {
    uint32_t held = 0;
    for (const CoreFacts& facts : cores_)
      for (size_t pool = 0; pool < facts.clients.size(); ++pool)
        held += applies(settings_.pools[pool]) ? facts.clients[pool] : 0;
    if (limit.taken() != held)
      fail_(std::string("max_clients of a ") + whose +
            " has lost count: " + std::to_string(limit.taken()) + " of " + std::to_string(held));
    check_ceiling(whose, ceiling, limit.max(), held);
  });
  check_ceiling("pooler", of_clients_, bench_.shared.clients_max, bench_.shared.clients_count);
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
  std::vector<uint32_t> hubs_by_pool(keys_.size());
  std::vector<uint32_t> by_node(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    for (const ServerSession* session : nodes_[i]->server.open_sessions()) {
      if (bench_.network.was_reset(session->fd())) continue;
      ++by_node[i];
      if (session->startup().contains("application_name")) {
        ++hubs_by_pool[pool_of_key(pool_key(session->database(), session->user(), {}))];
        continue;
      }
      ++by_pool[pool_of_key(pool_key(session->database(), session->user(), {}))];
    }
  }
  const auto check = [&](const char* what, const Ceiling& ceiling, uint32_t count) {
    if (count > ceiling.allowed)
      fail_(std::string("the node sees more connections than the limit of a ") + what + ": " +
            std::to_string(count) + " of " + std::to_string(ceiling.allowed));
  };
  const auto sum = [&](const auto& applies) {
    uint32_t count = 0;
    for (size_t pool = 0; pool < keys_.size(); ++pool)
      count += applies(settings_.pools[pool]) ? by_pool[pool] + hubs_by_pool[pool] : 0;
    return count;
  };
  for (size_t i = 0; i < keys_.size(); ++i) check("pool", of_pools_[i], by_pool[i]);
  for (size_t i = 0; i < nodes_.size(); ++i) check("node", of_nodes_[i], by_node[i]);
  for (size_t i = 0; i < of_databases_.size(); ++i)
    check("database", of_databases_[i],
          sum([&](const PoolSettings& pool) { return pool.database == i; }));
  for (size_t i = 0; i < of_users_.size(); ++i)
    check("user", of_users_[i], sum([&](const PoolSettings& pool) { return pool.user == i; }));
}

// Under which terms the backend of this process was made; nullptr when it is forgotten already.
const PoolSpec* Checker::find_spec(size_t node, uint32_t process_id) {
  const PoolSpec* found = nullptr;
  const auto look_at = [&](const PoolSpec& spec, uint32_t number) {
    if (number == process_id && spec.node == &nodes_[node]->node) found = &spec;
  };
  for (CoreId id = 0; id < settings_.cores; ++id)
    bench_.core(id).pools.for_each_backend(
        [&](Backend& backend) { look_at(backend.slice().spec(), backend.process_id()); });
  bench_.for_each_letter([&](CoreId, const Letter& letter) {
    if (static_cast<MessageKind>(letter.message.kind) != MessageKind::backend) return;
    const auto* transfer = reinterpret_cast<const BackendTransfer*>(letter.message.words[0]);
    look_at(*transfer->spec, transfer->process_id);
  });
  return found;
}

void Checker::on_server_message(size_t node, const ServerSession& session,
                                const WireMessage& message) {
  if (message.tag == 'X') return;
  const auto [known, is_new] = beginnings_.try_emplace({node, session.process_id()}, Beginning());
  Beginning& beginning = known->second;
  if (is_new) {
    const PoolSpec* spec = find_spec(node, session.process_id());
    if (spec != nullptr) beginning.text = spec->limits.connect_query;
  }
  if (beginning.text.empty()) return;
  const std::string text =
      message.tag == 'Q' ? message.body.substr(0, message.body.size() - 1) : "";
  if (text == "DISCARD ALL" ||
      text.starts_with("RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL")) {
    beginning.has_come = false;
  } else if (text == beginning.text) {
    beginning.has_come = true;
    ++connect_queries_count_;
  } else if (!beginning.has_come) {
    fail_(std::string("a server session got something before connect_query: ") + message.tag);
  }
}

uint64_t Checker::hubs_count() const {
  return static_cast<uint64_t>(std::count_if(generations_.begin(), generations_.end(),
                                             [](const Generation& one) { return one.is_hub(); }));
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
  return std::all_of(generations_.begin(), generations_.end(),
                     [](const Generation& one) { return one.shared().reserve.taken() == 0; });
}

bool Checker::is_forgotten() const {
  for (const CoreFacts& facts : cores_)
    for (const Part& part : facts.parts)
      if (part.is_there) return false;
  return true;
}

void Checker::check_nothing_is_left() {
  for_each_limit([this](const char* what, const auto& limit, const Ceiling&, const auto&) {
    if (limit.taken() != 0) fail_(std::string("the limit of a ") + what + " is not free");
  });
  for_each_client_limit([this](const char* whose, const Limit& limit, const Ceiling&, const auto&) {
    if (limit.taken() != 0) fail_(std::string("max_clients of a ") + whose + " is not free");
  });
  for (const Generation& one : generations_)
    if (one.shared().waiters.taken() != 0) fail_("max_waiters is not free");
  for (const auto& node : nodes_)
    if (node->node.gate.taken() != 0) fail_("the gate of a node is not free");
}

std::string Checker::name_of(size_t generation) const {
  const size_t pool = generations_[generation].pool;
  std::string name = "pool " + std::to_string(pool);
  if (generation >= keys_.size())
    name += ", generation " + std::to_string(generations_[generation].shared().generation);
  return name;
}

std::string Checker::describe() {
  std::string text;
  for (CoreId id = 0; id < settings_.cores; ++id) {
    bench_.core(id).pools.for_each_pool([&](PoolEntry& entry) {
      const Slice& slice = entry.slice;
      const size_t generation = generation_of(slice.spec());
      text += "\n  core " + std::to_string(id) + " " +
              (generation < generations_.size() ? name_of(generation) : "unknown pool") +
              (slice.is_superseded() ? ", superseded" : "") + ": free " +
              std::to_string(slice.permits_free()) + ", connecting " +
              std::to_string(slice.connecting_count()) + ", backends " +
              std::to_string(slice.backends_count()) + ", idle " +
              std::to_string(slice.idle_count()) + (slice.is_used() ? ", used" : "") +
              (slice.spec().node->health.is_down() ? ", node down" : "") + ", waiters " +
              std::to_string(slice.waiters_count());
    });
  }
  return text;
}

}  // namespace helios::sim
