#include "server/config_catalog.h"

#include <utility>

namespace helios {
namespace {

NodeOptions options_of(const NodeConfig& config, CoreId cores_count) {
  NodeOptions options;
  options.name = config.name;
  options.label = config.host + ":" + std::to_string(config.port);
  options.hosts = config.hosts();
  options.port = config.port;
  options.max_connections = config.max_connections;
  options.connecting_max = config.connecting_max;
  options.cores_count = cores_count;
  options.fail_fast = config.fail_fast;
  options.health.retry_max = config.retry_max;
  return options;
}

}  // namespace

Node& ConfigCatalog::node_of(const NodeConfig& config) {
  NodeOptions options = options_of(config, cores_count_);
  // No host and no number has a line feed in it.
  std::unique_ptr<Node>& node = nodes_[options.label + "\n" + options.name];
  if (node != nullptr) {
    node->update(options);
  } else {
    node = std::make_unique<Node>(std::move(options), resolver_);
  }
  return *node;
}

const EntryLimits& ConfigCatalog::limits_of(const DatabaseConfig& config) {
  return update(databases_, config.name, config.max_connections_total, config.max_clients);
}

const EntryLimits& ConfigCatalog::limits_of(const UserConfig& config) {
  return update(users_, config.name, config.max_connections_total, config.max_clients);
}

// Without a limit it counts all the same: one may be set later.
const EntryLimits& ConfigCatalog::update(LimitsByName& known, const std::string& name,
                                         uint32_t connections_max, uint32_t clients_max) {
  EntryLimits& limits = known[name];
  if (limits.connections == nullptr)
    limits = {std::make_shared<SharedLimit>(connections_max), std::make_shared<Limit>(clients_max)};
  limits.connections->set_max(connections_max);
  limits.clients->set_max(clients_max);
  return limits;
}

}  // namespace helios
