#include "config/toml_tree.h"

// The flags of a distribution's package ask for its shared library, which is built with exceptions;
// compiled into this one file there is nothing to link and nothing to catch.
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
  const toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    document.error = TomlError{place_of(error.source()), std::string(error.description())};
    return document;
  }
  for (const auto& [key, node] : parsed.table()) document.sections.push_back(section_of(key, node));
  return document;
}

}  // namespace helios
