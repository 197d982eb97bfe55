// Counts what the cores' threads ask of the allocator, of the lock functions and of the wall clock.
//
// call_counter.cc defines malloc and its relatives, the lock functions of pthread and those that
// read a clock for the whole test program; each notes the call when the calling thread is a core,
// then goes on to the C library. With a sanitizer, which has an allocator of its own, its hooks
// count allocations instead and the rest is not counted. Any thread may ask.
#pragma once

#include <cstdint>

namespace helios::test {

struct CoreCalls {
  uint64_t allocations = 0;
  uint64_t locks = 0;
  uint64_t wall_clock_reads = 0;

  friend bool operator==(const CoreCalls&, const CoreCalls&) = default;
};

// Since the program began, over all cores.
[[nodiscard]] CoreCalls core_calls() noexcept;
[[nodiscard]] CoreCalls core_calls_since(const CoreCalls& before) noexcept;
// More than allocations. False with a sanitizer.
[[nodiscard]] bool counts_everything() noexcept;
// From now on the wall clock shows this much more, to every thread that reads it. Requires:
// counts_everything().
void move_wall_clock(int64_t seconds) noexcept;

}  // namespace helios::test
