// How often this thread has asked for memory: operator new, malloc, calloc and realloc.
//
// The linker leads every call that the program and its static libraries make through a counter
// (--wrap). Calls inside shared libraries are not seen, which for the code measured here is none.
#pragma once

#include <cstdint>

namespace helios::bench {

// Since the thread began. Any thread, each its own.
[[nodiscard]] uint64_t allocations_count() noexcept;

}  // namespace helios::bench
