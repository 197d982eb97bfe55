// Durations ("30s") and sizes ("64KiB"): text to number and back. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "helios/base/clock.h"

namespace helios {

// A whole number with the unit ms, s, m or h, without spaces. Nothing when it has another form; a
// number that does not fit becomes the largest one, so that the range check names the range.
[[nodiscard]] std::optional<Nanoseconds> parse_duration(std::string_view text) noexcept;

// A whole number of bytes, alone or with the unit KiB, MiB or GiB, without spaces. As above.
[[nodiscard]] std::optional<int64_t> parse_size(std::string_view text) noexcept;

// A whole number, perhaps with a minus sign. As above.
[[nodiscard]] std::optional<int64_t> parse_whole(std::string_view text) noexcept;

// The form that the parsers read, in the largest unit that needs no fraction: "90s", "2m", "16KiB".
[[nodiscard]] std::string format_duration(Nanoseconds duration);
[[nodiscard]] std::string format_size(int64_t size);

}  // namespace helios
