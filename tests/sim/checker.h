// What must hold in every moment of a simulation. Asked after each turn of a core, and after each
// act of a node.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "helios/pool/shared_limit.h"
#include "tests/sim/node.h"
#include "tests/sim/settings.h"
#include "tests/support/session_bench.h"

namespace helios::sim {

// What the pools share besides their nodes' limits.
struct SharedLimits {
  std::vector<std::shared_ptr<SharedLimit>> databases;  // Null: none.
  std::vector<std::shared_ptr<SharedLimit>> users;
};

class Checker {
 public:
  using Fail = std::function<void(std::string)>;
  Checker(test::SessionBench& bench, const Settings& settings, const SharedLimits& shared,
          std::vector<std::unique_ptr<SimNode>>& nodes, Fail fail);

  void after_turn(CoreId id);
  // No limit is exceeded as the node sees it, which counts a connection until it has let go itself.
  void after_node(size_t number);
  // connect_query is the first that a server session gets, and comes again behind DISCARD ALL.
  void on_server_message(const test::ServerSession& session, const test::WireMessage& message);
  // Turns after which a pool held connections of its reserve, and answers to connect_query.
  [[nodiscard]] uint64_t reserve_uses_count() const { return reserve_uses_count_; }
  [[nodiscard]] uint64_t connect_queries_count() const { return connect_queries_count_; }
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

 private:
  // Somebody in a queue.
  struct Waiting {
    SlabId session;
    size_t pool = 0;
    Nanoseconds since = 0;
    // Since when no backend or permit is on its way for it.
    Nanoseconds uncovered_since = never;
  };
  // A session that has got a backend in this turn.
  struct Served {
    size_t pool = 0;
    Nanoseconds since = 0;
  };
  // A core's part of a pool, as it was when its last turn had ended.
  struct Part {
    uint32_t free = 0;
    uint32_t connecting = 0;
    uint32_t backends = 0;
    uint32_t idle = 0;
    std::vector<uint32_t> moving_to;                  // By core.
    uint64_t waited = 0, refused = 0, cancelled = 0;  // As its slice has counted.
    bool is_there = false;
    bool has_all = false;     // Every permit of the pool.
    bool has_failed = false;  // Its last connect.
  };
  struct CoreFacts {
    std::vector<Part> parts;      // By pool.
    std::vector<Part> old_parts;  // As they were one turn before.
    // By pool: when this core had all permits the last time, so that nobody else could be served.
    std::vector<Nanoseconds> had_all_at;
    std::vector<Waiting> waiting;
    std::vector<SlabId> leased;
  };

  void look_at_pools(CoreId id);
  void look_at_backends(CoreId id);
  [[nodiscard]] std::vector<Served> look_at_sessions(CoreId id);
  void look_at_mail();
  void note_covered();
  void check_queue(CoreId id, const std::vector<Served>& served,
                   const std::vector<Waiting>& before);
  void check_fairness(CoreId id, const std::vector<Served>& served);
  void check_room();
  [[nodiscard]] bool has_room(size_t pool) const;
  void check_age(Backend& backend, const PoolLimits& limits);
  void check_waiters(CoreId id, const std::vector<Waiting>& before);
  void check_permits();
  void check_limits();
  [[nodiscard]] uint32_t dealt(CoreId core, size_t pool) const;
  [[nodiscard]] size_t pool_of_key(const std::string& key) const;
  [[nodiscard]] uint32_t held_count(size_t pool) const;

  test::SessionBench& bench_;
  const Settings& settings_;
  const SharedLimits& shared_;
  std::vector<std::unique_ptr<SimNode>>& nodes_;
  Fail fail_;
  std::vector<std::string> keys_;  // Of the pools.
  std::vector<CoreFacts> cores_;
  std::vector<uint32_t> posted_backends_, posted_permits_;  // By pool.
  uint32_t posted_sessions_ = 0;
  std::vector<std::vector<uint32_t>> coming_by_mail_;      // By core and pool.
  std::vector<uint64_t> logins_seen_;                      // By node.
  std::vector<Nanoseconds> room_since_;                    // By pool; `never` while there is none.
  std::vector<std::shared_ptr<PoolShared>> pools_shared_;  // By pool.
  // Server sessions whose connect_query has come.
  std::set<const test::ServerSession*> prepared_;
  uint64_t reserve_uses_count_ = 0;
  uint64_t connect_queries_count_ = 0;
  Nanoseconds excess_max_ = 0;
};

}  // namespace helios::sim
