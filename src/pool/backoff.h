// The pause before the next attempt at something that fails.
#pragma once

#include <algorithm>
#include <cstdint>

#include "helios/base/clock.h"

namespace helios {

// `first`, doubled so often, at most `max`; less a part of up to a quarter that `random` chooses,
// so that those who failed together do not come back together.
[[nodiscard]] inline Nanoseconds backoff(Nanoseconds first, Nanoseconds max, uint32_t doublings,
                                         uint64_t random) noexcept {
  const Nanoseconds longest = std::min(max, first << std::min(doublings, 20U));
  return longest - static_cast<Nanoseconds>(random % (static_cast<uint64_t>(longest) / 4 + 1));
}

}  // namespace helios
