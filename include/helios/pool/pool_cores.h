// The cores of a pool: to whom its permits are dealt, and where its sessions go.
//
// Each core computes the same from the pool's key and limits, without asking anyone.
//
// Permits are dealt out over all cores, beginning with one that follows from the key: many small
// pools do not all begin with core 0.
//
// A pool lives on its home cores: one for each home_connections_min connections that it can have,
// at most all cores, counted from the same first core. A session of it goes there after login.
// Connections that are spread thinner than that wait for clients of one core while clients of
// another wait for them, and then travel; two busy connections do not fill a core. Once the home
// core of a small pool holds all its permits, no core sends another a message about it.
//
// One core's data; no errors.
#pragma once

#include <cstdint>
#include <string_view>

#include "helios/pool/pool_spec.h"
#include "helios/runtime/mailbox.h"

namespace helios {

class PoolCores {
 public:
  static constexpr uint32_t home_connections_min = 2;

  // Requires: cores_count > 0.
  PoolCores(std::string_view key, CoreId cores_count) noexcept;

  // How many of `total` (permits, or the minimum) are dealt to this core. Note: of a smaller total
  // no core gets more.
  [[nodiscard]] uint32_t share_of(uint32_t total, CoreId core) const noexcept;

  // The cores in the order in which permits are dealt: home cores come first. Requires: position <
  // cores_count.
  [[nodiscard]] CoreId core_at(CoreId position) const noexcept;
  [[nodiscard]] CoreId position_of(CoreId core) const noexcept;

 private:
  CoreId cores_count_;
  CoreId first_;
};

// How many home cores a pool has. Counts the totals of its node, database and user too: a pool may
// have a limit of its own that it can never reach.
[[nodiscard]] CoreId home_cores_count(const PoolSpec& spec, CoreId cores_count) noexcept;

}  // namespace helios
