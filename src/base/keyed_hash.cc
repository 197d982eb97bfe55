#include "helios/base/keyed_hash.h"

#include <bit>
#include <cstring>

namespace helios {
namespace {

static_assert(std::endian::native == std::endian::little);

struct State {
  uint64_t a;
  uint64_t b;
  uint64_t c;
  uint64_t d;

  void round() noexcept {
    a += b;
    b = std::rotl(b, 13) ^ a;
    a = std::rotl(a, 32);
    c += d;
    d = std::rotl(d, 16) ^ c;
    a += d;
    d = std::rotl(d, 21) ^ a;
    c += b;
    b = std::rotl(b, 17) ^ c;
    c = std::rotl(c, 32);
  }
  void add(uint64_t word) noexcept {
    d ^= word;
    round();
    a ^= word;
  }
};

}  // namespace

uint64_t keyed_hash(const HashKey& key, ByteSpan data) noexcept {
  State state{key.first ^ 0x736f6d6570736575, key.second ^ 0x646f72616e646f6d,
              key.first ^ 0x6c7967656e657261, key.second ^ 0x7465646279746573};
  size_t offset = 0;
  for (; offset + 8 <= data.size(); offset += 8) {
    uint64_t word;
    std::memcpy(&word, data.data() + offset, sizeof(word));
    state.add(word);
  }
  uint64_t last = 0;
  if (offset < data.size()) std::memcpy(&last, data.data() + offset, data.size() - offset);
  state.add(last | uint64_t{data.size()} << 56);
  state.c ^= 0xff;
  for (int i = 0; i < 3; ++i) state.round();
  return state.a ^ state.b ^ state.c ^ state.d;
}

}  // namespace helios
