#include "helios/runtime/signals.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <thread>

namespace helios {
namespace {

// The mask as it was before the test, afterwards.
class MaskKeeper {
 public:
  MaskKeeper() { pthread_sigmask(SIG_SETMASK, nullptr, &before_); }
  ~MaskKeeper() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

}  // namespace

TEST_CASE("each signal that comes is told as what it is") {
  const MaskKeeper keeper;
  block_signals();
  const auto answer_to = [](int number) {
    REQUIRE(pthread_kill(pthread_self(), number) == 0);
    return wait_for_signal(never);
  };
  CHECK(answer_to(SIGTERM) == Signal::terminate);
  CHECK(answer_to(SIGINT) == Signal::interrupt);
  CHECK(answer_to(SIGHUP) == Signal::hangup);
  CHECK(answer_to(SIGUSR1) == Signal::statistics);
}

TEST_CASE("a signal that came before the wait is not lost") {
  const MaskKeeper keeper;
  block_signals();
  REQUIRE(pthread_kill(pthread_self(), SIGTERM) == 0);
  CHECK(wait_for_signal(0) == Signal::terminate);
  CHECK(wait_for_signal(0) == std::nullopt);
}

TEST_CASE("a wait without a signal ends at its time") {
  const MaskKeeper keeper;
  block_signals();
  CHECK(wait_for_signal(milliseconds(1)) == std::nullopt);
}

TEST_CASE(
    "a signal to the process reaches the waiting thread when others have inherited the mask") {
  const MaskKeeper keeper;
  block_signals();
  std::thread other([] { kill(getpid(), SIGHUP); });
  CHECK(wait_for_signal(never) == Signal::hangup);
  other.join();
}

TEST_CASE("a write to a pipe without a reader is an error and not the end of the process") {
  const MaskKeeper keeper;
  std::thread([] {
    block_signals();
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    close(ends[0]);
    CHECK(write(ends[1], "x", 1) == -1);
    CHECK(errno == EPIPE);
    close(ends[1]);
  }).join();
}

}  // namespace helios
