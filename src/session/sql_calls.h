// Which parentheses in a text may be those of a call of a function of somebody's own, whose effects
// nobody knows.
//
// Told from what stands before the parenthesis. In doubt it is a call: that costs a question to
// the server, and nothing else. What is taken for none of these, and may be one: a function with a
// name that pg_catalog has, too, in a schema that the search path puts first; one that is named by
// a keyword ("set", "join"). Pure; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "helios/session/sql_scanner.h"

namespace helios {

// A name with a parenthesis behind it.
struct SqlCall {
  SqlToken name;
  SqlToken schema;       // `end`: there is none.
  bool is_deep = false;  // There is more than a schema and a name.
  SqlToken before;       // What stands before all of it. `end`: nothing.
  bool is_cast = false;  // That is "::".
};

// A function of PostgreSQL's own that leaves the session as it is, or no function at all, whatever
// stands before it.
[[nodiscard]] bool is_of_catalog(const SqlCall& call) noexcept;

// It is no call by what stands before it, or one of a function in `harmless` (names as the server
// keeps them, with their schema or without it, as they are called; "*" at the end for any end).
[[nodiscard]] bool is_no_call(const SqlCall& call, std::span<const std::string> harmless) noexcept;

// Either of them, told by a look back from the parenthesis at text[place]. False: it may be a call,
// or cannot be read from behind. `is_begin`: nothing is missing at the front of the text.
[[nodiscard]] bool is_harmless_parenthesis(std::string_view text, size_t place, bool is_begin,
                                           std::span<const std::string> harmless) noexcept;

// The first eight letters of a word in lower case, as a number.
[[nodiscard]] constexpr uint64_t code_of(std::string_view word) noexcept {
  uint64_t code = 0;
  for (const char c : word.substr(0, 8)) code = code << 8 | (static_cast<uint8_t>(c) | 0x20);
  return code;
}

}  // namespace helios
