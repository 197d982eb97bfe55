#include "helios/config/environment.h"

#include <doctest/doctest.h>

#include <cstdlib>

namespace helios {
namespace {

std::optional<std::string> lookup(std::string_view name) {
  if (name == "HOST") return "db1";
  if (name == "PORT_2") return "5433";
  if (name == "EMPTY") return "";
  if (name == "ODD") return "${HOST}$$";
  return std::nullopt;
}

std::string expanded(std::string_view text) {
  const Result<Expanded> result = expand_environment(text, lookup);
  return result.ok() ? result.value().text : "error: " + result.error();
}

TEST_CASE("a variable is replaced wherever it stands") {
  CHECK(expanded("${HOST}") == "db1");
  CHECK(expanded("a ${HOST}:${PORT_2} z") == "a db1:5433 z");
  CHECK(expanded("${HOST}${HOST}") == "db1db1");
  CHECK(expanded("no variable") == "no variable");
  CHECK(expanded("").empty());
  CHECK(expanded("${EMPTY}").empty());
}

TEST_CASE("a default serves when the variable is not set or empty, and may be empty itself") {
  CHECK(expanded("${NONE:-local}") == "local");
  CHECK(expanded("${EMPTY:-local}") == "local");
  CHECK(expanded("${HOST:-local}") == "db1");
  CHECK(expanded("${NONE:-}").empty());
  CHECK(expanded("${NONE:-a:-b}") == "a:-b");
}

TEST_CASE("two dollars are one, and a dollar before anything but a brace is itself") {
  CHECK(expanded("$$") == "$");
  CHECK(expanded("$${HOST}") == "${HOST}");
  CHECK(expanded("$$$${HOST}") == "$${HOST}");
  CHECK(expanded("$$${HOST}") == "$db1");
  CHECK(expanded("cost: 5$") == "cost: 5$");
  CHECK(expanded("SCRAM-SHA-256$4096:c2FsdA==$AA=:BB=") == "SCRAM-SHA-256$4096:c2FsdA==$AA=:BB=");
  CHECK(expanded("$HOST") == "$HOST");
}

TEST_CASE("what comes out of the environment is not expanded again") {
  CHECK(expanded("${ODD}") == "${HOST}$$");
  CHECK(expanded("${NONE:-$$HOST}") == "$$HOST");
}

TEST_CASE("a variable that is not set is an error that names it") {
  CHECK(expanded("${NONE}") ==
        "error: the environment variable NONE is not set, and there is no default "
        "(${NONE:-default})");
  CHECK(expanded("${HOST} ${NONE}").find("NONE is not set") != std::string::npos);
}

TEST_CASE("an open brace without its end and a name that is none are errors") {
  CHECK(expanded("a${HOST") == "error: \"${\" without its \"}\"; write $$ for a dollar");
  for (const char* text : {"${}", "${1A}", "${A B}", "${A-B}", "${:-x}", "${A:x}", "${A.B:-c}"}) {
    CAPTURE(text);
    CHECK(expanded(text).find("names no environment variable") != std::string::npos);
  }
}

TEST_CASE("only a text that is one variable and nothing else says so") {
  const auto is_one = [](std::string_view text) {
    return expand_environment(text, lookup).value().is_one_variable;
  };
  CHECK(is_one("${HOST}"));
  CHECK(is_one("${NONE:-5}"));
  CHECK_FALSE(is_one("1${PORT_2}"));
  CHECK_FALSE(is_one("${PORT_2}1"));
  CHECK_FALSE(is_one("${PORT_2}${PORT_2}"));
  CHECK_FALSE(is_one("5"));
  CHECK_FALSE(is_one("$$"));
}

TEST_CASE("a text without variables says so: what it holds stands in the file") {
  CHECK(expand_environment("a${HOST}", lookup).value().has_variable);
  CHECK_FALSE(expand_environment("a$$b", lookup).value().has_variable);
}

TEST_CASE("the process's own environment tells unset from empty") {
  REQUIRE(setenv("HELIOS_CONFIG_TEST", "", 1) == 0);
  CHECK(process_environment("HELIOS_CONFIG_TEST") == "");
  REQUIRE(setenv("HELIOS_CONFIG_TEST", "x", 1) == 0);
  CHECK(process_environment("HELIOS_CONFIG_TEST") == "x");
  REQUIRE(unsetenv("HELIOS_CONFIG_TEST") == 0);
  CHECK_FALSE(process_environment("HELIOS_CONFIG_TEST").has_value());
}

}  // namespace
}  // namespace helios
