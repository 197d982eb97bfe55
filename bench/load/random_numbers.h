// Random numbers for what clients ask and when: cheap, the same for the same seed, not for secrets.
//
// SplitMix64. One thread's data.
#pragma once

#include <cmath>
#include <cstdint>

namespace helios::bench {

class RandomNumbers {
 public:
  explicit RandomNumbers(uint64_t seed) noexcept : state_(seed) {}

  uint64_t next() noexcept {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t value = state_;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
    value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
    return value ^ (value >> 31);
  }

  // A number below `limit`, each equally likely. Requires: limit > 0.
  uint64_t below(uint64_t limit) noexcept {
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>((static_cast<Wide>(next()) * limit) >> 64);
  }

  // From `low` to `high`, both included. Requires: low <= high.
  int64_t between(int64_t low, int64_t high) noexcept {
    const uint64_t span = static_cast<uint64_t>(high) - static_cast<uint64_t>(low) + 1;
    const uint64_t offset = span == 0 ? next() : below(span);  // 0: all 64-bit numbers.
    return static_cast<int64_t>(static_cast<uint64_t>(low) + offset);
  }

  // The distance to the next of events that come independently of each other, so far apart on
  // average.
  double exponential(double mean) noexcept {
    constexpr double unit = 0x1p-53;
    const double uniform = static_cast<double>((next() >> 11) + 1) * unit;  // In (0, 1].
    return -std::log(uniform) * mean;
  }

 private:
  uint64_t state_;
};

}  // namespace helios::bench
