#include "helios/pool/connect_gate.h"

#include "helios/base/assert.h"

namespace helios {

ConnectGate::ConnectGate(uint32_t max, CoreId cores_count) noexcept
    : max_(max), waiting_since_(cores_count) {
  for (auto& since : waiting_since_) since.store(never);
}

bool ConnectGate::try_enter(CoreId core, Nanoseconds since) noexcept {
  if (take()) return true;
  // Announce, then look again: whoever leaves after our announcement will see it.
  waiting_since_[core].store(since);
  if (!take()) return false;
  waiting_since_[core].store(never);
  return true;
}

void ConnectGate::withdraw(CoreId core) noexcept {
  waiting_since_[core].store(never);
}

std::optional<CoreId> ConnectGate::leave() noexcept {
  for (;;) {
    // The cap may have become smaller.
    if (!is_over())
      if (const auto core = pick()) return core;
    const uint32_t before = taken_.fetch_sub(1);
    ASSERT(before > 0);
    // Somebody may have announced itself too late for us and too early to see the place free.
    if (!longest_waiting() || !take()) return std::nullopt;
  }
}

bool ConnectGate::take() noexcept {
  const uint32_t max = max_.load();
  uint32_t taken = taken_.load();
  do {
    if (max != 0 && taken >= max) return false;
  } while (!taken_.compare_exchange_weak(taken, taken + 1));
  return true;
}

bool ConnectGate::is_over() const noexcept {
  const uint32_t max = max_.load();
  return max != 0 && taken_.load() > max;
}

std::optional<CoreId> ConnectGate::longest_waiting() const noexcept {
  std::optional<CoreId> found;
  Nanoseconds oldest = never;
  for (size_t core = 0; core < waiting_since_.size(); ++core) {
    const Nanoseconds since = waiting_since_[core].load();
    if (since >= oldest) continue;
    oldest = since;
    found = static_cast<CoreId>(core);
  }
  return found;
}

// The core that is next; its announcement is answered by that.
std::optional<CoreId> ConnectGate::pick() noexcept {
  while (const auto core = longest_waiting())
    if (waiting_since_[*core].exchange(never) != never) return core;
  return std::nullopt;
}

}  // namespace helios
