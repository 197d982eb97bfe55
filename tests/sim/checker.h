// What must hold in every moment of a simulation. Asked after each turn of a core, and after each
// act of a node.
//
// Pools are looked at by generation, as far as permits, waiters and their order go: what changes
// over from one to the next changes its place. The order is therefore not stated across a reload:
// who waits in a generation that a core has not left yet is served by what that generation has
// there, and those of the next one by what it has. It holds again from when a waiter has come over.
// Limits hold over all generations: above one that has become smaller there may be what was there
// before, and nothing new.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "helios/pool/shared_limit.h"
#include "tests/sim/node.h"
#include "tests/sim/settings.h"
#include "tests/support/session_bench.h"

namespace helios::sim {

// What the pools share besides their nodes' limits. For every configuration.
struct SharedLimits {
  std::vector<std::shared_ptr<SharedLimit>> databases;
  std::vector<std::shared_ptr<SharedLimit>> users;
  // On clients.
  std::vector<std::shared_ptr<Limit>> database_clients;
  std::vector<std::shared_ptr<Limit>> user_clients;
};

class Checker {
 public:
  using Fail = std::function<void(std::string)>;
  Checker(test::SessionBench& bench, const Settings& settings, const SharedLimits& shared,
          std::vector<std::unique_ptr<SimNode>>& nodes, Fail fail);

  void after_turn(CoreId id);
  // There is a new configuration, with its limits on what pools share. The cores do not know yet.
  void on_change();
  // In the turn that ends next this core has taken over the configuration of this epoch.
  void on_reload(CoreId id, uint64_t epoch);
  // No limit is exceeded as the node sees it, which counts a connection until it has let go itself.
  void after_node(size_t number);
  // connect_query is the first that a server session gets, and comes again behind DISCARD ALL.
  void on_server_message(size_t node, const test::ServerSession& session,
                         const test::WireMessage& message);
  // Turns after which a pool held connections of its reserve, and answers to connect_query.
  [[nodiscard]] uint64_t reserve_uses_count() const { return reserve_uses_count_; }
  [[nodiscard]] uint64_t connect_queries_count() const { return connect_queries_count_; }
  // Generations of pools that were seen, less the first one of each pool.
  [[nodiscard]] uint64_t next_generations_count() const {
    return generations_.size() - keys_.size() - hubs_count();
  }
  // Hubs that were seen.
  [[nodiscard]] uint64_t hubs_count() const;
  // Changes of limits, and those to less than was there.
  [[nodiscard]] uint64_t resizes_count() const { return resizes_count_; }
  [[nodiscard]] uint64_t shrinks_count() const { return shrinks_count_; }
  // Of every slice, for the message of a failure.
  [[nodiscard]] std::string describe();

  // By how much more than Slice::fairness_bound somebody was overtaken at most, in hops.
  [[nodiscard]] double excess_hops() const;
  // Nobody waits, and every backend is idle.
  [[nodiscard]] bool is_at_rest() const;
  // No pool holds connections or permits of its reserve.
  [[nodiscard]] bool is_reserve_whole() const;
  // No core has a pool.
  [[nodiscard]] bool is_forgotten() const;
  // Every core has taken over the newest configuration.
  [[nodiscard]] bool is_changed_over() const;
  // In the end: nothing is counted that pools of any generation share.
  void check_nothing_is_left();

