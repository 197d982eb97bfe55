// A histogram of latencies: log-linear buckets, constant cost, bounded error.
//
// Each power of two is divided into 2^sub_bits buckets (the small values have a bucket each), and a
// value is answered as the middle of its bucket. Smallest, largest and sum are exact. Values from
// `value_max` on share the last bucket. One thread's data; those of several threads are merged as
// copies, or when the threads have ended.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace helios {

template <unsigned sub_bits>
class LogHistogram {
 public:
  static constexpr uint64_t value_max = 1ULL << 42;  // In nanoseconds: 73 minutes.

  void record(uint64_t value) noexcept {
    ++counts_[index_of(std::min(value, value_max - 1))];
    ++count_;
    sum_ += value;
    min_ = std::min(min_, value);
    max_ = std::max(max_, value);
  }

  void merge(const LogHistogram& other) noexcept {
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    count_ += other.count_;
    sum_ += other.sum_;
    min_ = std::min(min_, other.min_);
    max_ = std::max(max_, other.max_);
  }

  void clear() noexcept { *this = LogHistogram(); }

  [[nodiscard]] uint64_t count() const noexcept { return count_; }
  // The following are 0 when nothing was recorded.
  [[nodiscard]] uint64_t min() const noexcept { return count_ == 0 ? 0 : min_; }
  [[nodiscard]] uint64_t max() const noexcept { return max_; }
  [[nodiscard]] uint64_t mean() const noexcept { return count_ == 0 ? 0 : sum_ / count_; }

  // The smallest value that is not exceeded by `percent` of all (nearest rank), never outside
  // min() and max(). Requires: 0 <= percent <= 100.
  [[nodiscard]] uint64_t percentile(double percent) const noexcept {
    if (count_ == 0) return 0;
    // The subtraction keeps products such as 0.999 * 1000 from rounding up to the next rank.
    const double exact = percent / 100.0 * static_cast<double>(count_) - 1e-6;
    const uint64_t rank = exact <= 0 ? 1 : std::min(static_cast<uint64_t>(exact) + 1, count_);
    uint64_t seen = 0;
    size_t index = 0;
    while (index + 1 < counts_.size() && seen + counts_[index] < rank) seen += counts_[index++];
    return std::clamp(middle_of(index), min_, max_);
  }

 private:
  static constexpr uint64_t sub_count = 1ULL << sub_bits;
  static constexpr unsigned value_bits = 42;
  static constexpr size_t buckets_count = (value_bits - sub_bits + 1) * sub_count;
  static_assert(value_max == 1ULL << value_bits);

  // The bits behind the leading one, down to `sub_bits` of them, are kept; the rest is dropped.
  static constexpr unsigned shift_of(uint64_t value) noexcept {
    const auto width = static_cast<unsigned>(std::bit_width(value));
    return width > sub_bits + 1 ? width - sub_bits - 1 : 0;
  }
  static constexpr size_t index_of(uint64_t value) noexcept {
    const unsigned shift = shift_of(value);
    return static_cast<size_t>(shift * sub_count + (value >> shift));
  }
  static constexpr uint64_t middle_of(size_t index) noexcept {
    if (index < 2 * sub_count) return index;
    const uint64_t shift = index / sub_count - 1;
    const uint64_t lowest = (index - shift * sub_count) << shift;
    return lowest + ((1ULL << shift) - 1) / 2;
  }

  std::array<uint64_t, buckets_count> counts_{};
  uint64_t count_ = 0;
  uint64_t sum_ = 0;
  uint64_t min_ = UINT64_MAX;
  uint64_t max_ = 0;
};

// For measurements: off by at most 0.4 %, 37 KB.
using Histogram = LogHistogram<7>;
// For counters of which there are many: off by at most 7 %, 2.6 KB.
using CoarseHistogram = LogHistogram<3>;

}  // namespace helios
