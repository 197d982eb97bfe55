// The integer expressions of \set: compiled once, evaluated for each transaction.
//
//   42   :name   a + b   a - b   a * b   a / b   a % b   -a   (a)   random(low, high)   unique()
//
// As in pgbench, of which random(), the operators and their priorities are taken. unique() answers
// a number that nobody else in this run gets. Immutable after compile(); any thread may evaluate.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/result.h"
#include "load/random_numbers.h"

namespace helios::bench {

// The variables of a set of scripts: a slot for each name.
class VariableNames {
 public:
  static constexpr uint32_t none = UINT32_MAX;
  static constexpr uint32_t scale = 0;
  static constexpr uint32_t client_id = 1;

  // Holds the two that every client has from the start.
  VariableNames() : names_{"scale", "client_id"} {}

  [[nodiscard]] uint32_t find(std::string_view name) const noexcept;
  uint32_t find_or_add(std::string_view name);
  [[nodiscard]] size_t count() const noexcept { return names_.size(); }
  // "; did you mean ...?" for a name that is not there.
  [[nodiscard]] std::string suggestion(std::string_view name) const;

 private:
  std::vector<std::string> names_;
};

// A letter, digit or underscore: what names of variables consist of. They begin with no digit.
[[nodiscard]] bool is_name_letter(char letter) noexcept;
[[nodiscard]] bool is_name_start(char letter) noexcept;

// What an evaluation works with.
struct EvaluationContext {
  std::span<const int64_t> variables;
  RandomNumbers& random;
  // The last number that unique() gave, and by how much the next one is larger.
  int64_t& unique;
  int64_t unique_step;
};

enum class EvaluationError : uint8_t { none, division_by_zero, overflow, empty_range };
[[nodiscard]] std::string_view text_of(EvaluationError error) noexcept;

class Expression {
 public:
  // Errors: a sentence without a place.
  [[nodiscard]] static Result<Expression> compile(std::string_view text,
                                                  const VariableNames& names);

  [[nodiscard]] EvaluationError evaluate(const EvaluationContext& context,
                                         int64_t& result) const noexcept;

 private:
  friend class ExpressionCompiler;
  enum class Kind : uint8_t {
    constant,
    variable,
    add,
    subtract,
    multiply,
    divide,
    remainder,
    negate,
    random,
    unique,
  };
  struct Instruction {
    Kind kind;
    int64_t value = 0;  // The constant, or the variable's slot.
  };
  static constexpr size_t depth_max = 16;
  using Stack = std::array<int64_t, depth_max>;

  [[nodiscard]] static EvaluationError apply(Kind kind, int64_t left, int64_t right,
                                             RandomNumbers& random, int64_t& result) noexcept;

  std::vector<Instruction> code_;  // Operands before operators.
};

}  // namespace helios::bench
