// The configuration as sessions and pools see it: users, databases, nodes and their limits.
//
// Made by the main thread before the cores start; immutable afterwards (but for the limits'
// counters), so that every core may read it.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "helios/config/config.h"
#include "helios/net/resolver.h"
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
  [[nodiscard]] static std::shared_ptr<Limit> limit_of(uint32_t max);

  const Config& config_;
  std::unordered_map<std::string, std::unique_ptr<Node>> nodes_;
  // Of each entry of [[database]] and [[user]]; an entry "*" is one limit for all its names.
  std::unordered_map<const DatabaseConfig*, std::shared_ptr<Limit>> database_limits_;
  std::unordered_map<const UserConfig*, std::shared_ptr<Limit>> user_limits_;
  std::unordered_map<const UserConfig*, ScramVerifier> verifiers_;
};

}  // namespace helios
