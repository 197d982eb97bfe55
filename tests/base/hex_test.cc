#include "helios/base/hex.h"

#include <doctest/doctest.h>

namespace helios {

TEST_CASE("bytes are two digits each, and come back") {
  std::string every;
  for (int byte = 0; byte < 256; ++byte) every += static_cast<char>(byte);
  std::string digits = "x";
  append_hex(digits, every);
  CHECK(digits.size() == 1 + 512);
  CHECK(digits.substr(0, 7) == "x000102");
  CHECK(digits.substr(509) == "feff");
  CHECK(from_hex(digits.substr(1)) == every);
  CHECK(from_hex("") == std::string());
}

TEST_CASE("what is no pair of small digits is refused") {
  for (const std::string_view text : {"0", "0g", "g0", "AB", "0 ", "00f"}) {
    CAPTURE(text);
    CHECK_FALSE(from_hex(text).has_value());
  }
}

}  // namespace helios
