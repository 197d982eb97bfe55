// Bytes as hexadecimal digits, and back. Small letters only. Pure; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace helios {

inline constexpr std::string_view hex_digits = "0123456789abcdef";

inline void append_hex(std::string& out, std::string_view bytes) {
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    out += hex_digits[byte >> 4];
    out += hex_digits[byte & 15];
  }
}

// Nothing: there is something else in `digits`, or half a byte.
[[nodiscard]] inline std::optional<std::string> from_hex(std::string_view digits) {
  if (digits.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  bytes.reserve(digits.size() / 2);
  for (size_t i = 0; i < digits.size(); i += 2) {
    const size_t high = hex_digits.find(digits[i]);
    const size_t low = hex_digits.find(digits[i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
    bytes += static_cast<char>(high * 16 + low);
  }
  return bytes;
}

}  // namespace helios
