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
