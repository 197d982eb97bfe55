#include "load/script.h"

#include <algorithm>
#include <utility>

namespace helios::bench {
namespace {

bool is_space(char letter) noexcept {
  return letter == ' ' || letter == '\t' || letter == '\n' || letter == '\r' || letter == '\f';
}

// Reads one script's text, front to back.
class ScriptParser {
 public:
  ScriptParser(ScriptSet& set, std::string name, std::string_view text)
      : set_(set), name_(std::move(name)), text_(text) {
    script_.name = name_;
  }

  [[nodiscard]] Result<Script> parse() {
    while (error_.empty() && skip_to_content()) {
      if (text_[at_] == '\\') {
        take_command();
      } else {
        take_statement();
      }
    }
    if (error_.empty() && script_.statements_count == 0)
      error_ = name_ + ": there is no statement in it";
    if (!error_.empty()) return Error{error_};
    return std::move(script_);
  }

 private:
  [[nodiscard]] bool at_end() const { return at_ >= text_.size(); }
  [[nodiscard]] bool starts_with(std::string_view word) const {
    return text_.substr(at_).starts_with(word);
  }
  [[nodiscard]] std::string place() const {
    const auto lines = std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(at_), '\n');
    return name_ + ":" + std::to_string(lines + 1);
  }
  void fail(const std::string& what) { error_ = place() + ": " + what; }
  void fail_at(size_t at, const std::string& what) {
    at_ = at;
    fail(what);
  }

  // To the first letter of a statement or command. False at the end.
  [[nodiscard]] bool skip_to_content() {
    while (!at_end()) {
      if (is_space(text_[at_]) || text_[at_] == ';') {
        ++at_;
      } else if (!skip_comment()) {
        return error_.empty();
      }
    }
    return false;
  }

  // Over a comment, when one begins here.
  [[nodiscard]] bool skip_comment() {
    if (starts_with("--")) {
      at_ = std::min(text_.find('\n', at_), text_.size());
      return true;
    }
    if (!starts_with("/*")) return false;
    const size_t start = at_;
    size_t depth = 0;
    do {
      if (at_end()) {
        fail_at(start, "the comment has no end");
        return false;
      }
      if (starts_with("/*")) {
        ++depth;
        at_ += 2;
      } else if (starts_with("*/")) {
        --depth;
        at_ += 2;
      } else {
        ++at_;
      }
    } while (depth > 0);
    return true;
  }

  // Over a quoted text, when one begins here.
  [[nodiscard]] bool skip_quoted() {
    const char letter = text_[at_];
    if (letter == '\'' || letter == '"') {
      // E'...' knows backslashes; the E must not end a longer word.
      const bool has_escapes = letter == '\'' && at_ > 0 &&
                               (text_[at_ - 1] == 'E' || text_[at_ - 1] == 'e') &&
                               (at_ == 1 || !is_name_letter(text_[at_ - 2]));
      skip_to_quote(letter, has_escapes);
      return true;
    }
    return letter == '$' && skip_dollar_quoted();
  }

  void skip_to_quote(char quote, bool has_escapes) {
    const size_t start = at_++;
    // A doubled quote ends one text and begins the next: no case of its own.
    while (!at_end() && text_[at_] != quote) at_ += has_escapes && text_[at_] == '\\' ? 2 : 1;
    if (at_end()) return fail_at(start, "the quote has no end");
    ++at_;
  }

  [[nodiscard]] bool skip_dollar_quoted() {
    if (at_ > 0 && is_name_letter(text_[at_ - 1])) return false;
    size_t end = at_ + 1;
    if (end < text_.size() && is_name_start(text_[end]))
      while (end < text_.size() && is_name_letter(text_[end])) ++end;
    if (end >= text_.size() || text_[end] != '$') return false;
    const std::string_view tag = text_.substr(at_, end + 1 - at_);
    const size_t closing = text_.find(tag, end + 1);
    if (closing == std::string_view::npos) {
      fail("the quote " + std::string(tag) + " has no end");
    } else {
      at_ = closing + tag.size();
    }
    return true;
  }

  void take_statement() {
    const std::string where = place();
    statement_ = {};
    piece_start_ = at_;
    size_t depth = 0;
    while (error_.empty() && !at_end()) {
      const char letter = text_[at_];
      if (letter == ';' && depth == 0) break;
      if (skip_comment() || !error_.empty() || skip_quoted()) continue;
      if (letter == '\\') return fail("a backslash within a statement; end the statement with ;");
      if (letter == ':' && take_variable()) continue;
      if (letter == '(') ++depth;
      if (letter == ')' && depth > 0) --depth;
      ++at_;
    }
    if (!error_.empty()) return;
    finish_statement(where);
  }

