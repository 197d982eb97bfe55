#include "helios/pool/pins.h"

#include <algorithm>

#include "helios/base/assert.h"
#include "helios/pool/statistics.h"

namespace helios {

const char* to_text(PinReason reason) noexcept {
  switch (reason) {
    case PinReason::statement:
      return "prepared statement";
    case PinReason::setting:
      return "parameter";
    case PinReason::temporary:
      return "temporary table";
    case PinReason::cursor:
      return "cursor";
    case PinReason::lock:
      return "advisory lock";
    case PinReason::listening:
      return "LISTEN";
    case PinReason::library:
      return "LOAD";
    case PinReason::slot:
      return "temporary replication slot";
    case PinReason::origin:
      return "replication origin";
    case PinReason::backup:
      return "backup";
    case PinReason::seed:
      return "seed of random()";
    case PinReason::dblink:
      return "dblink";
  }
  UNREACHABLE("pin reason");
}

void Pins::set(PinReasons reasons, Nanoseconds now) noexcept {
  for_each_reason(static_cast<PinReasons>(reasons & ~reasons_),
                  [&](PinReason reason) { since_[static_cast<size_t>(reason)] = now; });
  reasons_ = reasons;
}

Nanoseconds Pins::age(PinReason reason, Nanoseconds now) const noexcept {
  ASSERT((reasons_ & pin_bit(reason)) != 0);
  return now - since_[static_cast<size_t>(reason)];
}

Nanoseconds Pins::longest(Nanoseconds now) const noexcept {
  ASSERT(reasons_ != 0);
  Nanoseconds longest = 0;
  for_each_reason(reasons_,
                  [&](PinReason reason) { longest = std::max(longest, age(reason, now)); });
  return longest;
}

std::string Pins::text(Nanoseconds now) const {
  std::string text;
  for_each_reason(reasons_, [&](PinReason reason) {
    text += (text.empty() ? "" : ", ") + std::string(to_text(reason)) + " for " +
            duration_text(age(reason, now));
  });
  return text;
}

}  // namespace helios
