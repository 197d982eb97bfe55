// Reads the keys of one table: type, unit, range and environment of each value, and which keys are
// unknown.
//
// Each reading function answers nothing when the key is absent or wrong; what is wrong is then told
// to the Findings. finish() reports the keys that no reading function has asked for.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/findings.h"
#include "config/toml_tree.h"
#include "helios/base/clock.h"
#include "helios/config/environment.h"

namespace helios {

struct NumberRange {
  int64_t min = 0;
  int64_t max = 0;
};

struct DurationRange {
  Nanoseconds min = 0;
  Nanoseconds max = 0;
  bool zero_is_off = false;  // 0 is allowed as well, below `min`.
};

class Section {
 public:
  // The table, findings and lookup must live longer. `name` is a literal.
  Section(std::string_view name, const TomlTable& table, Findings& findings,
          const EnvironmentLookup& lookup)
      : name_(name), table_(table), findings_(findings), lookup_(lookup) {}

  // One to `size_max` bytes without zero bytes.
  [[nodiscard]] std::optional<std::string> text(std::string_view key, size_t size_max);
  // The same, but it may be empty.
  [[nodiscard]] std::optional<std::string> text_or_nothing(std::string_view key, size_t size_max);
  // As text(); notes whether the secret stands in the file.
  [[nodiscard]] std::optional<std::string> secret(std::string_view key, size_t size_max);
  // From `count_min` to `count_max` strings. Places are those of the items.
  struct LocatedText {
    std::string text;
    Place place;
  };
  [[nodiscard]] std::optional<std::vector<LocatedText>> texts(std::string_view key,
                                                              size_t count_max,
                                                              size_t count_min = 1);
  // Requires: 0 <= range.min, range.max <= UINT32_MAX.
  [[nodiscard]] std::optional<uint32_t> number(std::string_view key, NumberRange range);
  [[nodiscard]] std::optional<uint32_t> power_of_two(std::string_view key, NumberRange range);
  [[nodiscard]] std::optional<uint32_t> power_of_two_size(std::string_view key, NumberRange range);
  // A number of bytes. Requires: 0 <= range.min.
  [[nodiscard]] std::optional<uint64_t> byte_count(std::string_view key, NumberRange range);
  [[nodiscard]] std::optional<bool> flag(std::string_view key);
  [[nodiscard]] std::optional<Nanoseconds> duration(std::string_view key, DurationRange range);
  // The index of the value in `names`.
  [[nodiscard]] std::optional<size_t> choice(std::string_view key,
                                             std::span<const std::string_view> names);

  void finish();

  // Whether the key stands there, right or wrong.
  [[nodiscard]] bool has(std::string_view key) const noexcept { return find(key) != nullptr; }
  [[nodiscard]] bool has_literal_secret() const noexcept { return has_literal_secret_; }
  [[nodiscard]] Place place() const noexcept { return table_.place; }
  // Of the key's value, or of the table when the key is absent.
  [[nodiscard]] Place place_of(std::string_view key) const noexcept;

  void error(std::string_view key, std::string_view sentence) {
    error_at(place_of(key), key, sentence);
  }
  void error_at(Place place, std::string_view key, std::string_view sentence);
  void warning(std::string_view key, std::string_view sentence);

 private:
  [[nodiscard]] const TomlEntry* find(std::string_view key) const noexcept;
  // The entry, remembering that the key is known.
  [[nodiscard]] const TomlEntry* look_up(std::string_view key);
  [[nodiscard]] std::optional<Expanded> expand(std::string_view key, const TomlValue& value);
  [[nodiscard]] std::optional<Expanded> expanded_text(std::string_view key, size_t size_min,
                                                      size_t size_max);
  // The text behind `value` when it is one ${...}; an error naming `wanted` otherwise.
  [[nodiscard]] std::optional<std::string> variable(std::string_view key, const TomlValue& value,
                                                    std::string_view wanted);
  [[nodiscard]] std::optional<int64_t> whole(std::string_view key);
  [[nodiscard]] std::optional<int64_t> size(std::string_view key);
  [[nodiscard]] std::string full_name(std::string_view key) const;
  void wrong_kind(std::string_view key, const TomlValue& value, std::string_view wanted);

  std::string_view name_;
  const TomlTable& table_;
  Findings& findings_;
  const EnvironmentLookup& lookup_;
  std::vector<std::string_view> known_;
  bool has_literal_secret_ = false;
};

}  // namespace helios
