#include "session/catalog_names.h"

#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <type_traits>

namespace helios {
namespace {

// All of pg_catalog, by a query of PostgreSQL 15:
//   SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
// and what 16 and 17 have added, by the rows of pg_proc in the postgres.bki of 17 (a name that is
// missing here only costs its callers). Without those that change the session (effects_of_function
// in sql_effects.cc), those that run the text of a query (query_to_xml and its like, ts_stat,
// ts_rewrite), and those of triggers and upgrades. What is left of these for a session: the values
// of currval and lastval.
constexpr std::string_view functions[] = {
#include "session/catalog_functions.inc"
};

// Keywords by which no function can be named but in quotes, and some of which that is not true, but
// likely: "set", "operator", and those of joins and patterns.
constexpr std::string_view words[] = {
    "all",
    "and",
    "any",
    "array",
    "as",
    "asymmetric",
    "between",
    "boolean",
    "both",
    "case",
    "cast",
    "character",
    "check",
    "coalesce",
    "collate",
    "dec",
    "decimal",
    "default",
    "distinct",
    "else",
    "except",
    "exists",
    "fetch",
    "float",
    "for",
    "foreign",
    "from",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "inner",
    "int",
    "integer",
    "intersect",
    "into",
    "is",
    "join",
    "json",
    "json_exists",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_table",
    "json_value",
    "lateral",
    "leading",
    "least",
    "limit",
    "merge_action",
    "national",
    "nchar",
    "not",
    "nullif",
    "offset",
    "on",
    "only",
    "operator",
    "or",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "row",
    "select",
    "set",
    "similar",
    "smallint",
    "some",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "treat",
    "trim",
    "union",
    "unique",
    "using",
    "values",
    "variadic",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
};

constexpr size_t functions_count = std::size(functions);
constexpr size_t names_count = functions_count + std::size(words);
constexpr uint32_t index_bits = 13;
constexpr size_t index_size = size_t{1} << index_bits;
static_assert(names_count < index_size / 2, "the index would be full of long chains");

constexpr std::string_view name_at(size_t i) {
  return i < functions_count ? functions[i] : words[i - functions_count];
}

constexpr uint64_t no_case = 0x2020202020202020;

// So many letters from `text` on as a number. (Names have no letters that differ from others in
// this bit only, but for their case.)
template <size_t count>
constexpr uint64_t load(const char* text) {
  static_assert(count <= sizeof(uint64_t));
  uint64_t letters = 0;
  if (std::is_constant_evaluated()) {
    for (size_t i = 0; i < count; ++i)
      letters |= uint64_t{static_cast<uint8_t>(text[i])} << (8 * i);
  } else {
    std::memcpy(&letters, text, count);
  }
  return letters | no_case;
}

// Of the first letters, the last ones and the size.
constexpr size_t place_of(std::string_view name) {
  const char* const text = name.data();
  const size_t size = name.size();
  uint64_t first, last;
  if (size >= 8) {
    first = load<8>(text);
    last = load<8>(text + size - 8);
  } else if (size >= 4) {
    first = load<4>(text);
    last = load<4>(text + size - 4);
  } else if (size > 0) {
    first = load<1>(text);
    last = load<1>(text + size / 2) << 8 ^ load<1>(text + size - 1);
  } else {
    return 0;
  }
  const uint64_t sum = (first * 0x9e3779b97f4a7c15 ^ last) * 0xff51afd7ed558ccd + size;
  return (sum * 0x9e3779b97f4a7c15) >> (64 - index_bits);
}
static_assert(std::endian::native == std::endian::little);

// Of each name its number from 1 on, at its place, or behind it where that is taken.
constexpr std::array<uint16_t, index_size> make_index() {
  std::array<uint16_t, index_size> index{};
  for (size_t i = 0; i < names_count; ++i) {
    size_t place = place_of(name_at(i));
    while (index[place] != 0) place = (place + 1) % index_size;
    index[place] = static_cast<uint16_t>(i + 1);
  }
  return index;
}
constexpr std::array<uint16_t, index_size> name_index = make_index();

// In any case. Requires: of the same size.
bool is_same(std::string_view one, std::string_view other) {
  const char *a = one.data(), *b = other.data();
  size_t left = one.size();
  for (; left >= 8; left -= 8, a += 8, b += 8)
    if (load<8>(a) != load<8>(b)) return false;
  if (one.size() >= 8) return load<8>(a + left - 8) == load<8>(b + left - 8);
  if (left >= 4) return load<4>(a) == load<4>(b) && load<4>(a + left - 4) == load<4>(b + left - 4);
  for (size_t i = 0; i < left; ++i)
    if (load<1>(a + i) != load<1>(b + i)) return false;
  return true;
}

}  // namespace

[[gnu::hot]] CatalogName find_catalog_name(std::string_view name) noexcept {
  for (size_t place = place_of(name); name_index[place] != 0; place = (place + 1) % index_size) {
    const size_t i = name_index[place] - 1U;
    const std::string_view known = name_at(i);
    if (known.size() == name.size() && is_same(name, known))
      return i < functions_count ? CatalogName::function : CatalogName::word;
  }
  return CatalogName::unknown;
}

}  // namespace helios
