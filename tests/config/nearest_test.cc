#include "helios/config/nearest.h"

#include <doctest/doctest.h>

#include <array>

namespace helios {
namespace {

constexpr std::array<std::string_view, 4> known = {"mode", "min_connections", "max_connections",
                                                   "idle_timeout"};

TEST_CASE("the distance counts insertions, deletions, changes and swaps once each") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("abc", "") == 3);
  CHECK(edit_distance("mode", "mode") == 0);
  CHECK(edit_distance("mode", "modes") == 1);
  CHECK(edit_distance("mode", "mde") == 1);
  CHECK(edit_distance("mode", "made") == 1);
  CHECK(edit_distance("mode", "mdoe") == 1);
  CHECK(edit_distance("kitten", "sitting") == 3);
}

TEST_CASE("the nearest name is found, the first one when two are equally near") {
  CHECK(nearest_name("max_conections", known) == "max_connections");
  CHECK(nearest_name("min_connection", known) == "min_connections");
  CHECK(nearest_name("idletimeout", known) == "idle_timeout");
  constexpr std::array<std::string_view, 2> twins = {"aab", "aac"};
  CHECK(nearest_name("aad", twins) == "aab");
}

TEST_CASE("a name that is near to nothing has no nearest name") {
  CHECK(nearest_name("listen", known).empty());
  CHECK(nearest_name("mode", {}).empty());
  CHECK(nearest_name("", known).empty());
  // Two changes of two letters leave nothing of the name.
  constexpr std::array<std::string_view, 1> short_name = {"db"};
  CHECK(nearest_name("xy", short_name).empty());
  CHECK(nearest_name(std::string(100, 'm'), known).empty());
}

TEST_CASE("the suggestion names the nearest name, else all, else nothing") {
  CHECK(suggestion("mod", known) == "; did you mean \"mode\"?");
  CHECK(suggestion("zzzzzzzzz", known) ==
        "; known: mode, min_connections, max_connections, idle_timeout");
  CHECK(suggestion("mode", {}).empty());
}

}  // namespace
}  // namespace helios