  // Over :name, when that is what stands here, and not a cast or a slice of an array.
  [[nodiscard]] bool take_variable() {
    if (starts_with("::")) {
      at_ += 2;
      return true;
    }
    if (at_ + 1 >= text_.size() || !is_name_start(text_[at_ + 1])) return false;
    size_t end = at_ + 1;
    while (end < text_.size() && is_name_letter(text_[end])) ++end;
    const std::string_view name = text_.substr(at_ + 1, end - at_ - 1);
    const uint32_t slot = set_.variables.find(name);
    if (slot == VariableNames::none) {
      fail("unknown variable :" + std::string(name) + set_.variables.suggestion(name));
      return true;
    }
    end_piece();
    statement_.slots.push_back(slot);
    statement_.parameter_text += "$" + std::to_string(statement_.slots.size());
    at_ = piece_start_ = end;
    return true;
  }

  void end_piece() {
    statement_.texts.emplace_back(text_.substr(piece_start_, at_ - piece_start_));
    statement_.parameter_text += statement_.texts.back();
  }

  void finish_statement(const std::string& where) {
    end_piece();
    Step step;
    step.statement = static_cast<uint32_t>(set_.statements.size());
    step.place = where;
    statement_.prepared_name = "helios_bench_" + std::to_string(step.statement);
    set_.statements.push_back(std::move(statement_));
    script_.last_statement_step = script_.steps.size();
    script_.steps.push_back(std::move(step));
    ++script_.statements_count;
    if (!at_end()) ++at_;  // The semicolon.
  }

  // A backslash and a word; the line's rest is its argument. A backslash at its end continues it.
  void take_command() {
    size_t end = text_.find('\n', at_);
    while (end != std::string_view::npos && text_[end - 1] == '\\') end = text_.find('\n', end + 1);
    end = std::min(end, text_.size());
    std::string line(text_.substr(at_, end - at_));
    for (size_t i = 0; i + 1 < line.size(); ++i)
      if (line[i] == '\\' && line[i + 1] == '\n') line[i] = line[i + 1] = ' ';
    const size_t name_end = std::min(line.find_first_of(" \t\r"), line.size());
    const std::string command = line.substr(0, name_end);
    if (command != "\\set")
      return fail("unknown command " + command + "; known: \\set name expression");
    take_set(std::string_view(line).substr(name_end));
    if (error_.empty()) at_ = end;
  }

  void take_set(std::string_view argument) {
    argument.remove_prefix(std::min(argument.find_first_not_of(" \t"), argument.size()));
    const auto name_end = std::find_if_not(argument.begin(), argument.end(), is_name_letter);
    const auto size = static_cast<size_t>(name_end - argument.begin());
    if (size == 0 || !is_name_start(argument[0]))
      return fail("\\set needs a name and an expression: \\set aid random(1, 100000 * :scale)");
    Result<Expression> expression = Expression::compile(argument.substr(size), set_.variables);
    if (!expression.ok()) return fail(expression.error());
    Step step;
    step.slot = set_.variables.find_or_add(argument.substr(0, size));
    step.expression = std::move(expression.value());
    step.place = place();
    script_.steps.push_back(std::move(step));
  }

  ScriptSet& set_;
  std::string name_;
  std::string_view text_;
  size_t at_ = 0;
  size_t piece_start_ = 0;
  ScriptStatement statement_;
  Script script_;
  std::string error_;
};

}  // namespace

uint32_t ScriptSet::choose(uint64_t number) const noexcept {
  uint32_t index = 0;
  while (index + 1 < scripts.size() && number >= scripts[index].weight)
    number -= scripts[index++].weight;
  return index;
}

Result<bool> add_script(ScriptSet& set, const std::string& name, uint64_t weight,
                        std::string_view text) {
  Result<Script> script = ScriptParser(set, name, text).parse();
  if (!script.ok()) return Error{script.error()};
  script.value().weight = weight;
  set.weights_total += weight;
  set.statements_per_transaction_max =
      std::max(set.statements_per_transaction_max, script.value().statements_count);
  set.scripts.push_back(std::move(script.value()));
  return true;
}

}  // namespace helios::bench
