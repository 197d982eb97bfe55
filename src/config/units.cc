#include "config/units.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace helios {
namespace {

struct Unit {
  std::string_view name;
  int64_t factor;
};

// Largest first: formatting takes the first that leaves no fraction.
constexpr std::array<Unit, 4> duration_units = {
    {{"h", seconds(3600)}, {"m", seconds(60)}, {"s", seconds(1)}, {"ms", milliseconds(1)}}};
constexpr std::array<Unit, 4> size_units = {
    {{"GiB", 1024 * 1024 * 1024}, {"MiB", 1024 * 1024}, {"KiB", 1024}, {"", 1}}};

int64_t multiply_saturating(int64_t number, int64_t factor) noexcept {
  int64_t product = 0;
  return __builtin_mul_overflow(number, factor, &product) ? INT64_MAX : product;
}

std::optional<int64_t> parse_with_unit(std::string_view text,
                                       const std::array<Unit, 4>& units) noexcept {
  const size_t digit_count = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::optional<int64_t> number = parse_whole(text.substr(0, digit_count));
  if (!number.has_value()) return std::nullopt;
  for (const Unit& unit : units)
    if (unit.name == text.substr(digit_count)) return multiply_saturating(*number, unit.factor);
  return std::nullopt;
}

std::string format_with_unit(int64_t number, const std::array<Unit, 4>& units) {
  for (const Unit& unit : units)
    if (number != 0 && number % unit.factor == 0)
      return std::to_string(number / unit.factor).append(unit.name);
  return {};
}

}  // namespace

std::optional<Nanoseconds> parse_duration(std::string_view text) noexcept {
  return parse_with_unit(text, duration_units);
}

std::optional<int64_t> parse_size(std::string_view text) noexcept {
  return parse_with_unit(text, size_units);
}

std::optional<int64_t> parse_whole(std::string_view text) noexcept {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::invalid_argument || end != text.data() + text.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) return text.front() == '-' ? INT64_MIN : INT64_MAX;
  return number;
}

std::string format_duration(Nanoseconds duration) {
  if (duration == 0) return "0s";
  const std::string text = format_with_unit(duration, duration_units);
  return text.empty() ? std::to_string(duration).append("ns") : text;
}

std::string format_size(int64_t size) {
  return size == 0 ? "0" : format_with_unit(size, size_units);
}

}  // namespace helios
