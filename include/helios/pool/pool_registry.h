// Finds what the cores share of a pool, by the pool's key, and tells its generations apart.
//
// Each core makes a PoolSpec of its own for a pool, at the first login there; those of one key and
// the same terms get one PoolShared. Made before the cores start, it outlives every configuration.
// Used only when a spec is made, under a mutex: not on the path of a query, and not while anybody
// waits. Any thread.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "helios/pool/pool_spec.h"

namespace helios {

class PoolRegistry {
 public:
  // The same object for the same terms, for as long as anybody has it: while a pool is alive on any
  // core its counts go on, and they are all zero when the last one has forgotten it. Other terms of
  // a later epoch, or an epoch between in which the pool was not there, begin the pool's next
  // generation, which has the new limit on connections, old ones included. A core that still lives
  // in an earlier epoch than that one began in gets one for itself alone, whatever its terms. Pools
  // that count with each other (PoolTerms::counts_with) have one limit, with the newest's maximum.
  // Clients choose keys, so what nobody has any more is dropped now and then.
  [[nodiscard]] std::shared_ptr<PoolShared> shared_of(const std::string& key,
                                                      const PoolTerms& terms, uint64_t epoch = 0);
  // Entries, those included that nobody has any more.
  [[nodiscard]] size_t size() const;

 private:
  struct Entry {
    std::weak_ptr<PoolShared> current;
    PoolTerms terms;     // Of `current`.
    uint64_t begin = 0;  // The epoch that it was made in.
    uint64_t epoch = 0;  // The last one that somebody asked for it in.
    // May outlive `current`: an older generation may have connections that still end.
    std::weak_ptr<PoolConnections> connections;
  };
  // Of all pools that count with one. May outlive them, too.
  struct Count {
    std::weak_ptr<SharedLimit> limit;
    uint64_t epoch = 0;  // Of which its maximum is.
  };
  static constexpr size_t cleanup_size_min = 64;
  [[nodiscard]] std::shared_ptr<SharedLimit> limit_of(const std::string& key, uint32_t max,
                                                      uint64_t epoch);
  void drop_unused();

  mutable std::mutex mutex_;
  std::unordered_map<std::string, Entry> pools_;
  std::unordered_map<std::string, Count> counts_;
  uint64_t generations_count_ = 0;
  size_t cleanup_size_ = cleanup_size_min;  // With so many entries the next cleanup comes.
};

}  // namespace helios
