// Time: nanoseconds of the monotonic clock, and the seam that tests replace.
//
// Wall-clock time is used for log lines only. Nothing below `server` reads the time by itself: the
// core's loop reads the clock once per turn (see runtime/core.h) and hands it down.
#pragma once

#include <cstdint>

namespace helios {

// A point on the monotonic clock, or a difference of two, in nanoseconds.
using Nanoseconds = int64_t;

constexpr Nanoseconds microseconds(int64_t count) noexcept {
  return count * 1'000;
}
constexpr Nanoseconds milliseconds(int64_t count) noexcept {
  return count * 1'000'000;
}
constexpr Nanoseconds seconds(int64_t count) noexcept {
  return count * 1'000'000'000;
}

// A deadline that never comes.
constexpr Nanoseconds never = INT64_MAX;

class Clock {
 public:
  virtual ~Clock() = default;
  [[nodiscard]] virtual Nanoseconds now() noexcept = 0;
};

// CLOCK_MONOTONIC of the kernel.
class MonotonicClock final : public Clock {
 public:
  [[nodiscard]] Nanoseconds now() noexcept override;
};

}  // namespace helios
