#include "helios/base/bytes.h"

#include <doctest/doctest.h>

namespace helios {

TEST_CASE("big-endian stores put the most significant byte first") {
  uint8_t bytes[4] = {};
  store_be16(bytes, 0x0102);
  CHECK(bytes[0] == 1);
  CHECK(bytes[1] == 2);
  CHECK(bytes[2] == 0);
  store_be32(bytes, 0xfffefdfc);
  CHECK(bytes[0] == 0xff);
  CHECK(bytes[3] == 0xfc);
}

TEST_CASE("a load gives back what was stored, at an odd address too") {
  uint8_t bytes[8] = {};
  for (const uint32_t value : {0U, 1U, 0x7fU, 0x80U, 0xffffU, 0x80000000U, 0xffffffffU}) {
    store_be32(bytes + 1, value);
    CHECK(load_be32(bytes + 1) == value);
    store_be16(bytes + 3, static_cast<uint16_t>(value));
    CHECK(load_be16(bytes + 3) == static_cast<uint16_t>(value));
  }
}

TEST_CASE("text and bytes are two views of the same memory") {
  const std::string_view text("a\0b", 3);
  const ByteSpan bytes = as_bytes(text);
  CHECK(bytes.size() == 3);
  CHECK(bytes[2] == 'b');
  CHECK(as_text(bytes).data() == text.data());
  CHECK(as_text(bytes) == text);
}

}  // namespace helios
