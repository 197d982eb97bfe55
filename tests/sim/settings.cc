#include "tests/sim/settings.h"

#include <algorithm>
#include <initializer_list>

namespace helios::sim {
namespace {

uint32_t between(SimRandom& random, uint32_t low, uint32_t high) {
  return low + static_cast<uint32_t>(random.below(high - low + 1));
}

template <typename T>
T one_of(SimRandom& random, std::initializer_list<T> values) {
  return values.begin()[random.below(values.size())];
}

// None in half of the cases.
uint32_t maybe_limit(SimRandom& random, uint32_t max) {
  return random.percent(50) ? 0 : between(random, 1, max);
}

uint32_t rare_limit(SimRandom& random, uint32_t max) {
  return random.percent(80) ? 0 : between(random, 1, max);
}

LeaseMode draw_mode(SimRandom& random) {
  const uint64_t chance = random.below(10);
  if (chance < 7) return LeaseMode::transaction;
  return chance < 9 ? LeaseMode::session : LeaseMode::statement;
}

PoolLimits draw_limits(SimRandom& random) {
  PoolLimits limits;
  limits.session_state = StatePolicy::warn;
  limits.mode = draw_mode(random);
  limits.max_connections = between(random, 1, 8);
  limits.min_connections = random.percent(60) ? 0 : between(random, 0, limits.max_connections);
  limits.idle_timeout = milliseconds(one_of(random, {0, 5, 50, 1'000, 300'000}));
  limits.max_lifetime = milliseconds(one_of(random, {0, 20, 200, 3'000, 1'800'000}));
  limits.acquire_timeout = milliseconds(one_of(random, {20, 200, 2'000, 30'000}));
  limits.connect_timeout = milliseconds(one_of(random, {200, 1'000, 15'000}));
  limits.test_after = milliseconds(one_of(random, {0, 1, 20, 500, 30'000}));
  if (limits.test_after == 0) limits.test_after = never;
  return limits;
}

void draw_more_limits(SimRandom& random, PoolLimits& limits) {
  limits.weight = one_of(random, {1U, 1U, 2U, 7U});
  limits.max_waiters = random.percent(25) ? between(random, 1, 8) : 0;
  limits.reserve_connections = random.percent(30) ? between(random, 1, 3) : 0;
  limits.reserve_after = milliseconds(one_of(random, {0, 1, 15, 150}));
  limits.wait_notice = milliseconds(one_of(random, {0, 0, 1, 10, 100}));
  limits.connect_query = one_of(random, {"", "", "", "", "", "", "FIRST", "SECOND"});
}

const char* to_text(LeaseMode mode) {
  switch (mode) {
    case LeaseMode::session:
      return "session";
    case LeaseMode::transaction:
      return "transaction";
    case LeaseMode::statement:
      return "statement";
  }
  return "";
}

const char* to_text(StatePolicy policy) {
  switch (policy) {
    case StatePolicy::follow:
      return "follow";
    case StatePolicy::strict:
      return "strict";
    case StatePolicy::pin:
      return "pin";
    case StatePolicy::warn:
      return "warn";
    case StatePolicy::refuse:
      return "refuse";
  }
  return "";
}

std::string in_ms(Nanoseconds duration) {
  return std::to_string(static_cast<double>(duration) / 1e6) + " ms";
}

}  // namespace

Settings::Settings(uint64_t first_seed) : seed(first_seed) {
  SimRandom random(seed);
  cores = static_cast<CoreId>(between(random, 1, 8));
  for (uint32_t i = between(random, 1, 2); i > 0; --i)
    first.node_max.push_back(random.percent(30) ? 0 : between(random, 1, 12));
  for (uint32_t i = between(random, 1, 3); i > 0; --i) {
    first.node_of.push_back(random.below(first.node_max.size()));
    first.database_max.push_back(maybe_limit(random, 8));
  }
  for (uint32_t i = between(random, 1, 2); i > 0; --i)
    first.user_max.push_back(maybe_limit(random, 8));
  for (size_t database = 0; database < first.node_of.size(); ++database)
    for (size_t user = 0; user < first.user_max.size(); ++user) {
      pools.push_back({database, user});
      first.limits.push_back(draw_limits(random));
    }

  clients_count = between(random, 2, 24);
  first.clients_max = draw_clients_max(random);
  units_max = between(random, 1, 12);
  buffers_count = one_of(random, {3U, 6U, 16U});
  is_lopsided = random.percent(25);
  // Where all stay, cores share small pools, too.
  places_sessions = seed % 4 != 0;
  turn_max = microseconds(one_of(random, {20, 100, 400}));
  stall_max = random.percent(30) ? milliseconds(one_of(random, {2, 15})) : 0;
  mail_max = microseconds(one_of(random, {1, 50, 300, 3'000}));
  login_max = microseconds(one_of(random, {100, 2'000, 40'000}));
  work_max = microseconds(one_of(random, {20, 500, 10'000}));
  close_max = microseconds(one_of(random, {10, 1'000, 30'000, 800'000}));
  piece_max = microseconds(one_of(random, {0, 200, 2'000}));
  think_max = microseconds(one_of(random, {0, 500, 20'000, 500'000}));

  draw_more();

  has_faults = random.percent(60);
  fault_every = milliseconds(one_of(random, {3, 30, 300}));
  drains_early = random.percent(15);
  is_forgotten = !drains_early && random.percent(15);

  // Else their last backends would stay for ever.
  for (PoolLimits& limits : first.limits)
    if (is_forgotten) limits.idle_timeout = milliseconds(one_of(random, {5, 50, 1'000}));
  draw_changes();

  network.seed = random.next();
  network.short_send_percent = one_of(random, {0U, 20U, 60U});
  network.short_recv_percent = one_of(random, {0U, 20U, 60U});
  network.multishot_end_percent = one_of(random, {0U, 5U, 50U});
  network.socket_buffer_size = one_of<size_t>(random, {700, 4'096, 16'384});
  if (!has_faults) return;
  network.connect_refused_percent = one_of(random, {0U, 5U, 50U});
  network.reset_per_mille = one_of(random, {0U, 0U, 1U, 5U});
  SimRandom of_interrupts(seed ^ 0x65696e7472);
  network.interrupt_per_mille = one_of(of_interrupts, {0U, 5U, 200U});
}

uint32_t Settings::draw_clients_max(SimRandom& random) const {
  return random.percent(15) ? between(random, 1, clients_count) : 1'000;
}

// From numbers of their own: what is added here changes nothing else of a seed.
void Settings::draw_more() {
  SimRandom random(seed ^ 0x6d6f7265);
  for (size_t i = 0; i < first.node_max.size(); ++i) node_asks_scram.push_back(random.percent(25));
  for (PoolLimits& limits : first.limits) {
    draw_more_limits(random, limits);
    limits.max_prepared_statements = static_cast<uint32_t>(one_of(random, {200, 200, 2, 1, 0}));
  }
  for (size_t i = 0; i < first.database_max.size(); ++i)
    first.database_clients_max.push_back(rare_limit(random, clients_count));
  for (size_t i = 0; i < first.user_max.size(); ++i)
    first.user_clients_max.push_back(rare_limit(random, clients_count));
  SimRandom of_state(seed ^ 0x7374617465);
  for (PoolLimits& limits : first.limits)
    if (of_state.percent(50))
      limits.session_state =
          one_of(of_state, {StatePolicy::follow, StatePolicy::follow, StatePolicy::strict,
                            StatePolicy::pin, StatePolicy::refuse});
}

// In a third of the seeds; from numbers of their own, too.
void Settings::draw_changes() {
  first.has_database.assign(first.node_of.size(), true);
  first.has_user.assign(first.user_max.size(), true);
  SimRandom random(seed ^ 0x72656c6f6164);
  if (random.percent(67)) return;
  // Where a node may move to.
  first.node_max.push_back(random.percent(50) ? 0 : between(random, 1, 12));
  node_asks_scram.push_back(random.percent(25));
  Configuration next = first;
  for (uint32_t i = between(random, 1, 5); i > 0; --i) {
    // What was removed comes back, for the most part.
    for (auto* list : {&next.has_database, &next.has_user})
      for (size_t j = 0; j < list->size(); ++j)
        if (!(*list)[j]) (*list)[j] = random.percent(70);
    for (uint32_t j = between(random, 1, 3); j > 0; --j) change_something(random, next);
    Change change;
    change.pause = random.up_to(milliseconds(one_of(random, {2, 30, 300})));
    change.spread = microseconds(one_of(random, {0, 500, 10'000, 100'000}));
    change.next = next;
    changes.push_back(std::move(change));
  }
}

void Settings::change_something(SimRandom& random, Configuration& next) const {
  const size_t database = random.below(next.node_of.size());
  const size_t user = random.below(next.user_max.size());
  const size_t node = random.below(next.node_max.size());
  switch (random.below(16)) {
    case 0:
      next.node_max[node] = random.percent(30) ? 0 : between(random, 1, 12);
      return;
    case 1:
      next.database_max[database] = maybe_limit(random, 8);
      return;
    case 2:
      next.user_max[user] = maybe_limit(random, 8);
      return;
    case 3:
      next.has_database[database] = false;
      return;
    case 4:
      next.has_user[user] = false;
      return;
    case 5:
      next.node_of[database] = node;
      return;
    case 6: {
      // A node has another address: that is another node, for all that were there.
      const size_t old = next.node_of[database];
      std::replace(next.node_of.begin(), next.node_of.end(), old, node);
      return;
    }
    case 7:
      next.clients_max = draw_clients_max(random);
      return;
    case 8:
      next.database_clients_max[database] = rare_limit(random, clients_count);
      return;
    case 9:
      next.user_clients_max[user] = rare_limit(random, clients_count);
      return;
    default:
      change_pool(random, next.limits[random.below(pools.size())]);
  }
}

// Its size, or some of its keys.
void Settings::change_pool(SimRandom& random, PoolLimits& limits) const {
  PoolLimits other = draw_limits(random);
  draw_more_limits(random, other);
  if (is_forgotten) other.idle_timeout = milliseconds(one_of(random, {5, 50, 1'000}));
  if (random.percent(50)) {
    limits.max_connections = other.max_connections;
    limits.min_connections = other.min_connections;
    return;
  }
  const auto maybe_take = [&](auto key) {
    if (random.percent(25)) limits.*key = other.*key;
  };
  maybe_take(&PoolLimits::mode);
  for (const auto key :
       {&PoolLimits::idle_timeout, &PoolLimits::max_lifetime, &PoolLimits::acquire_timeout,
        &PoolLimits::connect_timeout, &PoolLimits::test_after, &PoolLimits::reserve_after,
        &PoolLimits::wait_notice})
    maybe_take(key);
  for (const auto key :
       {&PoolLimits::weight, &PoolLimits::max_waiters, &PoolLimits::reserve_connections})
    maybe_take(key);
  maybe_take(&PoolLimits::connect_query);
}

std::string Settings::describe() const {
  const auto number = [](uint64_t value) { return std::to_string(value); };
  std::string text = "seed " + number(seed) + ": " + number(cores) + " cores, " +
                     number(clients_count) + " clients" + (is_lopsided ? " on one of them" : "") +
                     (places_sessions ? ", placed" : "") + ", up to " + number(units_max) +
                     " units each, " + number(buffers_count) + " buffers";
  text += "\n  turn " + in_ms(turn_max) + ", stall " + in_ms(stall_max) + ", mail " +
          in_ms(mail_max) + ", think " + in_ms(think_max);
  text += "\n  login " + in_ms(login_max) + ", work " + in_ms(work_max) + ", close " +
          in_ms(close_max) + ", between pieces " + in_ms(piece_max);
  text += "\n  network: short sends " + number(network.short_send_percent) + " %, short receives " +
          number(network.short_recv_percent) + " %, multishot ends " +
          number(network.multishot_end_percent) + " %, refused " +
          number(network.connect_refused_percent) + " %, resets " +
          number(network.reset_per_mille) + " per mille, interrupts " +
          number(network.interrupt_per_mille) + " per mille, " +
          number(network.socket_buffer_size) + " bytes under way";
  text += has_faults ? "\n  a fault every " + in_ms(fault_every) : "\n  no faults";
  if (drains_early) text += ", drains early";
  if (is_forgotten) text += ", pools are forgotten";
  for (size_t i = 0; i < node_asks_scram.size(); ++i)
    if (node_asks_scram[i]) text += "\n  node " + number(i) + " asks for SCRAM";
  text += describe(first);
  for (const Change& change : changes)
    text += "\n then, " + in_ms(change.pause) + " later, within " + in_ms(change.spread) + ":" +
            describe(change.next);
  return text;
}

std::string Settings::describe(const Configuration& one) const {
  const auto number = [](uint64_t value) { return std::to_string(value); };
  std::string text = "\n  clients: at most " + number(one.clients_max);
  for (size_t i = 0; i < one.node_max.size(); ++i)
    text += "\n  node " + number(i) + ": at most " + number(one.node_max[i]);
  for (size_t i = 0; i < one.user_max.size(); ++i)
    text += "\n  user u" + number(i) +
            (one.has_user[i] ? ": at most " + number(one.user_max[i]) + ", clients " +
                                   number(one.user_clients_max[i])
                             : " is not there");
  for (size_t i = 0; i < pools.size(); ++i) {
    const PoolSettings& pool = pools[i];
    if (!one.has(pool)) continue;
    const PoolLimits& limits = one.limits[i];
    text += "\n  pool d" + number(pool.database) + "/u" + number(pool.user) + " on node " +
            number(one.node_of[pool.database]) + ": " + to_text(limits.mode) + ", " +
            number(limits.min_connections) + " to " + number(limits.max_connections) +
            " (database at most " + number(one.database_max[pool.database]) + ", clients " +
            number(one.database_clients_max[pool.database]) + "), idle " +
            in_ms(limits.idle_timeout) + ", life " + in_ms(limits.max_lifetime) + ", acquire " +
            in_ms(limits.acquire_timeout) + ", connect " + in_ms(limits.connect_timeout) +
            ", test after " + in_ms(limits.test_after) + ", weight " + number(limits.weight);
    if (limits.max_waiters > 0) text += ", waiters " + number(limits.max_waiters);
    if (limits.reserve_connections > 0)
      text += ", reserve " + number(limits.reserve_connections) + " after " +
              in_ms(limits.reserve_after);
    if (limits.wait_notice > 0) text += ", notice " + in_ms(limits.wait_notice);
    if (!limits.connect_query.empty()) text += ", connect_query " + limits.connect_query;
    text += ", statements " + number(limits.max_prepared_statements) + ", state " +
            to_text(limits.session_state);
  }
  return text;
}

}  // namespace helios::sim
