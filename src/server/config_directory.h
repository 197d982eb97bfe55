// The configuration as sessions and pools see it: users, databases, nodes and their limits.
//
// Made by the main thread before the cores start; immutable afterwards (but for the limits'
// counters and the registry of pools, which has a mutex), so that every core may read it.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "helios/config/config.h"
#include "helios/net/resolver.h"
#include "helios/pool/pool_registry.h"
#include "helios/session/directory.h"

namespace helios {

class ConfigDirectory final : public Directory {
 public:
  // Both must outlive the directory. Adds the nodes' hosts to the resolver.
  ConfigDirectory(const Config& config, Resolver& resolver, CoreId cores_count);

  [[nodiscard]] UserSecret secret_of(std::string_view user) const override;
  [[nodiscard]] bool has_database(std::string_view database) const override;
  [[nodiscard]] PoolSpecRef pool_of(std::string_view database, std::string_view user,
                                    const ParameterList& settings) const override;

 private:
  // Of an entry of [[database]] or [[user]]; an entry "*" has one for all its names.
  struct EntryLimits {
    std::shared_ptr<SharedLimit> connections;
    std::shared_ptr<Limit> clients;
  };
  template <typename AnyLimit>
  [[nodiscard]] static std::shared_ptr<AnyLimit> limit_of(uint32_t max) {
    return max == 0 ? nullptr : std::make_shared<AnyLimit>(max);
  }

  const Config& config_;
  std::unordered_map<std::string, std::unique_ptr<Node>> nodes_;
  std::unordered_map<const DatabaseConfig*, EntryLimits> database_limits_;
  std::unordered_map<const UserConfig*, EntryLimits> user_limits_;
  std::unordered_map<const UserConfig*, ScramVerifier> verifiers_;
  mutable PoolRegistry registry_;
};

}  // namespace helios
