// Pins: why a backend stays with its client beyond a transaction, and since when.
//
// The session decides (Session::note_pins) and tells its backend (Backend::set_pins), which counts,
// logs and keeps them as long as it is leased. Plain data of one core; nothing here is touched on
// the path of a query as long as nothing is pinned.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "helios/base/clock.h"
#include "helios/base/enum_counts.h"

namespace helios {

// What keeps a backend with its client.
enum class PinReason : uint8_t {
  statement,  // A prepared statement by name.
  setting,    // A parameter, where the pool's session_state says so.
  temporary,  // A temporary table, or something else in pg_temp.
  cursor,     // WITH HOLD.
  lock,       // An advisory lock.
  listening,
  library,  // LOAD.
  slot,     // A temporary replication slot.
  origin,   // A replication origin of the session.
  backup,   // One that runs (pg_backup_start).
  seed,     // Of random().
  dblink,   // A connection of dblink.
};
inline constexpr PinReason last_pin_reason = PinReason::dblink;
[[nodiscard]] const char* to_text(PinReason reason) noexcept;

using PinCounts = EnumCounts<PinReason, last_pin_reason>;

// Some of them.
using PinReasons = uint16_t;
static_assert(PinCounts::size <= 8 * sizeof(PinReasons));
[[nodiscard]] constexpr PinReasons pin_bit(PinReason reason) noexcept {
  return static_cast<PinReasons>(1U << static_cast<uint8_t>(reason));
}

// Calls visit(PinReason) for each of them.
template <typename Visit>
void for_each_reason(PinReasons reasons, Visit visit) {
  for (size_t i = 0; i < PinCounts::size; ++i) {
    const auto reason = static_cast<PinReason>(i);
    if ((reasons & pin_bit(reason)) != 0) visit(reason);
  }
}

// Those of one backend.
class Pins {
 public:
  [[nodiscard]] PinReasons reasons() const noexcept { return reasons_; }
  [[nodiscard]] bool is_empty() const noexcept { return reasons_ == 0; }
  // Those that are not in `reasons` end, the others begin or go on.
  void set(PinReasons reasons, Nanoseconds now) noexcept;
  // Requires: it is one of reasons().
  [[nodiscard]] Nanoseconds age(PinReason reason, Nanoseconds now) const noexcept;
  // Of the one that has lasted longest. Requires: there is one.
  [[nodiscard]] Nanoseconds longest(Nanoseconds now) const noexcept;
  // "temporary table for 12.0 s, advisory lock for 3.00 s".
  [[nodiscard]] std::string text(Nanoseconds now) const;

 private:
  PinReasons reasons_ = 0;
  std::array<Nanoseconds, PinCounts::size> since_{};  // Of those in reasons_.
};

}  // namespace helios
