#include "helios/pool/pool_spec.h"

#include <doctest/doctest.h>

using namespace helios;

TEST_CASE("a pool's key does not depend on the order of its settings") {
  CHECK(pool_key("db", "user", {{"a", "1"}, {"b", "2"}}) ==
        pool_key("db", "user", {{"b", "2"}, {"a", "1"}}));
}

TEST_CASE("texts that only look alike when written one behind the other are other pools") {
  const std::string key = pool_key("db", "user", {{"a", "1"}});
  CHECK(key != pool_key("dbu", "ser", {{"a", "1"}}));
  CHECK(key != pool_key("db", "user", {{"a1", ""}}));
  CHECK(key != pool_key("db", "user", {}));
  CHECK(pool_key("4:user", "", {}) != pool_key("", "4:user", {}));
}

TEST_CASE("the replication parameter makes a pool of single use, which counts with the plain one") {
  PoolSpec spec;
  spec.database = "db";
  spec.user = "user";
  spec.limits.min_connections = 2;
  spec.limits.max_connections = 7;
  spec.limits.reserve_connections = 1;
  spec.limits.connect_query = "SET x = 1";
  spec.limits.wait_notice = seconds(1);
  spec.login.parameters = {{"application_name", "a"}};
  const PoolLimits before = spec.limits;
  apply_replication(spec);
  CHECK(spec.limits == before);
  CHECK(spec.counts_with.empty());

  spec.login.parameters.emplace_back("replication", "true");
  apply_replication(spec);
  CHECK(spec.counts_with == pool_key("db", "user", {}));
  CHECK(spec.limits.is_single_use);
  CHECK(spec.limits.mode == LeaseMode::session);
  CHECK(spec.limits.connections_max() == before.connections_max());
  CHECK(spec.limits.min_connections == 0);
  CHECK(spec.limits.max_lifetime == 0);
  CHECK(spec.limits.idle_timeout == 0);
  CHECK(spec.limits.test_after == never);
  CHECK(spec.limits.connect_query.empty());
  CHECK(spec.limits.wait_notice == 0);
}
