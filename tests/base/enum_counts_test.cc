#include "helios/base/enum_counts.h"

#include <doctest/doctest.h>

namespace helios {
namespace {

enum class Colour : uint8_t { red, green, blue };

}  // namespace

TEST_CASE("each value of an enum is counted for itself, and counts are added value by value") {
  EnumCounts<Colour, Colour::blue> counts;
  CHECK(counts.size == 3);
  CHECK(counts.total() == 0);
  ++counts[Colour::red];
  counts[Colour::blue] += 5;
  EnumCounts<Colour, Colour::blue> others;
  others[Colour::blue] = 10;
  others[Colour::green] = 1;
  counts.add(others);
  CHECK(counts[Colour::red] == 1);
  CHECK(counts[Colour::green] == 1);
  CHECK(counts[Colour::blue] == 15);
  CHECK(counts.total() == 17);
}

}  // namespace helios
