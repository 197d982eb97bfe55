#include "load/backend_sql.h"

#include <algorithm>
#include <limits>

#include "helios/base/clock.h"
#include "load/sql_scanner.h"

namespace helios::bench {
namespace {

using Kind = StatementKind;

constexpr std::string_view big_mark = "/* big */";
constexpr Nanoseconds sleep_max = seconds(24 * 3600);

Statement of_kind(Kind kind) noexcept {
  Statement statement;
  statement.kind = kind;
  return statement;
}

bool take_value(SqlScanner& scanner, Statement& statement) noexcept {
  return scanner.take_parameter(statement.parameter) || scanner.take_number(statement.value);
}

bool fits_int4(int64_t value) noexcept {
  return value >= std::numeric_limits<int32_t>::min() &&
         value <= std::numeric_limits<int32_t>::max();
}

// `::bigint` and the like behind a number. False: a type that is not ours.
bool take_cast(SqlScanner& scanner, Statement& statement) noexcept {
  if (!scanner.take_symbol("::")) return true;
  statement.is_wide = scanner.take_word("int8") || scanner.take_word("bigint");
  return statement.is_wide || scanner.take_word("int") || scanner.take_word("int4") ||
         scanner.take_word("integer");
}

// Behind SELECT: a number, or a division by zero.
Statement recognise_number(SqlScanner scanner) noexcept {
  Statement statement = of_kind(Kind::number);
  if (!take_value(scanner, statement)) return of_kind(Kind::row);
  if (scanner.take_symbol("/")) {
    int64_t divisor = 0;
    const bool is_division = scanner.take_number(divisor) && scanner.at_end();
    return of_kind(is_division && divisor == 0 ? Kind::division_by_zero : Kind::row);
  }
  // A parameter may be anything that an int8 holds.
  statement.is_wide = statement.parameter != 0 || !fits_int4(statement.value);
  const bool is_cast = scanner.front() == ':';
  if (!take_cast(scanner, statement) || !scanner.at_end()) return of_kind(Kind::row);
  if (is_cast && !statement.is_wide && !fits_int4(statement.value)) return of_kind(Kind::row);
  return statement;
}

// Behind SELECT abalance.
Statement recognise_lookup(SqlScanner scanner) noexcept {
  Statement statement = of_kind(Kind::lookup);
  if (scanner.take_symbol(",")) {
    if (!scanner.take_word("aid")) return of_kind(Kind::row);
    statement.kind = Kind::lookup_pair;
  }
  const bool is_lookup = scanner.take_word("from") && !scanner.take_any_word().empty() &&
                         scanner.take_word("where") && scanner.take_word("aid") &&
                         scanner.take_symbol("=") && take_value(scanner, statement) &&
                         scanner.at_end();
  return is_lookup && fits_int4(statement.value) ? statement : of_kind(Kind::row);
}

// Behind SELECT pg_sleep.
Statement recognise_sleep(SqlScanner scanner) noexcept {
  if (!scanner.take_symbol("(")) return of_kind(Kind::row);
  const std::string_view left = scanner.left();
  double length = 0;
  const auto [stop, error] = std::from_chars(left.data(), left.data() + left.size(), length);
  if (error != std::errc() || !(length >= 0)) return of_kind(Kind::row);
  SqlScanner behind(left.substr(static_cast<size_t>(stop - left.data())));
  if (!behind.take_symbol(")") || !behind.at_end()) return of_kind(Kind::row);
  Statement statement = of_kind(Kind::sleep);
  statement.value = length * 1e9 < static_cast<double>(sleep_max)
                        ? static_cast<Nanoseconds>(length * 1e9)
                        : sleep_max;
  return statement;
}

Statement recognise_select(std::string_view text, SqlScanner scanner) noexcept {
  if (scanner.take_word("big")) return of_kind(Kind::big);
  if (text.find(big_mark) != std::string_view::npos) return of_kind(Kind::big);
  const char first = scanner.front();
  if (is_digit(first) || first == '$' || first == '-') return recognise_number(scanner);
  if (scanner.take_word("abalance")) return recognise_lookup(scanner);
  if (scanner.take_word("pg_sleep")) return recognise_sleep(scanner);
  if (scanner.take_word("count")) return of_kind(Kind::count);
  if (scanner.take_word("version")) return of_kind(Kind::version);
  if (scanner.left().starts_with("o.n, p.partstrat")) return of_kind(Kind::partitions);
  return of_kind(Kind::row);
}

Statement recognise_copy(SqlScanner scanner) noexcept {
  while (!scanner.at_end()) {
    if (scanner.take_word("from")) {
      if (scanner.take_word("stdin")) return of_kind(Kind::copy_in);
    } else if (scanner.take_word("to")) {
      if (scanner.take_word("stdout")) return of_kind(Kind::copy_out);
    } else if (scanner.take_any_word().empty()) {
      scanner.skip_one();
    }
  }
  return of_kind(Kind::command);
}

Statement recognise_rollback(SqlScanner scanner) noexcept {
  (void)(scanner.take_word("work") || scanner.take_word("transaction"));
  if (scanner.take_word("prepared")) return of_kind(Kind::command);
  return of_kind(scanner.take_word("to") ? Kind::rollback_to : Kind::rollback);
}

Statement recognise_commit(SqlScanner scanner) noexcept {
  return of_kind(scanner.take_word("prepared") ? Kind::command : Kind::commit);
}

Statement recognise_other(SqlScanner scanner) noexcept {
  if (scanner.take_word("start"))
    return of_kind(scanner.take_word("transaction") ? Kind::start : Kind::command);
  if (scanner.take_word("discard"))
    return of_kind(scanner.take_word("all") ? Kind::discard_all : Kind::command);
  if (scanner.take_word("copy")) return recognise_copy(scanner);
  if (scanner.take_word("deallocate")) return of_kind(Kind::deallocate);
  if (scanner.take_word("reset")) return of_kind(Kind::reset);
  if (scanner.take_word("show")) return of_kind(Kind::show);
  if (scanner.take_word("with") || scanner.take_word("values") || scanner.take_word("table"))
    return of_kind(Kind::row);
  return of_kind(Kind::command);
}

// The end of a quoted piece that begins at `at`: behind its last byte.
size_t skip_quoted(std::string_view text, size_t at, bool has_escapes) noexcept {
  const char quote = text[at++];
  for (; at < text.size(); ++at) {
    if (has_escapes && text[at] == '\\') {
      ++at;
    } else if (text[at] == quote) {
      return at + 1;  // A doubled quote begins another piece right here.
    }
  }
  return text.size();
}

size_t skip_to_end_of(std::string_view text, size_t at, std::string_view end) noexcept {
  const size_t found = text.find(end, at);
  return found == std::string_view::npos ? text.size() : found + end.size();
}

// `$tag$ ... $tag$`, or a `$` that begins nothing.
size_t skip_dollar(std::string_view text, size_t at) noexcept {
  size_t end = at + 1;
  while (end < text.size() && is_word_byte(text[end])) ++end;
  const bool is_tag = end < text.size() && text[end] == '$' && !is_digit(text[at + 1]);
  if (!is_tag) return at + 1;
  return skip_to_end_of(text, end + 1, text.substr(at, end + 1 - at));
}

// Moves over one byte, or over a whole quoted piece or comment.
size_t skip_piece(std::string_view text, size_t at) noexcept {
  switch (text[at]) {
    case '\'':
      return skip_quoted(text, at, at > 0 && lower(text[at - 1]) == 'e');
    case '"':
      return skip_quoted(text, at, false);
    case '$':
      return skip_dollar(text, at);
    case '-':
      return text.substr(at, 2) == "--" ? skip_to_end_of(text, at + 2, "\n") : at + 1;
    case '/':
      return text.substr(at, 2) == "/*" ? skip_to_end_of(text, at + 2, "*/") : at + 1;
    default:
      return at + 1;
  }
}

size_t find_semicolon(std::string_view text) noexcept {
  // Most texts have none, or one at the end.
  const size_t first = text.find(';');
  if (first == std::string_view::npos) return text.size();
  if (first + 1 == text.size()) return first;
  size_t at = 0;
  while (at < text.size() && text[at] != ';') at = skip_piece(text, at);
  return std::min(at, text.size());
}

std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::string_view unquoted(std::string_view text) noexcept {
  text = trimmed(text);
  if (text.size() > 2 && lower(text[0]) == 'e' && text[1] == '\'') text.remove_prefix(1);
  const bool is_quoted = text.size() >= 2 && (text.front() == '\'' || text.front() == '"') &&
                         text.back() == text.front();
  return is_quoted ? text.substr(1, text.size() - 2) : text;
}

}  // namespace

Statement recognise(std::string_view text) noexcept {
  SqlScanner scanner(text);
  // In the order of how often they come.
  switch (lower(scanner.front())) {
    case '\0':
      return {};
    case 's':
      if (scanner.take_word("select")) return recognise_select(text, scanner);
      if (scanner.take_word("set")) return of_kind(Kind::set);
      break;
    case 'u':
      if (scanner.take_word("update")) return of_kind(Kind::update);
      break;
    case 'i':
      if (scanner.take_word("insert")) return of_kind(Kind::insert);
      break;
    case 'b':
      if (scanner.take_word("begin")) return of_kind(Kind::begin);
      break;
    case 'c':
      if (scanner.take_word("commit")) return recognise_commit(scanner);
      break;
    case 'e':
      if (scanner.take_word("end")) return of_kind(Kind::commit);
      break;
    case 'r':
      if (scanner.take_word("rollback")) return recognise_rollback(scanner);
      break;
    case 'a':
      if (scanner.take_word("abort")) return of_kind(Kind::rollback);
      break;
    case 'd':
      if (scanner.take_word("delete")) return of_kind(Kind::delete_rows);
      break;
    default:
      break;
  }
  return recognise_other(scanner);
}

std::string_view next_statement(std::string_view& rest) noexcept {
  while (!rest.empty()) {
    const size_t end = find_semicolon(rest);
    const std::string_view statement = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (!SqlScanner(statement).at_end()) return statement;
  }
  return {};
}

bool leaves_failed_block(StatementKind kind) noexcept {
  return kind == Kind::commit || kind == Kind::rollback || kind == Kind::rollback_to;
}

uint8_t parameters_count(std::string_view text) noexcept {
  uint8_t count = 0;
  size_t at = 0;
  while (at < text.size()) {
    uint8_t number = 0;
    if (text[at] == '$' && SqlScanner(text.substr(at)).take_parameter(number))
      count = std::max(count, number);
    at = skip_piece(text, at);
  }
  return count;
}

size_t write_command_tag(std::string_view text, char* to) noexcept {
  SqlScanner scanner(text);
  const std::string_view first = scanner.take_any_word();
  SqlScanner after_first(text);
  const bool names_kind = after_first.take_word("create") || after_first.take_word("alter") ||
                          after_first.take_word("drop") || after_first.take_word("discard") ||
                          after_first.take_word("prepare");
  // Of a table, the tag does not tell the kind.
  if (SqlScanner(first).take_word("create"))
    (void)(scanner.take_word("temp") || scanner.take_word("temporary") ||
           scanner.take_word("unlogged"));
  std::string_view second = names_kind ? scanner.take_any_word() : std::string_view();
  if (SqlScanner(first).take_word("truncate")) second = "table";
  if (SqlScanner(first).take_word("prepare") && !SqlScanner(second).take_word("transaction"))
    second = {};
  size_t size = 0;
  const auto add = [&](std::string_view word) {
    for (const char c : word.substr(0, command_tag_size_max / 2 - 1))
      to[size++] = c >= 'a' && c <= 'z' ? static_cast<char>(c - ('a' - 'A')) : c;
  };
  add(first);
  if (second.empty()) return size;
  to[size++] = ' ';
  add(second);
  return size;
}

SettingChange read_setting(std::string_view text) noexcept {
  SettingChange change;
  SqlScanner scanner(text);
  const bool is_set = scanner.take_word("set");
  if (!is_set) (void)scanner.take_any_word();  // RESET or SHOW.
  if (is_set && !scanner.take_word("session")) change.is_local = scanner.take_word("local");
  if (scanner.take_word("time")) {
    if (!scanner.take_word("zone")) return change;
    change.name = "TimeZone";
  } else {
    change.name = scanner.take_any_word();
    if (is_set && !scanner.take_symbol("=") && !scanner.take_word("to")) change.name = {};
  }
  if (!is_set || change.name.empty()) return change;
  change.value = unquoted(scanner.left());
  change.is_default = scanner.take_word("default") && scanner.at_end();
  return change;
}

std::string_view read_deallocate(std::string_view text) noexcept {
  SqlScanner scanner(text);
  (void)scanner.take_word("deallocate");
  (void)scanner.take_word("prepare");
  if (SqlScanner(scanner.left()).take_word("all")) return {};
  return unquoted(scanner.left());
}

}  // namespace helios::bench
