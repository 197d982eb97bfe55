// The process's limit of open descriptors. At start, by the main thread.
#pragma once

#include <cstdint>

#include "helios/base/result.h"

namespace helios {

// Raises RLIMIT_NOFILE's soft limit to `needed` if it is lower. Returns the limit that now holds.
// Error: the hard limit is too low (the soft limit is then raised to it); the sentence says what is
// needed, what there is, and how to raise it.
Result<uint64_t> raise_descriptor_limit(uint64_t needed);

}  // namespace helios
