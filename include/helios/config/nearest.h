// The known name that a mistyped one was most likely meant to be. For error messages only.
//
// Pure; any thread may call.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace helios {

// Insertions, deletions, changes and swaps of neighbours that turn `from` into `to` (the restricted
// Damerau-Levenshtein distance).
[[nodiscard]] size_t edit_distance(std::string_view from, std::string_view to);

// The name of `known` that is nearest to `wanted`, the first one when several are; empty when none
// is near (a third of the letters wrong, at least two).
[[nodiscard]] std::string_view nearest_name(std::string_view wanted,
                                            std::span<const std::string_view> known);

// "; did you mean "name"?", or, when none is near, "; known: a, b, c" (nothing when `known` is
// empty).
[[nodiscard]] std::string suggestion(std::string_view wanted,
                                     std::span<const std::string_view> known);

}  // namespace helios
