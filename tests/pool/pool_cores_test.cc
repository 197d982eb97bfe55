#include "helios/pool/pool_cores.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "helios/net/resolver.h"

using namespace helios;

namespace {

// The number of home cores of a pool of `max_connections` on a node of `node_max` (0: no limit).
class HomeCores {
 public:
  explicit HomeCores(uint32_t node_max)
      : resolver_(ResolverOptions()), node_(options(node_max), resolver_) {
    spec_.node = &node_;
  }
  CoreId count(uint32_t max_connections, CoreId cores_count) {
    spec_.limits.max_connections = max_connections;
    return home_cores_count(spec_, cores_count);
  }
  PoolSpec& spec() { return spec_; }

 private:
  static NodeOptions options(uint32_t max) {
    NodeOptions options;
    options.hosts = {"127.0.0.1"};
    options.max_connections = max;
    return options;
  }
  Resolver resolver_;
  Node node_;
  PoolSpec spec_;
};

}  // namespace

TEST_CASE("all permits are dealt, evenly, and those of a smaller total to the same cores") {
  for (const char* key : {"", "pool", "2:db2:me", "other"}) {
    for (CoreId cores_count = 1; cores_count <= 9; ++cores_count) {
      const PoolCores cores(key, cores_count);
      for (uint32_t total = 0; total <= 30; ++total) {
        uint32_t dealt = 0;
        for (CoreId core = 0; core < cores_count; ++core) {
          const uint32_t share = cores.share_of(total, core);
          CHECK(share >= total / cores_count);
          CHECK(share <= total / cores_count + 1);
          CHECK(share <= cores.share_of(total + 1, core));
          dealt += share;
        }
        CHECK(dealt == total);
      }
    }
  }
}

TEST_CASE("permits are dealt in the order of the cores' positions") {
  const PoolCores cores("pool", 5);
  for (CoreId position = 0; position < 5; ++position) {
    CHECK(cores.position_of(cores.core_at(position)) == position);
    CHECK(cores.share_of(3, cores.core_at(position)) == (position < 3 ? 1 : 0));
  }
}

TEST_CASE("small pools begin on different cores") {
  constexpr CoreId cores_count = 8;
  std::vector<uint32_t> counts(cores_count);
  for (int i = 0; i < 800; ++i)
    ++counts[PoolCores(pool_key("db" + std::to_string(i), "me", {}), cores_count).core_at(0)];
  CHECK(*std::min_element(counts.begin(), counts.end()) > 50);
}

TEST_CASE("a pool has a home core for every two connections, and at most all cores") {
  HomeCores homes(0);
  CHECK(homes.count(1, 8) == 1);
  CHECK(homes.count(2, 8) == 1);
  CHECK(homes.count(3, 8) == 2);
  CHECK(homes.count(15, 8) == 8);
  CHECK(homes.count(1000, 8) == 8);
  CHECK(homes.count(UINT32_MAX, 8) == 8);
  CHECK(homes.count(1000, 1) == 1);
}

TEST_CASE("totals of node, database and user that a pool cannot exceed count for its home cores") {
  HomeCores homes(6);
  CHECK(homes.count(100, 8) == 3);
  homes.spec().database_limit = std::make_shared<SharedLimit>(4);
  CHECK(homes.count(100, 8) == 2);
  homes.spec().user_limit = std::make_shared<SharedLimit>(1);
  CHECK(homes.count(100, 8) == 1);
  homes.spec().user_limit = std::make_shared<SharedLimit>(0);  // None.
  CHECK(homes.count(100, 8) == 2);
}
