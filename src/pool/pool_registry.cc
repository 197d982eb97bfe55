#include "helios/pool/pool_registry.h"

#include <algorithm>

namespace helios {

std::shared_ptr<PoolShared> PoolRegistry::shared_of(const std::string& key,
                                                    const PoolLimits& limits) {
  const std::lock_guard lock(mutex_);
  if (pools_.size() >= cleanup_size_) drop_unused();
  std::weak_ptr<PoolShared>& entry = pools_[key];
  std::shared_ptr<PoolShared> shared = entry.lock();
  if (shared == nullptr) entry = shared = std::make_shared<PoolShared>(limits);
  return shared;
}

size_t PoolRegistry::size() const {
  const std::lock_guard lock(mutex_);
  return pools_.size();
}

// Each time the number has doubled, so that an entry costs a constant number of looks.
void PoolRegistry::drop_unused() {
  std::erase_if(pools_, [](const auto& entry) { return entry.second.expired(); });
  cleanup_size_ = std::max(cleanup_size_min, 2 * pools_.size());
}

}  // namespace helios
