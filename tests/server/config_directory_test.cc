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
  config.pool = {PoolMode::session, 3,          13, seconds(1), seconds(2), seconds(3), true,
                 seconds(4),        seconds(5), 6,  23,         33,         seconds(6), seconds(7),
                 "select 1"};
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
  CHECK(limits_of(config) == expected);
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
