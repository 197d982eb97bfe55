// Slots of a slab.
#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>

#include "bench/micro/meter.h"
#include "helios/base/slab.h"

namespace helios::bench {
namespace {

// About as large as a session's state.
struct Object {
  explicit Object(uint64_t number) noexcept : first(number) {}
  uint64_t first;
  std::array<uint64_t, 47> rest;
};

// Make one and free it again: always the slot that was used last.
void slab_make_free(benchmark::State& state) {
  Slab<Object> slab(1024);
  Meter meter(state, 1, Allocations::forbidden);
  for (auto _ : state) {
    Object* object = slab.make(1U);
    benchmark::DoNotOptimize(object);
    slab.free(object);
  }
}
BENCHMARK(slab_make_free);

// The way from a completion's ticket to its object, over as many objects as a busy core has.
void slab_find(benchmark::State& state) {
  constexpr uint32_t count = 1024;
  Slab<Object> slab(count);
  std::array<SlabId, count> ids;
  for (SlabId& id : ids) id = slab.id_of(slab.make(1U));
  uint64_t sum = 0;
  {
    Meter meter(state, count, Allocations::forbidden);
    for (auto _ : state)
      for (const SlabId id : ids) sum += slab.find(id)->first;
  }
  if (sum != state.iterations() * uint64_t{count}) fail(state, "an object was not found");
  slab.for_each([&slab](Object& object) { slab.free(&object); });
}
BENCHMARK(slab_find);

}  // namespace
}  // namespace helios::bench
