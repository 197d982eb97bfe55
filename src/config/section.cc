#include "config/section.h"

#include <algorithm>
#include <utility>

#include "config/units.h"
#include "helios/base/assert.h"
#include "helios/config/nearest.h"

namespace helios {
namespace {

// A value in an error message: quoted, shortened, without control characters.
std::string quoted(std::string_view text) {
  constexpr size_t shown_size_max = 60;
  std::string result = "\"";
  for (const char letter : text.substr(0, shown_size_max)) {
    const bool is_control = (letter >= 0 && letter < ' ') || letter == '\x7f';
    result.push_back(is_control ? '?' : letter);
  }
  return result.append(text.size() > shown_size_max ? "...\"" : "\"");
}

std::string listed(std::span<const std::string_view> names) {
  std::string result;
  for (const std::string_view name : names) {
    if (!result.empty()) result += name == names.back() ? " or " : ", ";
    result += quoted(name);
  }
  return result;
}

bool is_power_of_two(uint32_t number) noexcept {
  return number != 0 && (number & (number - 1)) == 0;
}

}  // namespace

std::optional<std::string> Section::text(std::string_view key, size_t size_max) {
  std::optional<Expanded> expanded = expanded_text(key, 1, size_max);
  if (!expanded.has_value()) return std::nullopt;
  return std::move(expanded->text);
}

std::optional<std::string> Section::text_or_nothing(std::string_view key, size_t size_max) {
  std::optional<Expanded> expanded = expanded_text(key, 0, size_max);
  if (!expanded.has_value()) return std::nullopt;
  return std::move(expanded->text);
}

std::optional<std::string> Section::secret(std::string_view key, size_t size_max) {
  std::optional<Expanded> expanded = expanded_text(key, 1, size_max);
  if (!expanded.has_value()) return std::nullopt;
  if (!expanded->has_variable) has_literal_secret_ = true;
  return std::move(expanded->text);
}

std::optional<std::vector<Section::LocatedText>> Section::texts(std::string_view key,
                                                                size_t count_max,
                                                                size_t count_min) {
  const TomlEntry* entry = look_up(key);
  if (entry == nullptr) return std::nullopt;
  if (entry->value.kind != TomlKind::list) {
    wrong_kind(key, entry->value, "a list of strings");
    return std::nullopt;
  }
  const size_t count = entry->value.items.size();
  if (count < count_min || count > count_max) {
    error(key, std::to_string(count) + " entries are out of range: " + std::to_string(count_min) +
                   " to " + std::to_string(count_max));
    return std::nullopt;
  }
  std::vector<LocatedText> result;
  for (const TomlValue& item : entry->value.items) {
    std::optional<Expanded> expanded = expand(key, item);
    if (expanded.has_value()) result.push_back({std::move(expanded->text), item.place});
  }
  return result;
}

std::optional<uint32_t> Section::number(std::string_view key, NumberRange range) {
  ASSERT(range.min >= 0);
  ASSERT(range.max <= UINT32_MAX);
  const std::optional<int64_t> value = whole(key);
  if (!value.has_value()) return std::nullopt;
  if (*value >= range.min && *value <= range.max) return static_cast<uint32_t>(*value);
  error(key, std::to_string(*value) + " is out of range: " + std::to_string(range.min) + " to " +
                 std::to_string(range.max));
  return std::nullopt;
}

std::optional<uint32_t> Section::power_of_two(std::string_view key, NumberRange range) {
  const std::optional<uint32_t> value = number(key, range);
  if (!value.has_value() || is_power_of_two(*value)) return value;
  error(key, std::to_string(*value) + " is not a power of two (" + std::to_string(range.min) +
                 " to " + std::to_string(range.max) + ")");
  return std::nullopt;
}

std::optional<uint32_t> Section::power_of_two_size(std::string_view key, NumberRange range) {
  ASSERT(range.min >= 0);
  ASSERT(range.max <= UINT32_MAX);
  const std::optional<int64_t> value = size(key);
  if (!value.has_value()) return std::nullopt;
  const bool is_inside = *value >= range.min && *value <= range.max;
  if (is_inside && is_power_of_two(static_cast<uint32_t>(*value)))
    return static_cast<uint32_t>(*value);
  error(key, std::to_string(*value) + " bytes are " +
                 (is_inside ? "not a power of two (" : "out of range: a power of two, ") +
                 format_size(range.min) + " to " + format_size(range.max) + (is_inside ? ")" : ""));
  return std::nullopt;
}

std::optional<uint64_t> Section::byte_count(std::string_view key, NumberRange range) {
  ASSERT(range.min >= 0);
  const std::optional<int64_t> value = size(key);
  if (!value.has_value()) return std::nullopt;
  if (*value >= range.min && *value <= range.max) return static_cast<uint64_t>(*value);
  error(key, std::to_string(*value) + " bytes are out of range: " + format_size(range.min) +
                 " to " + format_size(range.max));
  return std::nullopt;
}

std::optional<bool> Section::flag(std::string_view key) {
  const TomlEntry* entry = look_up(key);
  if (entry == nullptr) return std::nullopt;
  if (entry->value.kind == TomlKind::boolean) return entry->value.boolean;
  const std::optional<std::string> text = variable(key, entry->value, "true or false");
  if (!text.has_value()) return std::nullopt;
  if (*text == "true" || *text == "false") return *text == "true";
  error(key, quoted(*text) + " (from the environment) is not true or false");
  return std::nullopt;
}

std::optional<Nanoseconds> Section::duration(std::string_view key, DurationRange range) {
  const TomlEntry* entry = look_up(key);
  if (entry == nullptr) return std::nullopt;
  if (entry->value.kind != TomlKind::text) {
    wrong_kind(key, entry->value, "a duration with its unit in quotes, such as \"30s\"");
    return std::nullopt;
  }
  const std::optional<Expanded> expanded = expand(key, entry->value);
  if (!expanded.has_value()) return std::nullopt;
  const std::optional<Nanoseconds> value = parse_duration(expanded->text);
  if (!value.has_value()) {
    error(key, quoted(expanded->text) +
                   " is not a duration: write a whole number and ms, s, m or h, such as \"30s\"");
    return std::nullopt;
  }
  if (*value >= range.min && *value <= range.max) return value;
  if (*value == 0 && range.zero_is_off) return value;
  error(key, quoted(expanded->text) +
                 " is out of range: " + (range.zero_is_off ? "0s (off), or " : "") +
                 format_duration(range.min) + " to " + format_duration(range.max));
  return std::nullopt;
}

std::optional<size_t> Section::choice(std::string_view key,
                                      std::span<const std::string_view> names) {
  const TomlEntry* entry = look_up(key);
  if (entry == nullptr) return std::nullopt;
  const std::optional<Expanded> value = expand(key, entry->value);
  if (!value.has_value()) return std::nullopt;
  const auto found = std::find(names.begin(), names.end(), value->text);
  if (found != names.end()) return static_cast<size_t>(found - names.begin());
  const std::string_view nearest = nearest_name(value->text, names);
  error(key, quoted(value->text) + " is not " + listed(names) +
                 (nearest.empty() ? "" : "; did you mean " + quoted(nearest) + "?"));
  return std::nullopt;
}

void Section::finish() {
  for (const TomlEntry& entry : table_.entries) {
    if (std::find(known_.begin(), known_.end(), entry.key) != known_.end()) continue;
    findings_.error(entry.place, full_name(entry.key),
                    "unknown key" + suggestion(entry.key, known_));
  }
}

Place Section::place_of(std::string_view key) const noexcept {
  const TomlEntry* entry = find(key);
  return entry == nullptr ? table_.place : entry->value.place;
}

void Section::error_at(Place place, std::string_view key, std::string_view sentence) {
  findings_.error(place, full_name(key), sentence);
}

void Section::warning(std::string_view key, std::string_view sentence) {
  findings_.warning(place_of(key), full_name(key), sentence);
}

const TomlEntry* Section::find(std::string_view key) const noexcept {
  for (const TomlEntry& entry : table_.entries)
    if (entry.key == key) return &entry;
  return nullptr;
}

const TomlEntry* Section::look_up(std::string_view key) {
  known_.push_back(key);
  return find(key);
}

std::optional<Expanded> Section::expand(std::string_view key, const TomlValue& value) {
  if (value.kind != TomlKind::text) {
    wrong_kind(key, value, "a string");
    return std::nullopt;
  }
  Result<Expanded> expanded = expand_environment(value.text, lookup_);
  if (expanded.ok()) return std::move(expanded).value();
  error_at(value.place, key, expanded.error());
  return std::nullopt;
}

std::optional<Expanded> Section::expanded_text(std::string_view key, size_t size_min,
                                               size_t size_max) {
  const TomlEntry* entry = look_up(key);
  if (entry == nullptr) return std::nullopt;
  std::optional<Expanded> expanded = expand(key, entry->value);
  if (!expanded.has_value()) return std::nullopt;
  const std::string& text = expanded->text;
  if (text.size() < size_min || text.size() > size_max) {
    error(key, std::to_string(text.size()) + " bytes are out of range: " +
                   std::to_string(size_min) + " to " + std::to_string(size_max));
    return std::nullopt;
  }
  if (text.find('\0') != std::string::npos) {
    error(key, "a zero byte cannot be sent to PostgreSQL");
    return std::nullopt;
  }
  return expanded;
}

std::optional<std::string> Section::variable(std::string_view key, const TomlValue& value,
                                             std::string_view wanted) {
  if (value.kind != TomlKind::text) {
    wrong_kind(key, value, wanted);
    return std::nullopt;
  }
  std::optional<Expanded> expanded = expand(key, value);
  if (!expanded.has_value()) return std::nullopt;
  if (expanded->is_one_variable) return std::move(expanded->text);
  error(key, "must be " + std::string(wanted) +
                 " without quotes, not a string (only one whole \"${NAME}\" may stand for it)");
  return std::nullopt;
}

std::optional<int64_t> Section::whole(std::string_view key) {
  const TomlEntry* entry = look_up(key);
  if (entry == nullptr) return std::nullopt;
  if (entry->value.kind == TomlKind::whole) return entry->value.whole;
  const std::optional<std::string> text = variable(key, entry->value, "a whole number");
  if (!text.has_value()) return std::nullopt;
  const std::optional<int64_t> number = parse_whole(*text);
  if (!number.has_value())
    error(key, quoted(*text) + " (from the environment) is not a whole number");
  return number;
}

std::optional<int64_t> Section::size(std::string_view key) {
  const TomlEntry* entry = look_up(key);
  if (entry == nullptr) return std::nullopt;
  if (entry->value.kind == TomlKind::whole) return entry->value.whole;
  if (entry->value.kind != TomlKind::text) {
    wrong_kind(key, entry->value, "a size such as \"64KiB\"");
    return std::nullopt;
  }
  const std::optional<Expanded> expanded = expand(key, entry->value);
  if (!expanded.has_value()) return std::nullopt;
  const std::optional<int64_t> number = parse_size(expanded->text);
  if (!number.has_value()) {
    error(key, quoted(expanded->text) +
                   " is not a size: write a whole number of bytes, or one with KiB, MiB or GiB, "
                   "such as \"64KiB\"");
  }
  return number;
}

std::string Section::full_name(std::string_view key) const {
  return std::string(name_).append(".").append(key);
}

void Section::wrong_kind(std::string_view key, const TomlValue& value, std::string_view wanted) {
  error_at(value.place, key,
           "must be " + std::string(wanted) + ", not " + std::string(to_text(value.kind)));
}

}  // namespace helios
