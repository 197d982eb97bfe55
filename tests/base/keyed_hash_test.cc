#include "helios/base/keyed_hash.h"

#include <doctest/doctest.h>

#include <set>
#include <string>

namespace helios {

// The vectors that Rust's standard library tests its own with: key 00 to 0f, text 00, 01 and so on.
TEST_CASE("SipHash-1-3") {
  constexpr HashKey key{0x0706050403020100, 0x0f0e0d0c0b0a0908};
  uint8_t data[16];
  for (uint8_t i = 0; i < sizeof(data); ++i) data[i] = i;
  CHECK(keyed_hash(key, {}) == 0xabac0158050fc4dc);
  CHECK(keyed_hash(key, ByteSpan(data, 1)) == 0xc9f49bf37d57ca93);
}

TEST_CASE("key and every byte count") {
  std::set<uint64_t> hashes;
  for (size_t size = 0; size < 40; ++size) {
    std::string text(size, 'x');
    hashes.insert(keyed_hash({1, 2}, as_bytes(text)));
    hashes.insert(keyed_hash({2, 2}, as_bytes(text)));
    hashes.insert(keyed_hash({1, 1}, as_bytes(text)));
    for (char& letter : text) {
      letter = 'y';
      hashes.insert(keyed_hash({1, 2}, as_bytes(text)));
      letter = 'x';
    }
  }
  CHECK(hashes.size() == 40 * 3 + 40 * 39 / 2);
}

}  // namespace helios
