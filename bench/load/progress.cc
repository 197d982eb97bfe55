#include "load/progress.h"

#include <unistd.h>

#include <cstdio>

namespace helios::bench {
namespace {

constexpr Nanoseconds terminal_interval = seconds(1);
constexpr Nanoseconds file_interval = seconds(10);

double to_seconds(Nanoseconds time) {
  return static_cast<double>(time) / 1e9;
}

}  // namespace

ProgressLine::ProgressLine(bool is_shown, uint32_t clients) noexcept
    : is_shown_(is_shown),
      is_terminal_(isatty(STDERR_FILENO) == 1),
      clients_(clients),
      began_(clock_.now()),
      shown_at_(began_) {}

ProgressLine::~ProgressLine() {
  if (is_shown_ && is_terminal_) std::fputs("\r\033[K", stderr);
}

void ProgressLine::tick(Phase phase, const LoadProgress& progress) {
  const Nanoseconds now = clock_.now();
  if (!is_shown_ || now - shown_at_ < (is_terminal_ ? terminal_interval : file_interval)) return;
  if (is_terminal_) std::fputs("\r\033[K", stderr);
  switch (phase) {
    case Phase::connecting:
      show_connecting(progress, now);
      break;
    case Phase::warm_up:
    case Phase::counting:
      show_rate(phase, progress, now);
      break;
    case Phase::draining:
      std::fprintf(stderr, "%6.0f s  waiting for the last answers of %u clients",
                   to_seconds(now - began_), progress.connected);
      break;
    case Phase::asking:
      show_asking(progress, now);
      break;
    case Phase::resting:
      std::fprintf(stderr, "%6.0f s  at rest: %u clients connected", to_seconds(now - began_),
                   progress.connected);
      break;
  }
  std::fputs(is_terminal_ ? "" : "\n", stderr);
  std::fflush(stderr);
  shown_at_ = now;
  last_ = progress;
}

void ProgressLine::show_connecting(const LoadProgress& progress, Nanoseconds now) const {
  std::fprintf(stderr, "%6.0f s  connecting: %u of %u clients", to_seconds(now - began_),
               progress.connected, clients_);
}

void ProgressLine::show_asking(const LoadProgress& progress, Nanoseconds now) const {
  std::fprintf(stderr, "%6.0f s  asking: %llu answers so far, %u of %u clients connected",
               to_seconds(now - began_), static_cast<unsigned long long>(progress.transactions),
               progress.connected, clients_);
}

void ProgressLine::show_rate(Phase phase, const LoadProgress& progress, Nanoseconds now) const {
  const double span = to_seconds(now - shown_at_);
  const uint64_t finished = progress.finished - last_.finished;
  std::fprintf(stderr, "%6.0f s  %s%.0f transactions/s", to_seconds(now - began_),
               phase == Phase::warm_up ? "warm-up: " : "", static_cast<double>(finished) / span);
  const uint64_t good = progress.transactions - last_.transactions;
  if (good > 0) {
    const uint64_t mean = (progress.latency_sum - last_.latency_sum) / good;
    std::fprintf(stderr, ", mean %.3f ms", static_cast<double>(mean) / 1e6);
  }
  if (progress.failed > 0)
    std::fprintf(stderr, ", %llu failed", static_cast<unsigned long long>(progress.failed));
  if (progress.wrong > 0)
    std::fprintf(stderr, ", %llu WRONG", static_cast<unsigned long long>(progress.wrong));
  if (progress.connected < clients_)
    std::fprintf(stderr, ", %u of %u clients connected", progress.connected, clients_);
}

}  // namespace helios::bench
