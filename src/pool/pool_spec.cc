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
  PoolLimits limits;
  limits.is_single_use = true;
  limits.mode = LeaseMode::session;
  limits.max_connections = spec.limits.max_connections;
  limits.reserve_connections = spec.limits.reserve_connections;
  limits.reserve_after = spec.limits.reserve_after;
  limits.acquire_timeout = spec.limits.acquire_timeout;
  limits.connect_timeout = spec.limits.connect_timeout;
  limits.max_waiters = spec.limits.max_waiters;
  limits.weight = spec.limits.weight;
  limits.idle_timeout = 0;
  limits.max_lifetime = 0;
  limits.test_after = never;
  spec.limits = limits;
}

}  // namespace helios
