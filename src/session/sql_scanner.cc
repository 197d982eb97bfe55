#include "helios/session/sql_scanner.h"

#include <algorithm>

#include "helios/base/assert.h"

namespace helios {
namespace {

constexpr char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

constexpr bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

constexpr bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

constexpr bool is_high(char c) {
  return static_cast<unsigned char>(c) >= 0x80;
}

constexpr bool begins_name(char c) {
  return (lower(c) >= 'a' && lower(c) <= 'z') || c == '_' || is_high(c);
}

// Of a plain name or keyword. Tags of dollar quotes have no dollar.
constexpr bool continues_tag(char c) {
  return begins_name(c) || is_digit(c);
}

constexpr bool continues_name(char c) {
  return continues_tag(c) || c == '$';
}

}  // namespace

bool begins_with_word(std::string_view text, std::string_view word) noexcept {
  if (text.size() < word.size()) return false;
  for (size_t i = 0; i < word.size(); ++i)
    if (lower(text[i]) != word[i]) return false;
  return true;
}

bool equals_word(std::string_view text, std::string_view word) noexcept {
  return text.size() == word.size() && begins_with_word(text, word);
}

bool SqlToken::is_word(std::string_view word) const noexcept {
  return kind == SqlTokenKind::word && equals_word(text, word);
}

SqlScanner::SqlScanner(std::string_view text, bool standard_strings) noexcept
    : left_(text.substr(0, text.find('\0'))), standard_strings_(standard_strings) {}

SqlToken SqlScanner::next() noexcept {
  if (!skip_blanks()) return give_up();
  if (left_.empty()) return {};
  const char first = left_.front();
  if (first == '\'') return take_string(0, !standard_strings_);
  if (first == '"') return take_quoted_word();
  if (first == '$') return take_dollar();
  if (is_digit(first)) return take_number();
  if (!begins_name(first)) return take(SqlTokenKind::symbol, 1);
  switch (lower(first)) {
    case 'e':
      if (at(1) == '\'') return take_string(1, true);
      break;
    case 'b':
    case 'x':
      if (at(1) == '\'') return take_string(1, false);
      break;
    case 'n':
      if (at(1) == '\'') return take_string(1, !standard_strings_);
      break;
    case 'u':
      // Letters by their numbers, with an escape letter of one's own.
      if (at(1) == '&' && (at(2) == '\'' || at(2) == '"')) return give_up();
      break;
    default:
      break;
  }
  return take_word();
}

// False: a comment is not closed.
bool SqlScanner::skip_blanks() noexcept {
  while (!left_.empty()) {
    if (is_space(left_.front())) {
      left_.remove_prefix(1);
    } else if (left_.front() == '-' && at(1) == '-') {
      left_.remove_prefix(std::min(left_.find_first_of("\n\r"), left_.size()));
    } else if (left_.front() == '/' && at(1) == '*') {
      if (!skip_comment()) return false;
    } else {
      return true;
    }
  }
  return true;
}

// These nest.
bool SqlScanner::skip_comment() noexcept {
  size_t depth = 0;
  size_t i = 0;
  while (i + 1 < left_.size()) {
    if (left_[i] == '/' && left_[i + 1] == '*') {
      ++depth;
      i += 2;
    } else if (left_[i] == '*' && left_[i + 1] == '/') {
      i += 2;
      if (--depth == 0) {
        left_.remove_prefix(i);
        return true;
      }
    } else {
      ++i;
    }
  }
  return false;
}

SqlToken SqlScanner::take(SqlTokenKind kind, size_t size) noexcept {
  DEBUG_ASSERT(size > 0 && size <= left_.size());
  const std::string_view text = left_.substr(0, size);
  left_.remove_prefix(size);
  return {kind, text};
}

SqlToken SqlScanner::take_word() noexcept {
  size_t size = 1;
  while (size < left_.size() && continues_name(left_[size])) ++size;
  return take(SqlTokenKind::word, size);
}

// The sign of an exponent is a symbol of its own here. Letters may follow without a space: "1and".
SqlToken SqlScanner::take_number() noexcept {
  size_t size = 1;
  while (size < left_.size() && (is_digit(left_[size]) || left_[size] == '.')) ++size;
  return take(SqlTokenKind::number, size);
}

SqlToken SqlScanner::take_quoted_word() noexcept {
  size_t end = left_.find('"', 1);
  while (end != std::string_view::npos && at(end + 1) == '"') end = left_.find('"', end + 2);
  if (end == std::string_view::npos) return give_up();
  const std::string_view text = left_.substr(1, end - 1);
  left_.remove_prefix(end + 1);
  return {SqlTokenKind::quoted_word, text};
}

SqlToken SqlScanner::take_string(size_t prefix_size, bool has_escapes) noexcept {
  const size_t begin = prefix_size + 1;
  size_t i = begin;
  for (;;) {
    i = has_escapes ? left_.find_first_of("'\\", i) : left_.find('\'', i);
    if (i == std::string_view::npos) return give_up();
    if (left_[i] == '\\') {
      // It may be the second byte of a letter.
      if (i > begin && is_high(left_[i - 1])) return give_up();
      i += 2;
    } else if (at(i + 1) == '\'') {
      i += 2;
    } else {
      break;
    }
  }
  const std::string_view text = left_.substr(begin, i - begin);
  left_.remove_prefix(i + 1);
  return {has_escapes ? SqlTokenKind::escaped : SqlTokenKind::string, text};
}

// A dollar quote, a parameter, or a dollar alone.
SqlToken SqlScanner::take_dollar() noexcept {
  size_t size = 1;
  if (is_digit(at(1))) {
    while (size < left_.size() && is_digit(left_[size])) ++size;
    return take(SqlTokenKind::number, size);
  }
  if (begins_name(at(1)))
    while (size < left_.size() && continues_tag(left_[size])) ++size;
  if (at(size) != '$') return take(SqlTokenKind::symbol, 1);
  const std::string_view tag = left_.substr(0, size + 1);
  const size_t end = left_.find(tag, tag.size());
  if (end == std::string_view::npos) return give_up();
  const std::string_view text = left_.substr(tag.size(), end - tag.size());
  left_.remove_prefix(end + tag.size());
  return {SqlTokenKind::string, text};
}

SqlToken SqlScanner::give_up() noexcept {
  left_ = {};
  return {SqlTokenKind::unsure, {}};
}

}  // namespace helios
