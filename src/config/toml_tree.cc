#include "config/toml_tree.h"

#include <algorithm>

#include "config/stray_letters.h"

namespace {

// toml++ 3.3 asserts what it has not checked: "[$pool]" aborts the process, and with NDEBUG becomes
// an assumption for the optimiser. So its assertions stay on in this file and throw, and the throw
// becomes a syntax error (see parse_guarded). This is the only throw and the only catch of the
// program.
struct ParserGaveUp {};
// A function, because a bare throw within toml++'s noexcept functions is a warning.
[[noreturn]] void give_up() {
  throw ParserGaveUp();
}

}  // namespace

#undef NDEBUG
#define TOML_ASSERT(condition)   \
  do {                           \
    if (!(condition)) give_up(); \
  } while (false)
// A distribution's flags ask for its shared library, whose assertions are off.
#undef TOML_SHARED_LIB
#undef TOML_HEADER_ONLY
#undef TOML_EXCEPTIONS
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace helios {
namespace {

Place place_of(const toml::source_region& region) noexcept {
  return {region.begin.line, region.begin.column};
}

TomlKind kind_of(const toml::node& node) noexcept {
  switch (node.type()) {
    case toml::node_type::string:
      return TomlKind::text;
    case toml::node_type::integer:
      return TomlKind::whole;
    case toml::node_type::floating_point:
      return TomlKind::real;
    case toml::node_type::boolean:
      return TomlKind::boolean;
    case toml::node_type::array:
      return TomlKind::list;
    case toml::node_type::table:
      return TomlKind::table;
    case toml::node_type::none:
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time:
      return TomlKind::date_or_time;
  }
  return TomlKind::date_or_time;
}

TomlValue scalar_of(const toml::node& node) {
  TomlValue value;
  value.kind = kind_of(node);
  value.place = place_of(node.source());
  if (value.kind == TomlKind::text) value.text = node.ref<std::string>();
  if (value.kind == TomlKind::whole) value.whole = node.ref<int64_t>();
  if (value.kind == TomlKind::boolean) value.boolean = node.ref<bool>();
  return value;
}

TomlValue value_of(const toml::node& node) {
  TomlValue value = scalar_of(node);
  if (const toml::array* list = node.as_array(); list != nullptr)
    for (const toml::node& item : *list) value.items.push_back(scalar_of(item));
  return value;
}

TomlTable table_of(const toml::table& table) {
  TomlTable result;
  result.place = place_of(table.source());
  for (const auto& [key, node] : table)
    result.entries.push_back({std::string(key.str()), place_of(key.source()), value_of(node)});
  return result;
}

TomlSection section_of(const toml::key& key, const toml::node& node) {
  TomlSection section;
  section.name = key.str();
  section.place = place_of(key.source());
  if (const toml::table* table = node.as_table(); table != nullptr) {
    section.form = SectionForm::table;
    section.tables.push_back(table_of(*table));
  } else if (node.is_array_of_tables()) {
    section.form = SectionForm::tables;
    for (const toml::node& item : *node.as_array())
      section.tables.push_back(table_of(*item.as_table()));
  } else {
    section.form = SectionForm::not_a_section;
  }
  return section;
}

// Nothing when the parser gave up without an answer.
std::optional<toml::parse_result> parse_guarded(std::string_view text) {
  try {
    return toml::parse(text);
  } catch (const ParserGaveUp&) {
    return std::nullopt;
  }
}

// The line at which the parser gives up. Requires: it does. It reads from front to back, so it
// gives up on a part of the text exactly when that part reaches the line.
uint32_t line_of_surrender(std::string_view text) {
  std::vector<size_t> line_ends;
  for (size_t i = 0; i < text.size(); ++i)
    if (text[i] == '\n') line_ends.push_back(i + 1);
  const auto gives_up = [&](size_t, size_t end) {
    return !parse_guarded(text.substr(0, end)).has_value();
  };
  const auto first = std::upper_bound(line_ends.begin(), line_ends.end(), size_t{0}, gives_up);
  return static_cast<uint32_t>(first - line_ends.begin()) + 1;
}

}  // namespace

std::string_view to_text(TomlKind kind) noexcept {
  switch (kind) {
    case TomlKind::text:
      return "a string";
    case TomlKind::whole:
      return "a whole number";
    case TomlKind::real:
      return "a number with a fraction";
    case TomlKind::boolean:
      return "true or false";
    case TomlKind::date_or_time:
      return "a date or time";
    case TomlKind::list:
      return "a list";
    case TomlKind::table:
      return "a table";
  }
  return "something else";
}

TomlDocument parse_toml(std::string_view text) {
  TomlDocument document;
  if (const std::optional<Place> place = find_stray_letter(text); place.has_value()) {
    document.error = TomlError{*place, "this letter can stand in a string or comment only"};
    return document;
  }
  const std::optional<toml::parse_result> guarded = parse_guarded(text);
  if (!guarded.has_value()) {
    document.error = TomlError{{line_of_surrender(text), 1}, "this line cannot be understood"};
    return document;
  }
  const toml::parse_result& parsed = *guarded;
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    document.error = TomlError{place_of(error.source()), std::string(error.description())};
    return document;
  }
  for (const auto& [key, node] : parsed.table()) document.sections.push_back(section_of(key, node));
  return document;
}

}  // namespace helios
