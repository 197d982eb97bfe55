#include "load/expression.h"

#include <algorithm>
#include <charconv>

#include "helios/base/assert.h"
#include "helios/config/nearest.h"

namespace helios::bench {

bool is_name_start(char letter) noexcept {
  return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') || letter == '_';
}

bool is_name_letter(char letter) noexcept {
  return is_name_start(letter) || (letter >= '0' && letter <= '9');
}

uint32_t VariableNames::find(std::string_view name) const noexcept {
  const auto found = std::find(names_.begin(), names_.end(), name);
  return found == names_.end() ? none : static_cast<uint32_t>(found - names_.begin());
}

uint32_t VariableNames::find_or_add(std::string_view name) {
  const uint32_t slot = find(name);
  if (slot != none) return slot;
  names_.emplace_back(name);
  return static_cast<uint32_t>(names_.size() - 1);
}

std::string VariableNames::suggestion(std::string_view name) const {
  const std::vector<std::string_view> known(names_.begin(), names_.end());
  return helios::suggestion(name, known);
}

std::string_view text_of(EvaluationError error) noexcept {
  switch (error) {
    case EvaluationError::none:
      return "no error";
    case EvaluationError::division_by_zero:
      return "division by zero";
    case EvaluationError::overflow:
      return "the result does not fit 64 bits";
    case EvaluationError::empty_range:
      return "random(low, high) with low above high";
  }
  return "";
}

// Operators wait on a stack until one of lower priority comes (the shunting-yard algorithm).
class ExpressionCompiler {
 public:
  ExpressionCompiler(std::string_view text, const VariableNames& names)
      : left_(text), names_(names) {}

  [[nodiscard]] Result<Expression> compile() {
    while (error_.empty() && skip_spaces()) {
      if (wants_operand_) {
        take_operand();
      } else {
        take_operator();
      }
    }
    if (error_.empty() && wants_operand_) error_ = "the expression is not complete";
    while (error_.empty() && !waiting_.empty()) {
      if (waiting_.back().is_open) {
        error_ = "a ) is missing";
      } else {
        emit_waiting();
      }
    }
    if (!error_.empty()) return Error{error_};
    return std::move(result_);
  }

 private:
  using Kind = Expression::Kind;
  struct Waiting {
    Kind kind = Kind::constant;
    int priority = 0;
    bool is_open = false;    // A parenthesis; `kind` is `constant` unless it is a function's.
    uint32_t arguments = 1;  // Of a function, so far.
  };

  [[nodiscard]] bool skip_spaces() {
    left_.remove_prefix(std::min(left_.find_first_not_of(" \t\r"), left_.size()));
    return !left_.empty();
  }
  [[nodiscard]] bool take(char letter) {
    if (!skip_spaces() || left_.front() != letter) return false;
    left_.remove_prefix(1);
    return true;
  }
  std::string_view take_name() {
    const auto end = std::find_if_not(left_.begin(), left_.end(), is_name_letter);
    const std::string_view name = left_.substr(0, static_cast<size_t>(end - left_.begin()));
    left_.remove_prefix(name.size());
    return name;
  }

  void take_operand() {
    if (take('-')) return waiting_.push_back({Kind::negate, 3, false, 1});
    if (take('(')) return waiting_.push_back({Kind::constant, 0, true, 1});
    if (take(':')) return take_variable();
    if (is_name_start(left_.front())) return take_function();
    int64_t number = 0;
    const auto [end, error] = std::from_chars(left_.data(), left_.data() + left_.size(), number);
    if (error == std::errc::result_out_of_range) {
      error_ = "a number does not fit 64 bits";
    } else if (error != std::errc()) {
      error_ = "a number, :variable, random(low, high) or ( is missing before \"" +
               std::string(left_) + "\"";
    } else {
      left_.remove_prefix(static_cast<size_t>(end - left_.data()));
      emit({Kind::constant, number}, 1);
    }
  }

  void take_variable() {
    const std::string_view name = take_name();
    const uint32_t slot = names_.find(name);
    if (slot == VariableNames::none) {
      error_ = "unknown variable :" + std::string(name) + names_.suggestion(name);
    } else {
      emit({Kind::variable, slot}, 1);
    }
  }

  void take_function() {
    const std::string_view name = take_name();
    const bool is_random = name == "random";
    if (!is_random && name != "unique") {
      error_ = "unknown function \"" + std::string(name) + "\"; known: random, unique";
    } else if (!take('(')) {
      error_ = std::string(name) + " needs (";
    } else if (is_random) {
      waiting_.push_back({Kind::random, 0, true, 1});
    } else if (!take(')')) {
      error_ = "unique() takes no arguments";
    } else {
      emit({Kind::unique, 0}, 1);
    }
  }

