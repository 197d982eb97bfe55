// A queue with a capacity that is chosen once: no allocation afterwards.
#pragma once

#include <cstdint>
#include <memory>

#include "helios/base/assert.h"

namespace helios::bench {

template <typename T>
class FixedQueue {
 public:
  explicit FixedQueue(uint32_t capacity)
      : items_(std::make_unique<T[]>(capacity)), capacity_(capacity) {}

  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] bool full() const noexcept { return size_ == capacity_; }

  // Requires: not full.
  T& push(const T& item) noexcept {
    ASSERT(!full());
    const uint32_t index = head_ + size_++;
    return items_[index < capacity_ ? index : index - capacity_] = item;
  }
  // Requires: not empty.
  [[nodiscard]] T& front() noexcept {
    ASSERT(!empty());
    return items_[head_];
  }
  void pop() noexcept {
    ASSERT(!empty());
    if (++head_ == capacity_) head_ = 0;
    --size_;
  }
  void clear() noexcept { size_ = 0; }

 private:
  std::unique_ptr<T[]> items_;
  uint32_t capacity_;
  uint32_t head_ = 0;
  uint32_t size_ = 0;
};

}  // namespace helios::bench
