// A plain counter for each value of an enum. One thread's data.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace helios {

// `Enum`: its values are 0 to `last`, without gaps.
template <typename Enum, Enum last>
class EnumCounts {
 public:
  static constexpr size_t size = static_cast<size_t>(last) + 1;

  [[nodiscard]] uint64_t& operator[](Enum value) noexcept {
    return counts_[static_cast<size_t>(value)];
  }
  [[nodiscard]] uint64_t operator[](Enum value) const noexcept {
    return counts_[static_cast<size_t>(value)];
  }
  [[nodiscard]] uint64_t total() const noexcept {
    uint64_t sum = 0;
    for (const uint64_t count : counts_) sum += count;
    return sum;
  }
  void add(const EnumCounts& other) noexcept {
    for (size_t i = 0; i < size; ++i) counts_[i] += other.counts_[i];
  }

 private:
  std::array<uint64_t, size> counts_{};
};

}  // namespace helios
