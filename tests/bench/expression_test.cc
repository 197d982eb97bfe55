#include "load/expression.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace helios::bench {
namespace {

struct Bench {
  Bench() : variables{7, 3, 10} { names.find_or_add("aid"); }

  VariableNames names;
  std::vector<int64_t> variables;  // scale, client_id, aid.
  RandomNumbers random{1};
  int64_t unique = 100;

  EvaluationError evaluate(std::string_view text, int64_t& result) {
    const Result<Expression> expression = Expression::compile(text, names);
    REQUIRE_MESSAGE(expression.ok(), std::string(text));
    return expression.value().evaluate({variables, random, unique, 4}, result);
  }
  int64_t value(std::string_view text) {
    int64_t result = 0;
    CHECK(evaluate(text, result) == EvaluationError::none);
    return result;
  }
  std::string error(std::string_view text) {
    const Result<Expression> expression = Expression::compile(text, names);
    REQUIRE_FALSE_MESSAGE(expression.ok(), std::string(text));
    return expression.error();
  }
};

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("arithmetic has the usual priorities") {
  Bench bench;
  CHECK(bench.value("1 + 2 * 3") == 7);
  CHECK(bench.value("(1 + 2) * 3") == 9);
  CHECK(bench.value("10 - 3 - 2") == 5);
  CHECK(bench.value("100 / 7 % 5") == 4);
  CHECK(bench.value("-3 * 2") == -6);
  CHECK(bench.value("2 - -3") == 5);
  CHECK(bench.value("-(1 + 1)") == -2);
  CHECK(bench.value("9223372036854775807") == INT64_MAX);
}

TEST_CASE("variables have their values") {
  Bench bench;
  CHECK(bench.value("100000 * :scale") == 700'000);
  CHECK(bench.value(":aid+:client_id") == 13);
}

TEST_CASE("random answers numbers of its range") {
  Bench bench;
  for (int i = 0; i < 100; ++i) {
    const int64_t number = bench.value("random(1, 2 * (:scale - 5)) + 1000");
    CHECK(number >= 1001);
    CHECK(number <= 1004);
  }
  CHECK(bench.value("random(5, 5)") == 5);
}

TEST_CASE("unique goes on by its step") {
  Bench bench;
  CHECK(bench.value("unique()") == 104);
  CHECK(bench.value("unique() * 2") == 216);
}

TEST_CASE("what cannot be computed is an error, not a wrong number") {
  Bench bench;
  int64_t result = 0;
  CHECK(bench.evaluate("1 / (:aid - 10)", result) == EvaluationError::division_by_zero);
  CHECK(bench.evaluate("1 % 0", result) == EvaluationError::division_by_zero);
  CHECK(bench.evaluate("9223372036854775807 + 1", result) == EvaluationError::overflow);
  CHECK(bench.evaluate("(-9223372036854775807 - 1) / -1", result) == EvaluationError::overflow);
  CHECK(bench.evaluate("9223372036854775807 * 2", result) == EvaluationError::overflow);
  CHECK(bench.evaluate("random(2, 1)", result) == EvaluationError::empty_range);
}

TEST_CASE("wrong expressions are explained") {
  Bench bench;
  CHECK(has(bench.error(""), "not complete"));
  CHECK(has(bench.error("1 +"), "not complete"));
  CHECK(has(bench.error("1 2"), "operator"));
  CHECK(has(bench.error("(1"), ") is missing"));
  CHECK(has(bench.error("1)"), ") without ("));
  CHECK(has(bench.error("1, 2"), "comma outside"));
  CHECK(has(bench.error("(1, 2)"), "comma outside"));
  CHECK(has(bench.error(":aidd"), "unknown variable :aidd; did you mean \"aid\"?"));
  CHECK(has(bench.error("randm(1, 2)"), "unknown function \"randm\""));
  CHECK(has(bench.error("random(1)"), "two arguments"));
  CHECK(has(bench.error("random(1, 2, 3)"), "two arguments"));
  CHECK(has(bench.error("random 1"), "needs ("));
  CHECK(has(bench.error("unique(1)"), "no arguments"));
  CHECK(has(bench.error("99999999999999999999"), "64 bits"));
  CHECK(has(bench.error("1 $ 2"), "operator"));
  CHECK(has(bench.error("* 2"), "is missing before"));
  std::string deep;
  for (int i = 0; i < 20; ++i) deep += "1 + (";
  deep += "1" + std::string(20, ')');
  CHECK(has(bench.error(deep), "too deep"));
}

}  // namespace helios::bench
