// The line on stderr that says how a run is doing: in place on a terminal, else one each 10 s.
//
// Main thread.
#pragma once

#include <cstdint>

#include "helios/base/clock.h"
#include "load/load_run.h"

namespace helios::bench {

class ProgressLine {
 public:
  enum class Phase : uint8_t {
    connecting,
    warm_up,
    counting,
    draining,  // Nothing begins any more.
    asking,    // Every client asks one thing (idle).
    resting,   // Nobody does anything (idle).
  };

  // `is_shown` false: does nothing.
  ProgressLine(bool is_shown, uint32_t clients) noexcept;
  ~ProgressLine();  // Leaves the terminal's line clean.

  // May be called often: shows something when it is time.
  void tick(Phase phase, const LoadProgress& progress);

 private:
  void show_connecting(const LoadProgress& progress, Nanoseconds now) const;
  void show_asking(const LoadProgress& progress, Nanoseconds now) const;
  void show_rate(Phase phase, const LoadProgress& progress, Nanoseconds now) const;

  MonotonicClock clock_;
  bool is_shown_;
  bool is_terminal_;
  uint32_t clients_;
  Nanoseconds began_;
  Nanoseconds shown_at_;
  LoadProgress last_;  // When something was shown.
};

}  // namespace helios::bench
