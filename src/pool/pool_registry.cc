#include "helios/pool/pool_registry.h"

#include <algorithm>

#include "helios/base/assert.h"

namespace helios {

std::shared_ptr<PoolShared> PoolRegistry::shared_of(const std::string& key, const PoolTerms& terms,
                                                    uint64_t epoch) {
  const std::lock_guard lock(mutex_);
  if (pools_.size() >= cleanup_size_) drop_unused();
  Entry& entry = pools_[key];
  std::shared_ptr<PoolShared> current = entry.current.lock();
  // Cores ask for what they have under each configuration: one that nobody asked for did not have
  // it.
  const bool was_removed = epoch > entry.epoch + 1;
  // Nor is it the same pool if it had these terms before, and others between.
  const bool has_begun = epoch >= entry.begin;
  if (current != nullptr && entry.terms == terms && !was_removed && has_begun) {
    entry.epoch = std::max(entry.epoch, epoch);
    return current;
  }
  std::shared_ptr<PoolConnections> connections = entry.connections.lock();
  const auto limit = limit_of(terms.counts_with.empty() ? key : terms.counts_with,
                              terms.limits.connections_max(), epoch);
  if (connections == nullptr) connections = std::make_shared<PoolConnections>(limit);
  ASSERT(connections->limit == limit);
  const auto made = std::make_shared<PoolShared>(terms.limits, ++generations_count_, connections);
  if (current != nullptr && epoch < entry.epoch) return made;
  entry = {made, terms, epoch, epoch, connections};
  return made;
}

std::shared_ptr<SharedLimit> PoolRegistry::limit_of(const std::string& key, uint32_t max,
                                                    uint64_t epoch) {
  Count& count = counts_[key];
  std::shared_ptr<SharedLimit> limit = count.limit.lock();
  if (limit == nullptr) {
    limit = std::make_shared<SharedLimit>(max);
    count = {limit, epoch};
  } else if (epoch >= count.epoch) {
    limit->set_max(max);
    count.epoch = epoch;
  }
  return limit;
}

size_t PoolRegistry::size() const {
  const std::lock_guard lock(mutex_);
  return pools_.size();
}

// Each time the number has doubled, so that an entry costs a constant number of looks.
void PoolRegistry::drop_unused() {
  std::erase_if(pools_, [](const auto& entry) {
    return entry.second.current.expired() && entry.second.connections.expired();
  });
  std::erase_if(counts_, [](const auto& count) { return count.second.limit.expired(); });
  cleanup_size_ = std::max(cleanup_size_min, 2 * pools_.size());
}

}  // namespace helios
