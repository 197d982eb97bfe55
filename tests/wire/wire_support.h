// What the tests of wire formats share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/bytes.h"

namespace helios::test {

// A copy on the heap that ends where the bytes end, so that the address sanitizer sees each byte
// read past them.
class ExactBytes {
 public:
  explicit ExactBytes(ByteSpan bytes) : data_(new uint8_t[bytes.size()]), size_(bytes.size()) {
    std::copy(bytes.begin(), bytes.end(), data_.get());
  }
  explicit ExactBytes(std::string_view text) : ExactBytes(as_bytes(text)) {}

  [[nodiscard]] ByteSpan span() const { return {data_.get(), size_}; }

 private:
  std::unique_ptr<uint8_t[]> data_;
  size_t size_;
};

inline std::string string_of(ByteSpan bytes) {
  return std::string(as_text(bytes));
}

// A tagged message.
inline std::string message(char tag, std::string_view body) {
  uint8_t length[4];
  store_be32(length, static_cast<uint32_t>(body.size() + 4));
  return tag + string_of(length) + std::string(body);
}

// Inputs for parsers: noise, and damaged copies of a legal input. The same for the same seed.
class InputMaker {
 public:
  explicit InputMaker(uint64_t seed) : random_(seed) {}

  size_t below(size_t bound) { return static_cast<size_t>(random_() % bound); }

  std::string noise(size_t size_max) {
    std::string bytes(below(size_max + 1), '\0');
    // Zero bytes often, because they end texts.
    for (char& c : bytes) c = below(4) == 0 ? '\0' : static_cast<char>(random_());
    return bytes;
  }

  std::string damaged(std::string_view legal) {
    std::string bytes(legal);
    for (size_t i = 1 + below(4); i > 0 && !bytes.empty(); --i) {
      const size_t at = below(bytes.size());
      switch (below(4)) {
        case 0:
          bytes[at] = static_cast<char>(random_());
          break;
        case 1:
          bytes.resize(at);
          break;
        case 2:
          bytes.insert(at, noise(8));
          break;
        default:
          bytes.erase(at, 1 + below(4));
          break;
      }
    }
    return bytes;
  }

  // One or the other.
  std::string next(std::string_view legal) { return below(4) == 0 ? noise(64) : damaged(legal); }

 private:
  std::mt19937_64 random_;
};

inline constexpr int random_inputs_count = 100'000;

}  // namespace helios::test