  void take_operator() {
    const char letter = left_.front();
    left_.remove_prefix(1);
    switch (letter) {
      case '+':
        return push_operator(Kind::add, 1);
      case '-':
        return push_operator(Kind::subtract, 1);
      case '*':
        return push_operator(Kind::multiply, 2);
      case '/':
        return push_operator(Kind::divide, 2);
      case '%':
        return push_operator(Kind::remainder, 2);
      case ',':
        return next_argument();
      case ')':
        return close();
      default:
        error_ = std::string("an operator (+ - * / %) is missing before \"") + letter + "\"";
    }
  }

  void push_operator(Kind kind, int priority) {
    emit_to(priority);
    waiting_.push_back({kind, priority, false, 1});
    wants_operand_ = true;
  }

  void next_argument() {
    emit_to(1);
    if (waiting_.empty() || waiting_.back().kind != Kind::random) {
      error_ = "a comma outside random(low, high)";
      return;
    }
    ++waiting_.back().arguments;
    wants_operand_ = true;
  }

  void close() {
    emit_to(1);
    if (waiting_.empty()) {
      error_ = "a ) without (";
      return;
    }
    const Waiting open = waiting_.back();
    waiting_.pop_back();
    if (open.kind != Kind::random) return;
    if (open.arguments != 2) {
      error_ = "random needs two arguments: random(low, high)";
      return;
    }
    emit({Kind::random, 0}, -1);
  }

  // Emits the operators that bind at least as tightly.
  void emit_to(int priority) {
    while (!waiting_.empty() && !waiting_.back().is_open && waiting_.back().priority >= priority)
      emit_waiting();
  }

  void emit_waiting() {
    const Kind kind = waiting_.back().kind;
    waiting_.pop_back();
    emit({kind, 0}, kind == Kind::negate ? 0 : -1);
  }

  // `growth`: of the stack at the evaluation.
  void emit(Expression::Instruction instruction, int growth) {
    result_.code_.push_back(instruction);
    depth_ += growth;
    if (depth_ > static_cast<int>(Expression::depth_max)) error_ = "the expression is too deep";
    wants_operand_ = false;
  }

  std::string_view left_;
  const VariableNames& names_;
  std::vector<Waiting> waiting_;
  bool wants_operand_ = true;
  int depth_ = 0;
  Expression result_;
  std::string error_;
};

Result<Expression> Expression::compile(std::string_view text, const VariableNames& names) {
  return ExpressionCompiler(text, names).compile();
}

EvaluationError Expression::evaluate(const EvaluationContext& context,
                                     int64_t& result) const noexcept {
  Stack stack;
  size_t depth = 0;
  for (const Instruction& instruction : code_) {
    switch (instruction.kind) {
      case Kind::constant:
        stack[depth++] = instruction.value;
        continue;
      case Kind::variable:
        stack[depth++] = context.variables[static_cast<size_t>(instruction.value)];
        continue;
      case Kind::unique:
        context.unique += context.unique_step;
        stack[depth++] = context.unique;
        continue;
      case Kind::negate: {
        int64_t& value = stack[depth - 1];
        if (__builtin_sub_overflow(int64_t{0}, value, &value)) return EvaluationError::overflow;
        continue;
      }
      case Kind::add:
      case Kind::subtract:
      case Kind::multiply:
      case Kind::divide:
      case Kind::remainder:
      case Kind::random:
        break;
    }
    --depth;
    int64_t& left = stack[depth - 1];
    const EvaluationError error = apply(instruction.kind, left, stack[depth], context.random, left);
    if (error != EvaluationError::none) return error;
  }
  ASSERT(depth == 1);
  result = stack[0];
  return EvaluationError::none;
}

EvaluationError Expression::apply(Kind kind, int64_t left, int64_t right, RandomNumbers& random,
                                  int64_t& result) noexcept {
  const auto checked = [](bool overflows) {
    return overflows ? EvaluationError::overflow : EvaluationError::none;
  };
  switch (kind) {
    case Kind::add:
      return checked(__builtin_add_overflow(left, right, &result));
    case Kind::subtract:
      return checked(__builtin_sub_overflow(left, right, &result));
    case Kind::multiply:
      return checked(__builtin_mul_overflow(left, right, &result));
    case Kind::divide:
    case Kind::remainder:
      if (right == 0) return EvaluationError::division_by_zero;
      if (right == -1 && left == INT64_MIN) return EvaluationError::overflow;
      result = kind == Kind::divide ? left / right : left % right;
      return EvaluationError::none;
    case Kind::random:
      if (left > right) return EvaluationError::empty_range;
      result = random.between(left, right);
      return EvaluationError::none;
    case Kind::constant:
    case Kind::variable:
    case Kind::negate:
    case Kind::unique:
      break;
  }
  UNREACHABLE("an operator with two operands");
}

}  // namespace helios::bench
