// Small texts of the reports: numbers, Markdown cells, XML.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace helios::bench {

// With so many digits behind the point.
[[nodiscard]] std::string decimal(double value, int digits);
// Three significant digits, thousands separated: "12.3", "0.0123", "45,600".
[[nodiscard]] std::string rounded(double value);
// In bytes: "1.2 KiB".
[[nodiscard]] std::string size_text(double bytes);
// "3:07" from seconds.
[[nodiscard]] std::string minutes_text(double seconds);

// Without what would break a table.
[[nodiscard]] std::string markdown_cell(std::string_view text);
[[nodiscard]] std::string xml_text(std::string_view text);

}  // namespace helios::bench
