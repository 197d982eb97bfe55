// Log lines to stderr that never block a core.
//
// A line is formatted into a buffer of the calling thread's ring and written by one writer thread.
// A ring that is full drops the line and counts it; the count is reported with the next line that
// fits. Any thread may log. Each line: time (UTC, ms), level, core, text; at most 1 KiB, longer
// ones are cut. Control characters of the text (newline included) are escaped: text that comes from
// a peer cannot forge a line.
#pragma once

#include <cstdint>

namespace helios {

enum class LogLevel : uint8_t { error, warning, info, debug };

// Starts the writer thread. Lines logged before start or after stop are written directly.
void start_log(LogLevel level) noexcept;
// Writes what is queued and stops the writer thread; gives up after a second or two when nobody
// reads stderr. Call it when the cores have ended: a line that another thread logs meanwhile may be
// lost.
void stop_log() noexcept;
void set_log_level(LogLevel level) noexcept;
[[nodiscard]] bool is_logged(LogLevel level) noexcept;
// Lines that were lost since the process began because a ring was full or stderr was blocked.
[[nodiscard]] uint64_t log_lines_dropped() noexcept;

// printf-style. Call through LOG. Cold: see assertion_failed (assert.h).
[[gnu::cold]] void log_line(LogLevel level, const char* format, ...) noexcept
    __attribute__((format(printf, 2, 3)));

// A limit for one kind of line: at most `burst` lines per second on each thread; what was held back
// is told by the next line that passes. Static at the place of the LOG_LIMITED.
struct LogLimit {
  uint64_t second = 0;
  uint32_t count = 0;
  uint32_t dropped = 0;
};
[[nodiscard, gnu::cold]] bool log_allowed(LogLimit& limit, uint32_t burst = 10) noexcept;

}  // namespace helios

#define LOG(level, ...)                                           \
  do {                                                            \
    if (::helios::is_logged(::helios::LogLevel::level))           \
      ::helios::log_line(::helios::LogLevel::level, __VA_ARGS__); \
  } while (false)

// The same, at most ten lines per second and place on each thread.
#define LOG_LIMITED(level, ...)                                                                  \
  do {                                                                                           \
    static thread_local ::helios::LogLimit log_limit_here;                                       \
    if (::helios::is_logged(::helios::LogLevel::level) && ::helios::log_allowed(log_limit_here)) \
      ::helios::log_line(::helios::LogLevel::level, __VA_ARGS__);                                \
  } while (false)
