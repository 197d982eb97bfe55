// What a seed decides before anything moves: cores, pools and their limits, how slow and how
// unreliable everything is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "helios/pool/pool_spec.h"
#include "helios/runtime/mailbox.h"
#include "tests/support/fake_io.h"

namespace helios::sim {

struct PoolSettings {
  size_t database = 0;
  size_t user = 0;
};

// What a reload may change.
struct Configuration {
  uint32_t clients_max = 0;                                      // max_clients of the pooler.
  std::vector<uint32_t> node_max;                                // Of each node; 0: no limit.
  std::vector<size_t> node_of;                                   // By database.
  std::vector<uint32_t> database_max, user_max;                  // 0: no limit.
  std::vector<uint32_t> database_clients_max, user_clients_max;  // 0: no limit.
  std::vector<PoolLimits> limits;                                // By pool.
  std::vector<bool> has_database, has_user;

  [[nodiscard]] bool has(const PoolSettings& pool) const {
    return has_database[pool.database] && has_user[pool.user];
  }
};

// A new configuration.
struct Change {
  Nanoseconds pause = 0;   // It comes so long after the one before.
  Nanoseconds spread = 0;  // The cores take it over within this time, in any order.
  Configuration next;
};

struct Settings {
  explicit Settings(uint64_t seed);
  [[nodiscard]] std::string describe() const;

  // The longest time from the moment when a message is sent, or something happens to a socket,
  // until the core that it concerns has dealt with it.
  [[nodiscard]] Nanoseconds hop_max() const { return mail_max + turn_max + stall_max; }

  // That of an epoch: the first one has 0.
  [[nodiscard]] const Configuration& configuration(uint64_t epoch) const {
    return epoch == 0 ? first : changes[epoch - 1].next;
  }

  uint64_t seed;
  CoreId cores;
  Configuration first;
  std::vector<Change> changes;        // Empty: the first one stays.
  std::vector<bool> node_asks_scram;  // Otherwise it trusts.
  std::vector<PoolSettings> pools;    // One for each database and user.
  uint32_t clients_count;
  uint32_t units_max;  // Units of work of a client.
  uint32_t buffers_count;
  SimOptions network;

  Nanoseconds turn_max;   // From one turn of a core to the next.
  Nanoseconds stall_max;  // What a turn may come late, now and then. 0: never.
  Nanoseconds mail_max;
  Nanoseconds login_max, work_max, close_max, piece_max;  // Of a node's sessions.
  Nanoseconds think_max;                                  // Of clients between units.

  bool has_faults;          // Otherwise only clients misbehave.
  bool is_lopsided;         // All clients come in on one core.
  bool places_sessions;     // Clients of small pools go to a home core.
  Nanoseconds fault_every;  // Mean time between two faults of a node.
  bool drains_early;        // In the middle of the work.
  bool is_forgotten;        // When all have left, nothing happens until every pool is forgotten.

 private:
  [[nodiscard]] std::string describe(const Configuration& one) const;
  void draw_more();
  [[nodiscard]] uint32_t draw_clients_max(SimRandom& random) const;
  void draw_changes();
  void change_something(SimRandom& random, Configuration& next) const;
  void change_pool(SimRandom& random, PoolLimits& limits) const;
};

}  // namespace helios::sim
