#include "helios/pool/pool_cores.h"

#include <algorithm>
#include <functional>

#include "helios/base/assert.h"

namespace helios {

PoolCores::PoolCores(std::string_view key, CoreId cores_count) noexcept
    : cores_count_(cores_count),
      first_(static_cast<CoreId>(std::hash<std::string_view>{}(key) % cores_count)) {}

uint32_t PoolCores::share_of(uint32_t total, CoreId core) const noexcept {
  return total / cores_count_ + (position_of(core) < total % cores_count_ ? 1 : 0);
}

CoreId PoolCores::core_at(CoreId position) const noexcept {
  ASSERT(position < cores_count_);
  return static_cast<CoreId>((uint32_t{first_} + position) % cores_count_);
}

CoreId PoolCores::position_of(CoreId core) const noexcept {
  ASSERT(core < cores_count_);
  return static_cast<CoreId>((uint32_t{core} + cores_count_ - first_) % cores_count_);
}

CoreId home_cores_count(const PoolSpec& spec, CoreId cores_count) noexcept {
  uint32_t connections_max = spec.limits.max_connections;
  for (const SharedLimit* total :
       {&spec.node->limit, spec.database_limit.get(), spec.user_limit.get()})
    if (total != nullptr && total->max() > 0)
      connections_max = std::min(connections_max, total->max());
  const uint32_t wanted = connections_max / PoolCores::home_connections_min +
                          (connections_max % PoolCores::home_connections_min > 0 ? 1 : 0);
  return static_cast<CoreId>(std::clamp<uint32_t>(wanted, 1, cores_count));
}

}  // namespace helios
