// The configuration as sessions and pools see it: users, databases, nodes and their limits.
//
// Made by the main thread, at the start and at each reload; immutable afterwards (but for what the
// catalog holds), so that every core may read it.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "helios/config/config.h"
#include "helios/session/directory.h"
#include "server/config_catalog.h"

namespace helios {

class ConfigDirectory final : public Directory {
 public:
  // The catalog must outlive the directory; it learns what the configuration says. `epoch`: higher
  // than that of any directory before.
  ConfigDirectory(Config config, ConfigCatalog& catalog, uint64_t epoch);

  [[nodiscard]] uint64_t epoch() const override { return epoch_; }

  [[nodiscard]] UserSecret secret_of(std::string_view user) const override;
  [[nodiscard]] bool has_database(std::string_view database) const override;
  [[nodiscard]] PoolSpecRef pool_of(std::string_view database, std::string_view user,
                                    const ParameterList& settings) const override;

 private:
  const Config config_;
  ConfigCatalog& catalog_;
  const uint64_t epoch_;
  std::unordered_map<std::string, Node*> nodes_;
  std::unordered_map<const DatabaseConfig*, EntryLimits> database_limits_;
  std::unordered_map<const UserConfig*, EntryLimits> user_limits_;
  std::unordered_map<const UserConfig*, ScramVerifier> verifiers_;
};

}  // namespace helios
