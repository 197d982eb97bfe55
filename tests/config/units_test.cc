#include "config/units.h"

#include <doctest/doctest.h>

namespace helios {
namespace {

TEST_CASE("a duration is a whole number with ms, s, m or h") {
  CHECK(parse_duration("500ms") == milliseconds(500));
  CHECK(parse_duration("30s") == seconds(30));
  CHECK(parse_duration("2m") == seconds(120));
  CHECK(parse_duration("1h") == seconds(3600));
  CHECK(parse_duration("0s") == 0);
  CHECK(parse_duration("007s") == seconds(7));
}

TEST_CASE("a duration without unit, with a fraction, a sign, a space or another unit is refused") {
  for (const char* text : {"", "30", "0", "s", "1.5s", "-1s", "+1s", " 1s", "1 s", "1s ", "1S",
                           "1sec", "1d", "1us", "1m30s", "0x1s"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_duration(text).has_value());
  }
}

TEST_CASE("a duration that does not fit becomes the largest one") {
  CHECK(parse_duration("9223372036854775808ms") == INT64_MAX);
  CHECK(parse_duration("9223372036854775807h") == INT64_MAX);
  CHECK(parse_duration("2562048h") == INT64_MAX);
  CHECK(parse_duration("2562047h") == seconds(2562047LL * 3600));
}

TEST_CASE("a size is a whole number of bytes, KiB, MiB or GiB") {
  CHECK(parse_size("0") == 0);
  CHECK(parse_size("4096") == 4096);
  CHECK(parse_size("64KiB") == 65536);
  CHECK(parse_size("1MiB") == 1048576);
  CHECK(parse_size("2GiB") == 2147483648);
  CHECK(parse_size("99999999999GiB") == INT64_MAX);
}

TEST_CASE("a size with a decimal unit, a fraction or a sign is refused") {
  for (const char* text : {"", "KiB", "64KB", "64kib", "64K", "1.5MiB", "-1", "64 KiB", "B"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_size(text).has_value());
  }
}

TEST_CASE("a whole number may have a minus sign and nothing else") {
  CHECK(parse_whole("0") == 0);
  CHECK(parse_whole("-12") == -12);
  CHECK(parse_whole("99999999999999999999") == INT64_MAX);
  CHECK(parse_whole("-99999999999999999999") == INT64_MIN);
  for (const char* text : {"", "-", "+1", "1 ", " 1", "1.0", "0x10", "1_000", "true"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_whole(text).has_value());
  }
}

TEST_CASE("a number is written in the largest unit that needs no fraction") {
  CHECK(format_duration(0) == "0s");
  CHECK(format_duration(milliseconds(1500)) == "1500ms");
  CHECK(format_duration(seconds(90)) == "90s");
  CHECK(format_duration(seconds(120)) == "2m");
  CHECK(format_duration(seconds(7200)) == "2h");
  CHECK(format_duration(1) == "1ns");
  CHECK(format_size(0) == "0");
  CHECK(format_size(1000) == "1000");
  CHECK(format_size(16 * 1024) == "16KiB");
  CHECK(format_size(1024 * 1024) == "1MiB");
}

}  // namespace
}  // namespace helios
