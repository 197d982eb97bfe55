// Counts what the cores' threads ask of the allocator and of the lock functions.
//
// call_counter.cc defines malloc and its relatives and the lock functions of pthread for the whole
// test program; each notes the call when the calling thread is a core, then goes on to the C
// library. With a sanitizer, which has an allocator of its own, its hooks count allocations instead
// and locks are not counted. Any thread may ask.
#pragma once

#include <cstdint>

namespace helios::test {

struct CoreCalls {
  uint64_t allocations = 0;
  uint64_t locks = 0;

  friend bool operator==(const CoreCalls&, const CoreCalls&) = default;
};

// Since the program began, over all cores.
[[nodiscard]] CoreCalls core_calls() noexcept;
[[nodiscard]] CoreCalls core_calls_since(const CoreCalls& before) noexcept;
// False with a sanitizer.
[[nodiscard]] bool counts_locks() noexcept;

}  // namespace helios::test
