// Writing to a descriptor that may be a pipe which nobody reads.
//
// Linux calls a pipe writable when it has room for a piece of PIPE_BUF bytes, so a write of at most
// that many bytes after a poll does not block (unless another process fills the same pipe in
// between). Any thread.
#pragma once

#include <cstddef>
#include <string_view>

#include "helios/base/clock.h"

namespace helios {

// The largest piece that is written at once (POSIX's PIPE_BUF on Linux).
constexpr size_t write_piece_max = 4096;

enum class WriteOutcome { done, timed_out, failed };

// Writes all of `text` in pieces; waits for room for at most `timeout` in all. What was written
// before a time-out is removed from `text`. `failed`: the descriptor is gone or its reader is; the
// rest cannot be written.
WriteOutcome write_bounded(int fd, std::string_view& text, Nanoseconds timeout) noexcept;

}  // namespace helios
