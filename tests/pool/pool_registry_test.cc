#include "helios/pool/pool_registry.h"

#include <doctest/doctest.h>

#include <thread>
#include <vector>

namespace helios {
namespace {

TEST_CASE("a key has one shared part for as long as somebody has it") {
  PoolRegistry registry;
  PoolLimits limits;
  limits.max_waiters = 2;
  auto first = registry.shared_of("a", limits);
  CHECK(registry.shared_of("a", limits) == first);
  CHECK(registry.shared_of("b", limits) != first);
  CHECK(first->waiters.max() == 2);
  REQUIRE(first->waiters.try_take());
  auto second = registry.shared_of("a", limits);
  first.reset();
  CHECK(registry.shared_of("a", limits)->waiters.taken() == 1);
  second.reset();
  CHECK(registry.shared_of("a", limits)->waiters.taken() == 0);
}

TEST_CASE("keys that nobody has any more are dropped, and no others") {
  PoolRegistry registry;
  const PoolLimits limits;
  const auto kept = registry.shared_of("kept", limits);
  for (int i = 0; i < 10'000; ++i) (void)registry.shared_of(std::to_string(i), limits);
  CHECK(registry.size() < 200);
  CHECK(registry.shared_of("kept", limits) == kept);
  std::vector<std::shared_ptr<PoolShared>> many;
  for (int i = 0; i < 1'000; ++i) many.push_back(registry.shared_of(std::to_string(i), limits));
  for (size_t i = 0; i < many.size(); ++i)
    CHECK(registry.shared_of(std::to_string(i), limits) == many[i]);
}

TEST_CASE("two threads that ask for one key get one shared part") {
  PoolRegistry registry;
  const PoolLimits limits;
  constexpr size_t rounds = 1'000;
  const auto ask = [&](std::vector<std::shared_ptr<PoolShared>>& got) {
    for (size_t i = 0; i < rounds; ++i)
      got.push_back(registry.shared_of(std::to_string(i), limits));
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
