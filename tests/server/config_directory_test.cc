// What the configuration says of a pool is what the pool is made of.
#include "server/config_directory.h"

#include <doctest/doctest.h>

#include <utility>

namespace helios {
namespace {

Config some_config() {
  Config config;
  NodeConfig& node = config.nodes.emplace_back();
  node.name = "main";
  node.host = "127.0.0.1";
  DatabaseConfig& database = config.databases.emplace_back();
  database.name = "app";
  database.node = "main";
  UserConfig& user = config.users.emplace_back();
  user.name = "app";
  user.password = "secret";
  return config;
}

PoolLimits limits_of(Config config) {
  Resolver resolver;
  ConfigCatalog catalog(resolver, 1);
  const ConfigDirectory directory(std::move(config), catalog, 1);
  return directory.pool_of("app", "app", {})->limits;
}

TEST_CASE("a pool has the defaults of its keys") {
  PoolLimits expected;
  expected.min_connections = 2;
  expected.max_connections = 10;
  expected.idle_timeout = seconds(300);
  expected.max_lifetime = seconds(1800);
  expected.acquire_timeout = seconds(30);
  expected.test_after = seconds(30);
  CHECK(limits_of(some_config()) == expected);
}

TEST_CASE("every key of a pool reaches it") {
  Config config = some_config();
  config.pool.mode = PoolMode::session;
  config.pool.min_connections = 3;
  config.pool.max_connections = 13;
  config.pool.idle_timeout = seconds(1);
  config.pool.max_lifetime = seconds(2);
  config.pool.acquire_timeout = seconds(3);
  config.pool.test_after = seconds(4);
  config.pool.connect_timeout = seconds(5);
  config.pool.weight = 6;
  config.pool.max_waiters = 23;
  config.pool.reserve_connections = 33;
  config.pool.reserve_after = seconds(6);
  config.pool.wait_notice = seconds(7);
  config.pool.connect_query = "select 1";
  config.pool.query_timeout = seconds(8);
  config.pool.idle_transaction_timeout = seconds(9);
  config.pool.idle_transaction_timeout_when = IdleTransactionWhen::waited_for;
  config.pool.transaction_timeout = seconds(10);
  config.pool.client_idle_timeout = seconds(11);
  config.pool.session_state = SessionStateMode::warn;
  config.pool.harmless_functions = {"f", "app.g"};
  config.pool.max_prepared_statements = 43;
  config.pool.max_prepared_statement_size = 2048;
  config.pool.max_client_statements_size = 4096;
  config.pool.max_client_notifications_size = 8192;
  PoolLimits expected;
  expected.mode = LeaseMode::session;
  expected.min_connections = 3;
  expected.max_connections = 13;
  expected.idle_timeout = seconds(1);
  expected.max_lifetime = seconds(2);
  expected.acquire_timeout = seconds(3);
  expected.test_after = seconds(4);
  expected.connect_timeout = seconds(5);
  expected.weight = 6;
  expected.max_waiters = 23;
  expected.reserve_connections = 33;
  expected.reserve_after = seconds(6);
  expected.wait_notice = seconds(7);
  expected.connect_query = "select 1";
  expected.time_limits.query = seconds(8);
  expected.time_limits.idle_transaction = seconds(9);
  expected.time_limits.idle_transaction_if_waited_for = true;
  expected.time_limits.transaction = seconds(10);
  expected.time_limits.client_idle = seconds(11);
  expected.session_state = StatePolicy::warn;
  expected.harmless_functions = {"f", "app.g"};
  expected.max_prepared_statements = 43;
  expected.max_prepared_statement_size = 2048;
  expected.max_client_statements_size = 4096;
  expected.max_client_notifications_size = 8192;
  CHECK(limits_of(config) == expected);
}

TEST_CASE("each session_state of the configuration is one of the pool") {
  constexpr std::pair<SessionStateMode, StatePolicy> all[] = {
      {SessionStateMode::follow, StatePolicy::follow},
      {SessionStateMode::strict, StatePolicy::strict},
      {SessionStateMode::pin, StatePolicy::pin},
      {SessionStateMode::warn, StatePolicy::warn},
      {SessionStateMode::refuse, StatePolicy::refuse}};
  for (const auto& [mode, policy] : all) {
    Config config = some_config();
    config.pool.session_state = mode;
    CHECK(limits_of(config).session_state == policy);
  }
}

TEST_CASE("test_on_acquire decides whether backends are tested") {
  Config config = some_config();
  for (const bool is_on : {true, false}) {
    config.pool.test_on_acquire = is_on;
    CHECK(limits_of(config).test_after == (is_on ? seconds(30) : never));
    // Of a user before [pool].
    config.users[0].pool.test_on_acquire = !is_on;
    CHECK(limits_of(config).test_after == (is_on ? never : seconds(30)));
    config.users[0].pool.test_on_acquire.reset();
  }
}

}  // namespace
}  // namespace helios