 private:
  // A pool under one configuration. Those of the first come first, in the order of the pools.
  struct Generation {
    size_t pool = 0;
    PoolSpecRef spec;  // As a core has it. Kept, and so is what the cores share of the pool.
    // The connections of a hub, which listens for the clients of the pool.
    [[nodiscard]] bool is_hub() const { return spec->is_of_hub; }
    [[nodiscard]] const PoolLimits& limits() const { return spec->limits; }
    [[nodiscard]] PoolShared& shared() const { return *spec->shared; }
  };
  // What may be there of something limited: the limit, and what was beyond it already when it
  // became smaller, until that is gone.
  struct Ceiling {
    uint32_t allowed = UINT32_MAX;
    std::optional<uint32_t> last_max;  // The limit, as it was the last time.
    // With this limit, when so many are there.
    [[nodiscard]] uint32_t lowered(uint32_t max, uint32_t held) const;
  };
  // Somebody in a queue.
  struct Waiting {
    SlabId session;
    size_t generation = 0;
    Nanoseconds since = 0;
    // Since when no backend or permit is on its way for it.
    Nanoseconds uncovered_since = never;
    bool was_let_down = false;  // Once is all.
  };
  // A session that has got a backend in this turn.
  struct Served {
    size_t generation = 0;
    Nanoseconds since = 0;
    // In a turn with a reload, or several: in which generation it was served, nobody knows.
    bool has_changed_over = false;
  };
  // A core's part of a pool, as it was when its last turn had ended.
  struct Part {
    uint32_t free = 0;
    uint32_t connecting = 0;
    uint32_t testing = 0;  // As one that was borrowed may be, before a waiter gets it.
    uint32_t backends = 0;
    uint32_t idle = 0;
    std::vector<uint32_t> moving_to;  // By core.
    // As its slice has counted.
    uint64_t waited = 0, refused = 0, cancelled = 0, connects = 0, connect_failures = 0;
    bool is_there = false;
    bool is_superseded = false;
    bool has_all = false;     // Every permit of the pool.
    bool has_failed = false;  // Its last connect.
  };
  struct CoreFacts {
    std::vector<Part> parts;      // By generation.
    std::vector<Part> old_parts;  // As they were one turn before.
    // By generation: when this core had all permits the last time, so that nobody else could be
    // served.
    std::vector<Nanoseconds> had_all_at;
    std::vector<Waiting> waiting;
    std::vector<SlabId> leased;
    std::vector<uint32_t> clients;  // That are logged in, by pool.
    uint64_t epoch = 0;             // Of its configuration.
    Nanoseconds reloaded_at = 0;    // The last time.
    bool has_reloaded = false;      // In the turn that has just ended.
  };

  [[nodiscard]] size_t generation_of(const PoolSpec& spec) const;
  void add_generation(const PoolSpecRef& spec);
  [[nodiscard]] std::string name_of(size_t generation) const;
  void on_limits_changed();
  void note_size(Ceiling& ceiling, uint32_t max, uint32_t held);
  void look_at_pools(CoreId id);
  void look_at_pool(CoreId id, PoolEntry& entry);
  void check_generations(CoreId id);
  void look_at_backends(CoreId id);
  [[nodiscard]] std::vector<Served> look_at_sessions(CoreId id);
  void look_at_mail();
  void note_let_down(CoreId id);
  void note_covered();
  void check_queue(CoreId id, const std::vector<Served>& served,
                   const std::vector<Waiting>& before);
  void check_fairness(CoreId id, const std::vector<Served>& served);
  void check_room();
  [[nodiscard]] bool has_room(size_t generation) const;
  void check_age(Backend& backend, size_t generation);
  void check_waiters(CoreId id, const std::vector<Waiting>& before);
  void check_permits();
  void check_limits(CoreId id);
  void check_clients();
  template <typename Visit>
  void for_each_client_limit(Visit visit);
  [[nodiscard]] const PoolSpec* find_spec(size_t node, uint32_t process_id);
  template <typename Visit>
  void for_each_limit(Visit visit);
  template <typename Applies>
  [[nodiscard]] uint32_t held_by(Applies applies) const;
  [[nodiscard]] uint32_t dealt(CoreId core, size_t generation) const;
  [[nodiscard]] size_t pool_of_key(const std::string& key) const;
  [[nodiscard]] uint32_t held_count(size_t generation) const;

  test::SessionBench& bench_;
  const Settings& settings_;
  const SharedLimits& shared_;
  std::vector<std::unique_ptr<SimNode>>& nodes_;
  Fail fail_;
  std::vector<std::string> keys_;  // Of the pools.
  std::vector<Generation> generations_;
  std::vector<CoreFacts> cores_;
  uint64_t epoch_ = 0;                                      // Of the newest configuration.
  std::vector<uint32_t> posted_backends_, posted_permits_;  // By generation.
  uint32_t posted_sessions_ = 0;
  std::vector<std::vector<uint32_t>> coming_by_mail_;  // By core and generation.
  std::vector<uint64_t> logins_seen_;                  // By node.
  std::vector<Nanoseconds> room_since_;  // By generation; `never` while there is none.
  std::vector<Ceiling> of_nodes_, of_databases_, of_users_, of_pools_;
  std::vector<Ceiling> of_database_clients_, of_user_clients_;
  Ceiling of_clients_;
  // What server sessions are to begin with, and whether they have. By node and process.
  struct Beginning {
    std::string text;  // Empty: with nothing.
    bool has_come = false;
  };
  std::map<std::pair<size_t, uint32_t>, Beginning> beginnings_;
  uint64_t reserve_uses_count_ = 0;
  uint64_t connect_queries_count_ = 0;
  uint64_t resizes_count_ = 0;
  uint64_t shrinks_count_ = 0;
  Nanoseconds excess_max_ = 0;
};

}  // namespace helios::sim
