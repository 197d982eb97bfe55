#include "helios/pool/pool_registry.h"

#include <doctest/doctest.h>

#include <thread>
#include <vector>

namespace helios {
namespace {

bool take(SharedLimit& connections) {
  return connections.try_take({1, 1, 0}, 0);
}

TEST_CASE("a key has one shared part for as long as somebody has it") {
  PoolRegistry registry;
  PoolTerms terms;
  terms.limits.max_waiters = 2;
  auto first = registry.shared_of("a", terms);
  CHECK(registry.shared_of("a", terms) == first);
  CHECK(registry.shared_of("b", terms) != first);
  CHECK(first->waiters.max() == 2);
  REQUIRE(first->waiters.try_take());
  auto second = registry.shared_of("a", terms);
  first.reset();
  CHECK(registry.shared_of("a", terms)->waiters.taken() == 1);
  second.reset();
  CHECK(registry.shared_of("a", terms)->waiters.taken() == 0);
}

TEST_CASE("keys that nobody has any more are dropped, and no others") {
  PoolRegistry registry;
  const PoolTerms terms;
  const auto kept = registry.shared_of("kept", terms);
  for (int i = 0; i < 10'000; ++i) (void)registry.shared_of(std::to_string(i), terms);
  CHECK(registry.size() < 200);
  CHECK(registry.shared_of("kept", terms) == kept);
  std::vector<std::shared_ptr<PoolShared>> many;
  for (int i = 0; i < 1'000; ++i) many.push_back(registry.shared_of(std::to_string(i), terms));
  for (size_t i = 0; i < many.size(); ++i)
    CHECK(registry.shared_of(std::to_string(i), terms) == many[i]);
}

TEST_CASE("other terms are another generation, and both count against the new limit") {
  PoolRegistry registry;
  PoolTerms terms;
  terms.limits.max_connections = 3;
  const auto first = registry.shared_of("a", terms, 0);
  CHECK(first->connections->limit->max() == 3);
  for (int i = 0; i < 3; ++i) REQUIRE(take(*first->connections->limit));
  CHECK(registry.shared_of("a", terms, 1) == first);
  terms.limits.max_connections = 2;
  terms.limits.reserve_connections = 2;
  const auto second = registry.shared_of("a", terms, 2);
  CHECK(second != first);
  CHECK(second->generation > first->generation);
  CHECK(second->connections->limit->max() == 4);
  CHECK(take(*second->connections->limit));
  CHECK_FALSE(take(*second->connections->limit));
  // A core that still lives in the first configuration changes nothing for those that do not.
  const auto late = registry.shared_of("a", PoolTerms(), 1);
  CHECK(late != first);
  CHECK(late != second);
  CHECK(second->connections->limit->max() == 4);
  CHECK(registry.shared_of("a", terms, 2) == second);
}

TEST_CASE("a pool that was gone for an epoch is another one afterwards, with what is still open") {
  PoolRegistry registry;
  PoolTerms terms;
  terms.limits.max_connections = 1;
  auto first = registry.shared_of("a", terms, 0);
  const auto connections = first->connections;
  REQUIRE(take(*connections->limit));
  const auto second = registry.shared_of("a", terms, 2);
  CHECK(second != first);
  CHECK_FALSE(take(*second->connections->limit));
  first.reset();
  CHECK(connections->limit->taken() == 1);
}

TEST_CASE(
    "pools that count with each other have one number of connections, with the newest limit") {
  PoolRegistry registry;
  PoolTerms terms;
  terms.limits.max_connections = 2;
  PoolTerms others = terms;
  others.counts_with = "a";
  // Whichever is first.
  const auto other = registry.shared_of("other", others, 1);
  const auto own = registry.shared_of("a", terms, 1);
  CHECK(own != other);
  CHECK(own->connections->limit == other->connections->limit);
  CHECK(registry.shared_of("b", terms, 1)->connections->limit != own->connections->limit);
  REQUIRE(take(*own->connections->limit));
  terms.limits.max_connections = 5;
  const auto next = registry.shared_of("a", terms, 2);
  CHECK(next->connections->limit == other->connections->limit);
  CHECK(next->connections->limit->max() == 5);
  // A core that is late does not set the limit back.
  CHECK(registry.shared_of("late", others, 1)->connections->limit == own->connections->limit);
  CHECK(own->connections->limit->max() == 5);
  CHECK(own->connections->limit->taken() == 1);
}

TEST_CASE("two threads that ask for one key get one shared part") {
  PoolRegistry registry;
  const PoolTerms terms;
  constexpr size_t rounds = 1'000;
  const auto ask = [&](std::vector<std::shared_ptr<PoolShared>>& got) {
    for (size_t i = 0; i < rounds; ++i) got.push_back(registry.shared_of(std::to_string(i), terms));
  };
  std::vector<std::shared_ptr<PoolShared>> here;
  std::vector<std::shared_ptr<PoolShared>> there;
  std::thread other(ask, std::ref(there));
  ask(here);
  other.join();
  CHECK(here == there);
}

}  // namespace
}  // namespace helios
