// What outlives every configuration: nodes, limits, and what the cores share of each pool.
//
// A node is known by its name, hosts and port, a limit by the name of its database or user. What a
// configuration takes away stays here, so that it still counts what is open when it comes back. The
// main thread fills and changes it, before the cores start and at each reload; what it hands out
// may be used by any thread and lives as long as the catalog (nodes) or its holders (limits).
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "helios/config/config.h"
#include "helios/net/resolver.h"
#include "helios/pool/node.h"
#include "helios/pool/pool_registry.h"

namespace helios {

// Of an entry of [[database]] or [[user]]; an entry "*" has one for all its names.
struct EntryLimits {
  std::shared_ptr<SharedLimit> connections;
  std::shared_ptr<Limit> clients;
};

class ConfigCatalog {
 public:
  // The resolver must outlive the catalog.
  ConfigCatalog(Resolver& resolver, CoreId cores_count)
      : resolver_(resolver), cores_count_(cores_count) {}

  // Each makes what is new, and gives what is known its new limits.
  [[nodiscard]] Node& node_of(const NodeConfig& config);
  [[nodiscard]] const EntryLimits& limits_of(const DatabaseConfig& config);
  [[nodiscard]] const EntryLimits& limits_of(const UserConfig& config);

  // Any thread.
  [[nodiscard]] PoolRegistry& registry() noexcept { return registry_; }
  // Names of nodes that are new are being looked up: waits for that, but not for long.
  void await_addresses() { resolver_.await_answers(); }

 private:
  using LimitsByName = std::unordered_map<std::string, EntryLimits>;
  [[nodiscard]] static const EntryLimits& update(LimitsByName& known, const std::string& name,
                                                 uint32_t connections_max, uint32_t clients_max);

  Resolver& resolver_;
  const CoreId cores_count_;
  std::unordered_map<std::string, std::unique_ptr<Node>> nodes_;  // By name and address.
  LimitsByName databases_;
  LimitsByName users_;
  PoolRegistry registry_;
};

}  // namespace helios
