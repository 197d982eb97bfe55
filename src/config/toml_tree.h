// TOML text to a plain tree, as deep as our file is: sections, their keys, lists of values.
//
// toml_tree.cc is the only file that includes toml++ (a heavy header, used header-only, so there is
// nothing to link) and the only one with exceptions. Everything else sees these structs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace helios {

// Where something stands in the file; both count from 1.
struct Place {
  uint32_t line = 1;
  uint32_t column = 1;
};

enum class TomlKind : uint8_t { text, whole, real, boolean, date_or_time, list, table };

// "a string", "a whole number", ...: for "not ...".
[[nodiscard]] std::string_view to_text(TomlKind kind) noexcept;

// Only the member that `kind` names is set. Lists and tables inside a list stay empty: no key of
// ours has them.
struct TomlValue {
  TomlKind kind = TomlKind::text;
  Place place;
  std::string text;
  int64_t whole = 0;
  bool boolean = false;
  std::vector<TomlValue> items;
};

struct TomlEntry {
  std::string key;
  Place place;  // Of the key.
  TomlValue value;
};

// One [name] or one of the [[name]]. Entries in the order of the keys.
struct TomlTable {
  Place place;
  std::vector<TomlEntry> entries;
};

enum class SectionForm : uint8_t {
  table,          // [name]
  tables,         // [[name]], each in `tables`
  not_a_section,  // name = something
};

struct TomlSection {
  std::string name;
  Place place;
  SectionForm form = SectionForm::table;
  std::vector<TomlTable> tables;
};

struct TomlError {
  Place place;
  std::string text;
};

struct TomlDocument {
  std::vector<TomlSection> sections;
  std::optional<TomlError> error;  // When set there are no sections.
};

[[nodiscard]] TomlDocument parse_toml(std::string_view text);

}  // namespace helios
