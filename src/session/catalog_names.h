// The names that may stand before a parenthesis without being a function of somebody's own:
// functions of pg_catalog that leave the session as it is, and words of SQL.
//
// Pure; any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace helios {

enum class CatalogName : uint8_t {
  unknown,
  function,  // Of pg_catalog, in PostgreSQL 15 to 17.
  word,      // Of SQL, or a type that has parameters: not when it stands in quotes.
};

// `name`: in any case.
[[nodiscard]] CatalogName find_catalog_name(std::string_view name) noexcept;

}  // namespace helios
