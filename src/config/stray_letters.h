// Finds letters that TOML allows in strings and comments only, where they stand outside of both.
//
// toml++ 3.3 has undefined behaviour on some of them (an "unreachable" place for most of Latin-1
// behind a key), so it must not see them. Pure.
#pragma once

#include <optional>
#include <string_view>

#include "config/toml_tree.h"

namespace helios {

// The first byte outside of ASCII, control character, or escape of either; nothing when there is
// none.
[[nodiscard]] std::optional<Place> find_stray_letter(std::string_view text) noexcept;

}  // namespace helios
