// What defines a pool: who logs in where, and under which limits. The same on every core.
//
// Immutable after it was made and counted by references, because messages between cores carry it.
// Each core may hold an object of its own for one pool; they have the same `shared`. When the
// configuration changes the terms of a pool, the pool ends and another one with the same key
// begins: its next generation, with a `shared` and permits of its own. So whatever a message
// carries counts in the generation that it was sent for, and in no other.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "helios/base/clock.h"
#include "helios/pool/backend_login.h"
#include "helios/pool/connect_gate.h"
#include "helios/pool/limit.h"
#include "helios/pool/node.h"
#include "helios/pool/parameters.h"
#include "helios/pool/shared_limit.h"

namespace helios {

// When a backend goes back to its pool.
enum class LeaseMode : uint8_t { session, transaction, statement };

// How long a client of the pool may go on in one way; 0: without limit (session_timeouts.cc).
struct TimeLimits {
  Nanoseconds query = 0;             // A query, until all of its answer is there.
  Nanoseconds idle_transaction = 0;  // A transaction in which nothing runs.
  Nanoseconds transaction = 0;
  Nanoseconds client_idle = 0;  // Nothing runs, and no transaction is open.
  // idle_transaction holds only while somebody waits for a backend of the pool.
  bool idle_transaction_if_waited_for = false;

  [[nodiscard]] bool is_any_set() const noexcept {
    return query > 0 || idle_transaction > 0 || transaction > 0 || client_idle > 0;
  }
  friend bool operator==(const TimeLimits&, const TimeLimits&) = default;
};

// What becomes of what a client leaves in the session of a backend that it gives back.
enum class StatePolicy : uint8_t {
  follow,  // Parameters follow the client, the rest keeps the backend with it; what cannot be seen
           // is cleaned away.
  strict,  // The same, and every backend is cleaned before it goes on.
  pin,     // As follow, but parameters keep the backend, too.
  warn,    // It stays where it is; the log tells.
  refuse,  // As follow, but who would have to keep a backend gets an error instead.
};

struct PoolLimits {
  LeaseMode mode = LeaseMode::transaction;
  uint32_t min_connections = 0;
  uint32_t max_connections = 10;
  Nanoseconds idle_timeout = seconds(300);    // 0: off.
  Nanoseconds max_lifetime = seconds(1800);   // 0: off.
  Nanoseconds acquire_timeout = seconds(30);  // 0: off.
  Nanoseconds connect_timeout = seconds(15);
  Nanoseconds test_after = seconds(30);  // 0: before each use; `never`: no test.
  std::string connect_query;  // SQL for each new backend, before anybody gets it. Empty: none.
  uint32_t weight = 1;        // Its part of limits that pools share (shared_limit.h).
  uint32_t max_waiters = 0;   // Over all cores; 0: no limit.
  // Connections beyond max_connections, over all cores, while the oldest waiter has waited for
  // longer than reserve_after (slice.h).
  uint32_t reserve_connections = 0;
  Nanoseconds reserve_after = seconds(5);
  Nanoseconds wait_notice = 0;  // A client that waits for so long is told; 0: never.
  TimeLimits time_limits;
  // A backend serves the one client that it was made for and ends with it: it is never idle, moved,
  // tested or replaced.
  bool is_single_use = false;
  StatePolicy session_state = StatePolicy::follow;  // Of pools in other modes than session.
  // Functions that are not PostgreSQL's own and leave the session as it is: "name", "schema.name",
  // with "*" at the end for any end of the name.
  std::vector<std::string> harmless_functions;
  // Named prepared statements follow their clients from backend to backend: so many on each. 0: a
  // client keeps its backend instead.
  uint32_t max_prepared_statements = 200;
  uint64_t max_prepared_statement_size = 1024 * 1024;      // Larger ones do not follow.
  uint64_t max_client_statements_size = 16 * 1024 * 1024;  // Of one client, all together.
  // Bytes of answers that a client has not taken when it gets another notification.
  uint64_t max_client_notifications_size = 1024 * 1024;

  // What the session of a backend has set is known.
  [[nodiscard]] bool follows_state() const noexcept {
    return mode != LeaseMode::session && session_state != StatePolicy::warn;
  }
  // Server connections at the most, over all cores.
  [[nodiscard]] uint32_t connections_max() const noexcept {
    return max_connections + reserve_connections;
  }
  friend bool operator==(const PoolLimits&, const PoolLimits&) = default;
};

// Everything that the configuration says of a pool. A pool whose terms change is another one.
struct PoolTerms {
  Node* node = nullptr;
  // Totals besides the node's; null where there is none.
  std::shared_ptr<SharedLimit> database_limit;
  std::shared_ptr<SharedLimit> user_limit;
  // Clients that are logged in, in the same way.
  std::shared_ptr<Limit> database_clients;
  std::shared_ptr<Limit> user_clients;
  BackendLoginOptions login;
  PoolLimits limits;
  // The key of the pool in whose number of connections (PoolShared) those of this one count; empty:
  // its own.
  std::string counts_with;

