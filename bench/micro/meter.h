// What a benchmark's loop has cost besides time: allocations and instructions, as columns.
//
//   Meter meter(state, messages_per_iteration);
//   for (auto _ : state) { ... }
//
// Made right before the loop; its end adds the columns `allocs/op`, `instr/op` (where the kernel
// counts them) and `op` (operations per second: one iteration may be several). Belongs to the
// thread that runs the loop.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>

namespace helios::bench {

// Whether a benchmark that allocates has failed.
enum class Allocations : uint8_t { allowed, forbidden };

class Meter {
 public:
  explicit Meter(benchmark::State& state, uint64_t operations_per_iteration = 1,
                 Allocations allocations = Allocations::allowed) noexcept;
  ~Meter();
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

 private:
  benchmark::State& state_;
  uint64_t operations_per_iteration_;
  Allocations allocations_;
  uint64_t allocations_before_;
  uint64_t instructions_before_;
};

// Ends a benchmark whose result is wrong; the program then exits with status 1.
void fail(benchmark::State& state, const char* why);
// Since the program began.
[[nodiscard]] uint32_t failures_count() noexcept;

}  // namespace helios::bench
