// The form of a log line: `2026-11-23T04:48:01.123Z warning core=1 text`, ended by a newline.
//
// Pure. Text may come from a peer: whatever could end a line or steer a terminal is written as an
// escape, so a peer can neither forge a line nor hide one.
#pragma once

#include <cstdint>
#include <string_view>

#include "helios/base/log.h"

namespace helios {

// With the newline. A longer line is cut and ends in "...".
constexpr size_t log_line_size_max = 1024;

struct LogLineHead {
  int64_t unix_seconds = 0;  // UTC.
  uint32_t milliseconds = 0;
  LogLevel level = LogLevel::info;
  int core = -1;  // -1, outside any core, is written as "core=-".
};

// Writes a whole line to `buffer` and returns its size.
size_t write_log_line(char (&buffer)[log_line_size_max], const LogLineHead& head,
                      std::string_view text) noexcept;

}  // namespace helios
