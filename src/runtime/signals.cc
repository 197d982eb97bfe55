#include "helios/runtime/signals.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <algorithm>

#include "helios/base/assert.h"

namespace helios {
namespace {

sigset_t waited_set() noexcept {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) sigaddset(&set, number);
  return set;
}

std::optional<Signal> signal_of(int number) noexcept {
  if (number == SIGTERM) return Signal::terminate;
  if (number == SIGINT) return Signal::interrupt;
  if (number == SIGHUP) return Signal::hangup;
  if (number == SIGUSR1) return Signal::statistics;
  return std::nullopt;
}

}  // namespace

void block_signals() noexcept {
  sigset_t set = waited_set();
  sigaddset(&set, SIGPIPE);
  const int error = pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ASSERT(error == 0);
}

std::optional<Signal> wait_for_signal(Nanoseconds timeout) noexcept {
  const sigset_t set = waited_set();
  MonotonicClock clock;
  const Nanoseconds deadline = timeout == never ? never : clock.now() + timeout;
  for (;;) {
    const Nanoseconds left = std::max<Nanoseconds>(deadline - clock.now(), 0);
    const timespec wait{left / seconds(1), left % seconds(1)};
    const int number = sigtimedwait(&set, nullptr, deadline == never ? nullptr : &wait);
    if (number > 0) return signal_of(number);
    // Interrupted by another signal's handler or a debugger: not ours.
    if (errno != EINTR) return std::nullopt;
  }
}

}  // namespace helios
