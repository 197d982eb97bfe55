#include "helios/pool/pool_spec.h"

#include <algorithm>

namespace helios {
namespace {

// Length before each text: no two lists of texts have one key.
void append_key(std::string& key, std::string_view text) {
  key += std::to_string(text.size());
  key += ':';
  key += text;
}

// Of a pool whose backends serve one client each, for as long as that likes.
PoolLimits limits_of_single_use(const PoolLimits& of) {
  PoolLimits limits;
  limits.is_single_use = true;
  limits.mode = LeaseMode::session;
  limits.connect_timeout = of.connect_timeout;
  limits.weight = of.weight;
  limits.idle_timeout = 0;
  limits.max_lifetime = 0;
  limits.test_after = never;
  return limits;
}

}  // namespace

std::string pool_key(std::string_view database, std::string_view user, ParameterList settings) {
  std::sort(settings.begin(), settings.end());
  std::string key;
  append_key(key, database);
  append_key(key, user);
  for (const auto& [name, value] : settings) {
    append_key(key, name);
    append_key(key, value);
  }
  return key;
}

void apply_replication(PoolSpec& spec) {
  const auto is_replication = [](const NamedValue& parameter) {
    return parameter.first == replication_parameter;
  };
  const auto& parameters = spec.login.parameters;
  if (std::none_of(parameters.begin(), parameters.end(), is_replication)) return;
  spec.counts_with = pool_key(spec.database, spec.user, {});
  // A stream lasts for as long as its client likes, and most take no SQL: of the pool's terms only
  // those hold that are about getting a connection.
  PoolLimits limits = limits_of_single_use(spec.limits);
  limits.max_connections = spec.limits.max_connections;
  limits.reserve_connections = spec.limits.reserve_connections;
  limits.reserve_after = spec.limits.reserve_after;
  limits.acquire_timeout = spec.limits.acquire_timeout;
  limits.max_waiters = spec.limits.max_waiters;
  spec.limits = limits;
}

PoolSpecRef make_hub_spec(const PoolSpec& pool, uint32_t cores_count, uint64_t generation) {
  auto* spec = new PoolSpec;
  const PoolSpecRef made(spec);
  static_cast<PoolTerms&>(*spec) = pool;
  spec->limits = limits_of_single_use(pool.limits);
  spec->limits.max_connections = 2 * cores_count;
  spec->limits.acquire_timeout = 0;
  spec->counts_with.clear();
  spec->key = pool.key + "/hub";
  spec->database = pool.database;
  spec->user = pool.user;
  // What pg_stat_activity shows.
  spec->login.parameters.emplace_back("application_name", "heliosproxy hub");
  spec->epoch = pool.epoch;
  spec->is_of_hub = true;
  spec->shared = std::make_shared<PoolShared>(
      spec->limits, generation,
      std::make_shared<PoolConnections>(std::make_shared<SharedLimit>(0)));
  return made;
}

}  // namespace helios
