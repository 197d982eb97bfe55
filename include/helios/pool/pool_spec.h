// What defines a pool: who logs in where, and under which limits. The same on every core.
//
// Immutable after it was made and counted by references, because messages between cores carry it.
// Equal keys mean the same pool; two cores may hold different objects for it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "helios/base/clock.h"
#include "helios/net/resolver.h"
#include "helios/pool/backend_login.h"
#include "helios/pool/connect_gate.h"
#include "helios/pool/limit.h"
#include "helios/pool/parameters.h"

namespace helios {

// When a backend goes back to its pool.
enum class LeaseMode : uint8_t { session, transaction, statement };

// A PostgreSQL server, as all cores share it. Lives as long as the process.
struct Node {
  Node(std::string node_name, std::string node_label, Resolver& node_resolver,
       size_t node_resolver_id, uint32_t connections_max, uint32_t connecting_max,
       CoreId cores_count)
      : name(std::move(node_name)),
        label(std::move(node_label)),
        resolver(node_resolver),
        resolver_id(node_resolver_id),
        limit(connections_max),
        gate(connecting_max, cores_count) {}
  std::string name;
  std::string label;  // host:port, for messages.
  Resolver& resolver;
  size_t resolver_id;
  Limit limit;
  ConnectGate gate;
};

struct PoolLimits {
  LeaseMode mode = LeaseMode::transaction;
  uint32_t min_connections = 0;
  uint32_t max_connections = 10;
  Nanoseconds idle_timeout = seconds(300);    // 0: off.
  Nanoseconds max_lifetime = seconds(1800);   // 0: off.
  Nanoseconds acquire_timeout = seconds(30);  // 0: off.
  Nanoseconds connect_timeout = seconds(15);
  Nanoseconds test_after = seconds(30);  // 0: never test.
  std::string connect_query;  // SQL for each new backend, before anybody gets it. Empty: none.
};

// The key of the pool of a database and user whose server sessions start with these settings, in
// any order: no two pools have one key.
[[nodiscard]] std::string pool_key(std::string_view database, std::string_view user,
                                   ParameterList settings);

struct PoolSpec {
  std::string key;       // pool_key().
  std::string database;  // As the client names it.
  std::string user;      // As the client names it.
  Node* node = nullptr;
  // Totals besides the node's; null where there is none.
  std::shared_ptr<Limit> database_limit;
  std::shared_ptr<Limit> user_limit;
  BackendLoginOptions login;
  PoolLimits limits;

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

}  // namespace helios
