// Assertions that stay on in release builds.
//
// ASSERT(condition)        An invariant of our own code. Aborts with expression, place and core.
// DEBUG_ASSERT(condition)  The same, compiled out when NDEBUG is set: for checks that walk a
// structure. UNREACHABLE(text)        Code that cannot be reached. Aborts.
//
// Never assert on input: a peer must not be able to abort the process. Any thread may assert.
#pragma once

namespace helios {

// Writes the report to stderr (with the calling core's number) and aborts. Cold: what leads to it
// is compiled away from the code beside it, so that the path of a query fills fewer pages.
[[noreturn, gnu::cold]] void assertion_failed(const char* expression, const char* file, int line,
                                              const char* function) noexcept;

// The number that assertion reports and log lines show for this thread; -1 outside any core.
void set_current_core(int core) noexcept;
[[nodiscard]] int current_core() noexcept;

}  // namespace helios

#define ASSERT(condition)                            \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::helios::assertion_failed(#condition, __FILE__, __LINE__, __func__))

#ifdef NDEBUG
#define DEBUG_ASSERT(condition) static_cast<void>(sizeof(static_cast<bool>(condition)))
#else
#define DEBUG_ASSERT(condition) ASSERT(condition)
#endif

#define UNREACHABLE(text) \
  ::helios::assertion_failed("unreachable: " text, __FILE__, __LINE__, __func__)
