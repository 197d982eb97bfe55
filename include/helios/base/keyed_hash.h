// A hash of bytes under a secret key, for tables whose keys come from clients: who does not know
// the key cannot choose texts that meet in one place.
//
// SipHash-1-3 (Aumasson and Bernstein; the variant with one and three rounds, as several languages
// use it for their own tables). Pure.
#pragma once

#include <cstdint>

#include "helios/base/bytes.h"

namespace helios {

struct HashKey {
  uint64_t first = 0;
  uint64_t second = 0;
};

[[nodiscard]] uint64_t keyed_hash(const HashKey& key, ByteSpan data) noexcept;

}  // namespace helios
