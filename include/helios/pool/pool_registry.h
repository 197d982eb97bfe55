// Finds what the cores share of a pool, by the pool's key.
//
// Each core makes a PoolSpec of its own for a pool, at the first login there; those of one key get
// one PoolShared. Made before the cores start and used only when a spec is made, under a mutex: not
// on the path of a query, and not while anybody waits. Any thread.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "helios/pool/pool_spec.h"

namespace helios {

class PoolRegistry {
 public:
  // The same object for as long as anybody has it: while a pool is alive on any core its counts go
  // on, and they are all zero when the last one has forgotten it. Clients choose keys, so what
  // nobody has any more is dropped now and then.
  [[nodiscard]] std::shared_ptr<PoolShared> shared_of(const std::string& key,
                                                      const PoolLimits& limits);
  // Entries, those included that nobody has any more.
  [[nodiscard]] size_t size() const;

 private:
  static constexpr size_t cleanup_size_min = 64;
  void drop_unused();

  mutable std::mutex mutex_;
  std::unordered_map<std::string, std::weak_ptr<PoolShared>> pools_;
  size_t cleanup_size_ = cleanup_size_min;  // With so many entries the next cleanup comes.
};

}  // namespace helios