  // A server connection that was made under these terms serves under the others as well, and counts
  // in the same totals.
  [[nodiscard]] bool shares_connections_with(const PoolTerms& other) const noexcept {
    return node == other.node && login == other.login && database_limit == other.database_limit &&
           user_limit == other.user_limit && limits.connect_query == other.limits.connect_query &&
           limits.follows_state() == other.limits.follows_state();
  }
  friend bool operator==(const PoolTerms&, const PoolTerms&) = default;
};

// The server connections of all generations of a pool. Any thread.
struct PoolConnections {
  explicit PoolConnections(std::shared_ptr<SharedLimit> shared_limit)
      : limit(std::move(shared_limit)) {}
  // From the connect until the server has let go. The permits of one generation bound its own; this
  // bounds old and new together, and those of pools that count with each other, which have one.
  const std::shared_ptr<SharedLimit> limit;
  // Those that serve, or are being made: whoever waits may still get one. Without those whose end
  // has begun.
  std::atomic<uint32_t> alive_count{0};
};

// What all cores share of one pool (pool_registry.h). Any thread; nothing here is touched on the
// path of a query that finds an idle backend.
struct PoolShared {
  // Without the registry, for pools that never change: nothing bounds `connections` but the
  // permits.
  explicit PoolShared(const PoolLimits& limits)
      : PoolShared(limits, 0, std::make_shared<PoolConnections>(std::make_shared<SharedLimit>(0))) {
  }
  PoolShared(const PoolLimits& limits, uint64_t pool_generation,
             std::shared_ptr<PoolConnections> pool_connections)
      : generation(pool_generation),
        waiters(limits.max_waiters),
        reserve(limits.reserve_connections),
        connections(std::move(pool_connections)) {}
  // Tells the pools of one key apart: a later one has a higher number.
  const uint64_t generation;
  // Who waits for a backend. Counted only where max_waiters is set.
  Limit waiters;
  // Permits taken from the reserve. Asked only where reserve_connections is set.
  Limit reserve;
  const std::shared_ptr<PoolConnections> connections;
};

// The key of the pool of a database and user whose server sessions start with these settings, in
// any order: no two pools have one key.
[[nodiscard]] std::string pool_key(std::string_view database, std::string_view user,
                                   ParameterList settings);

// The start-up parameter of replication connections: "true" (physical) or "database" (logical). It
// stands among the settings of their pools.
constexpr std::string_view replication_parameter = "replication";
// The name that a physical replication connection asks for: it belongs to no database, and
// PostgreSQL's own programs send this.
constexpr std::string_view physical_replication_database = "replication";

struct PoolSpec : PoolTerms {
  std::string key;       // pool_key().
  std::string database;  // As the client names it.
  std::string user;      // As the client names it.
  // Of the configuration that it was made from: a later one has a higher number.
  uint64_t epoch = 0;
  // The pool of a hub (notification_hub.h): no configuration has it, and none ends it.
  bool is_of_hub = false;
  // One for all specs of this pool (pool_registry.h); until it is set a spec has one of its own.
  std::shared_ptr<PoolShared> shared = std::make_shared<PoolShared>(PoolLimits());

  PoolSpec() = default;
  PoolSpec(const PoolSpec&) = delete;
  PoolSpec& operator=(const PoolSpec&) = delete;

 private:
  friend class PoolSpecRef;
  // Relaxed to add, acquire-release to drop: the last one deletes what the others have finished
  // reading.
  mutable std::atomic<uint32_t> references_{0};
};

class PoolSpecRef {
 public:
  PoolSpecRef() = default;
  explicit PoolSpecRef(const PoolSpec* spec) noexcept : spec_(spec) {
    if (spec_ != nullptr) spec_->references_.fetch_add(1, std::memory_order_relaxed);
  }
  PoolSpecRef(const PoolSpecRef& other) noexcept : PoolSpecRef(other.spec_) {}
  PoolSpecRef(PoolSpecRef&& other) noexcept : spec_(std::exchange(other.spec_, nullptr)) {}
  PoolSpecRef& operator=(PoolSpecRef other) noexcept {
    std::swap(spec_, other.spec_);
    return *this;
  }
  ~PoolSpecRef() {
    if (spec_ != nullptr && spec_->references_.fetch_sub(1, std::memory_order_acq_rel) == 1)
      delete spec_;
  }

  [[nodiscard]] bool is_null() const noexcept { return spec_ == nullptr; }
  [[nodiscard]] const PoolSpec* operator->() const noexcept { return spec_; }
  [[nodiscard]] const PoolSpec& operator*() const noexcept { return *spec_; }

  // A reference as a word of a message, and back. Each word made must be taken exactly once.
  [[nodiscard]] uint64_t to_word() const noexcept {
    spec_->references_.fetch_add(1, std::memory_order_relaxed);
    return reinterpret_cast<uint64_t>(spec_);
  }
  [[nodiscard]] static PoolSpecRef take_word(uint64_t word) noexcept {
    PoolSpecRef ref;
    ref.spec_ = reinterpret_cast<const PoolSpec*>(word);
    return ref;
  }

 private:
  const PoolSpec* spec_ = nullptr;
};

// The pool of the connections of a hub that serves `pool`: one on each core, and another one while
// that ends, each for one lease.
// `generation`: of nobody else.
[[nodiscard]] PoolSpecRef make_hub_spec(const PoolSpec& pool, uint32_t cores_count,
                                        uint64_t generation);

// With the replication parameter among its start-up parameters: a pool whose backends serve one
// client each, and count with those of the same database and user that have no start-up parameters.
// Requires: everything but `shared` is set.
void apply_replication(PoolSpec& spec);

}  // namespace helios
