// Slots of a slab, and latencies in a histogram.
#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <utility>

#include "bench/micro/meter.h"
#include "helios/base/histogram.h"
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
    // Const: what the library does with a variable, GCC 12 compiles wrong beside the sanitizers.
    benchmark::DoNotOptimize(std::as_const(object));
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

// Latencies between a microsecond and a second, so that many buckets are in use.
void histogram_record(benchmark::State& state) {
  Histogram histogram;
  uint64_t recorded_count = 0;
  {
    Meter meter(state, 1, Allocations::forbidden);
    uint64_t value = 1;
    for (auto _ : state) {
      value = value * 6364136223846793005U + 1442695040888963407U;
      histogram.record(1000 + (value >> (34 + (recorded_count & 15))));
      ++recorded_count;
    }
  }
  if (histogram.count() != recorded_count) fail(state, "a value was not recorded");
  if (histogram.min() < 1000) fail(state, "a value was not recorded as it is");
}
BENCHMARK(histogram_record);

}  // namespace
}  // namespace helios::bench
