#include "load/report_text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace helios::bench {

std::string decimal(double value, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

std::string rounded(double value) {
  if (value == 0) return "0";
  const int magnitude = static_cast<int>(std::floor(std::log10(std::fabs(value))));
  if (magnitude < 2) return decimal(value, std::min(2 - magnitude, 6));
  // 45,678 becomes 45,700.
  const double unit = std::pow(10.0, magnitude - 2);
  std::string text = decimal(std::round(value / unit) * unit, 0);
  const auto first_digit = static_cast<size_t>(text.front() == '-' ? 1 : 0);
  for (size_t place = text.size(); place > first_digit + 3;) {
    place -= 3;
    text.insert(place, ",");
  }
  return text;
}

std::string size_text(double bytes) {
  constexpr std::array<const char*, 4> units = {" B", " KiB", " MiB", " GiB"};
  size_t unit = 0;
  while (std::fabs(bytes) >= 1024 && unit + 1 < units.size()) {
    bytes /= 1024;
    ++unit;
  }
  return rounded(bytes) + units.at(unit);
}

std::string minutes_text(double seconds) {
  const auto whole = static_cast<int64_t>(std::max(0.0, seconds));
  const std::string rest = std::to_string(whole % 60);
  return std::to_string(whole / 60) + ":" + (rest.size() < 2 ? "0" : "") + rest;
}

std::string markdown_cell(std::string_view text) {
  std::string result;
  for (const char letter : text) {
    if (letter == '|') result += '\\';
    result += letter == '\n' || letter == '\r' ? ' ' : letter;
  }
  return result;
}

std::string xml_text(std::string_view text) {
  std::string result;
  for (const char letter : text) {
    if (letter == '&')
      result += "&amp;";
    else if (letter == '<')
      result += "&lt;";
    else if (letter == '>')
      result += "&gt;";
    else if (letter == '"')
      result += "&quot;";
    else
      result += letter;
  }
  return result;
}

}  // namespace helios::bench
