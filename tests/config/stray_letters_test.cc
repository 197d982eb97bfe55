#include "config/stray_letters.h"

#include <doctest/doctest.h>

#include <string>

namespace helios {
namespace {

// "line:column" of the first stray letter, or "none".
std::string stray(std::string_view text) {
  const std::optional<Place> place = find_stray_letter(text);
  if (!place.has_value()) return "none";
  return std::to_string(place->line) + ":" + std::to_string(place->column);
}

TEST_CASE("letters of every kind may stand in strings and comments") {
  CHECK(stray("") == "none");
  CHECK(stray("\xef\xbb\xbf[a]\r\n\tb = 1 # \xc3\xa9\n") == "none");
  CHECK(stray("a = \"\xc3\xa9\"\nb = '\xc3\xa9'\n") == "none");
  CHECK(stray("a = \"\"\"\n\xc3\xa9 \" \"\" \xc3\xa9\n\"\"\"\n") == "none");
  CHECK(stray("a = '''\n\xc3\xa9 ' \\''' # \xc3\xa9") == "none");
  CHECK(stray("a = \"\"\"\xc3\xa9\"\"\"\"\" # \xc3\xa9") == "none");
  CHECK(stray("a = \"# \\\" \xc3\xa9 \\\\\"\n\"\xc3\xa9\" = 1") == "none");
}

TEST_CASE("outside of strings and comments they are found with line and column") {
  CHECK(stray("\xc3\xa9 = 1") == "1:1");
  CHECK(stray("a = 1\nb =\xc3\xa9 2") == "2:4");
  CHECK(stray("a = \"\xc3\xa9\" \xc3\xa9") == "1:9");
  CHECK(stray("# \xc3\xa9\n\x01") == "2:1");
  CHECK(stray(std::string_view("a\0b", 3)) == "1:2");
  CHECK(stray("a = \"\" \xc3\xa9") == "1:8");
  CHECK(stray("a = '\\' \xc3\xa9") == "1:9");
  CHECK(stray("a = \"\"\"x\"\"\" \xc3\xa9") == "1:13");
  CHECK(stray("\x7f") == "1:1");
}

TEST_CASE("a string of one line ends with the line") {
  CHECK(stray("a = \"open\n\xc3\xa9") == "2:1");
  CHECK(stray("a = \"open\\\n\xc3\xa9") == "2:1");
  CHECK(stray("a = '''open\n\xc3\xa9") == "none");
}

TEST_CASE("an escape of such a letter is found in strings that have escapes") {
  CHECK(stray("a = \"\\\xc3\xa9\"") == "1:6");
  CHECK(stray("a = '\\\xc3\xa9'") == "none");
  CHECK(stray("a = \"\\\\\xc3\xa9\"") == "none");
}

}  // namespace
}  // namespace helios
