// Splits the text of a query into tokens, as PostgreSQL's own scanner does (src/backend/parser/
// scan.l), as far as it takes to tell code from comments, literals and quoted names.
//
// A view into the caller's text: nothing is copied or allocated, each byte is looked at once. Pure;
// any thread.
//
// Bytes from 0x80 on are letters of names, whatever the client's encoding. In some encodings the
// second byte of a letter may be a backslash, which matters only where backslashes do: there the
// scanner is unsure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace helios {

enum class SqlTokenKind : uint8_t {
  end,
  word,         // A keyword or a plain name.
  quoted_word,  // "name"; `text` has no quotes around it, those inside are still doubled.
  string,       // 'text' or $tag$text$tag$; `text` as it stands between the quotes.
  escaped,      // E'text', or a plain one where backslashes escape: `text` as it is written.
  number,       // And parameters: $1.
  symbol,       // Any other letter, alone.
  unsure,  // Something that is not closed, or cannot be read with certainty. Nothing follows it.
};

struct SqlToken {
  SqlTokenKind kind = SqlTokenKind::end;
  std::string_view text;

  [[nodiscard]] bool is_symbol(char c) const noexcept {
    return kind == SqlTokenKind::symbol && text.front() == c;
  }
  // A word, in any case. `word`: in lower case.
  [[nodiscard]] bool is_word(std::string_view word) const noexcept;
  // The same for a name, which may stand in quotes (and then has its case).
  [[nodiscard]] bool is_name(std::string_view name) const noexcept {
    return is_word(name) || (kind == SqlTokenKind::quoted_word && text == name);
  }
  [[nodiscard]] bool is_any_name() const noexcept {
    return kind == SqlTokenKind::word || kind == SqlTokenKind::quoted_word;
  }
};

// `word`: in lower case. Letters outside ASCII are compared as they are.
[[nodiscard]] bool equals_word(std::string_view text, std::string_view word) noexcept;
[[nodiscard]] bool begins_with_word(std::string_view text, std::string_view word) noexcept;

class SqlScanner {
 public:
  // `standard_strings`: the session's standard_conforming_strings. The text ends at its first NUL,
  // if there is one.
  explicit SqlScanner(std::string_view text, bool standard_strings = true) noexcept;

  // The next token; `end` behind the last one, again and again.
  [[nodiscard]] SqlToken next() noexcept;

 private:
  [[nodiscard]] bool skip_blanks() noexcept;
  [[nodiscard]] bool skip_comment() noexcept;
  [[nodiscard]] SqlToken take(SqlTokenKind kind, size_t size) noexcept;
  [[nodiscard]] SqlToken take_word() noexcept;
  [[nodiscard]] SqlToken take_number() noexcept;
  [[nodiscard]] SqlToken take_quoted_word() noexcept;
  [[nodiscard]] SqlToken take_string(size_t prefix_size, bool has_escapes) noexcept;
  [[nodiscard]] SqlToken take_dollar() noexcept;
  [[nodiscard]] SqlToken give_up() noexcept;
  [[nodiscard]] char at(size_t offset) const noexcept {
    return offset < left_.size() ? left_[offset] : '\0';
  }

  std::string_view left_;
  bool standard_strings_;
};

}  // namespace helios
