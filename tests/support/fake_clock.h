// A clock that moves only when the test says so. One thread.
#pragma once

#include "helios/base/assert.h"
#include "helios/base/clock.h"

namespace helios {

class FakeClock : public Clock {
 public:
  explicit FakeClock(Nanoseconds now = seconds(1'000)) noexcept : now_(now) {}

  [[nodiscard]] Nanoseconds now() noexcept override { return now_; }
  // Requires: difference >= 0; a monotonic clock does not go back.
  void advance(Nanoseconds difference) noexcept {
    ASSERT(difference >= 0);
    now_ += difference;
  }

 private:
  Nanoseconds now_;
};

}  // namespace helios
