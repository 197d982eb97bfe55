// Byte spans and big-endian loads and stores (the byte order of the PostgreSQL protocol).
//
// Pure functions on memory that the caller owns; any thread may call them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace helios {

using ByteSpan = std::span<const uint8_t>;
using MutableByteSpan = std::span<uint8_t>;

[[nodiscard]] inline ByteSpan as_bytes(std::string_view text) noexcept {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

[[nodiscard]] inline std::string_view as_text(ByteSpan bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Requires: two readable bytes at `from`.
[[nodiscard]] inline uint16_t load_be16(const uint8_t* from) noexcept {
  return static_cast<uint16_t>((from[0] << 8) | from[1]);
}

// Requires: four readable bytes at `from`.
[[nodiscard]] inline uint32_t load_be32(const uint8_t* from) noexcept {
  uint32_t value;
  std::memcpy(&value, from, sizeof(value));
  return __builtin_bswap32(value);
}

// Requires: two writable bytes at `to`.
inline void store_be16(uint8_t* to, uint16_t value) noexcept {
  to[0] = static_cast<uint8_t>(value >> 8);
  to[1] = static_cast<uint8_t>(value);
}

// Requires: four writable bytes at `to`.
inline void store_be32(uint8_t* to, uint32_t value) noexcept {
  value = __builtin_bswap32(value);
  std::memcpy(to, &value, sizeof(value));
}

}  // namespace helios
