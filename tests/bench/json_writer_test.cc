#include "load/json_writer.h"

#include <doctest/doctest.h>

#include <limits>

namespace helios::bench {

TEST_CASE("an object with everything in it") {
  JsonWriter json;
  json.number("a", 18446744073709551615ULL);
  json.real("b", 0.5);
  json.boolean("c", true);
  json.text("d", "x");
  json.begin_object("e");
  json.end();
  json.begin_list("f");
  json.item(1);
  json.item(2);
  json.end();
  json.begin_list("g");
  for (int i = 0; i < 2; ++i) {
    json.begin_item();
    json.boolean("h", false);
    json.end();
  }
  json.end();
  CHECK(json.finish() ==
        "{\"a\": 18446744073709551615, \"b\": 0.5, \"c\": true, \"d\": \"x\", \"e\": {}, "
        "\"f\": [1, 2], \"g\": [{\"h\": false}, {\"h\": false}]}");
}

TEST_CASE("texts of a server cannot break the object") {
  JsonWriter json;
  json.text("a", "quote \" backslash \\ line\nend \x01 \xff");
  CHECK(json.finish() == "{\"a\": \"quote \\\" backslash \\\\ line\\u000aend \\u0001 ?\"}");
}

TEST_CASE("numbers that JSON does not have become zero") {
  JsonWriter json;
  json.real("a", std::numeric_limits<double>::infinity());
  CHECK(json.finish() == "{\"a\": 0}");
}

}  // namespace helios::bench
