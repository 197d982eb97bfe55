// Walks over SQL word by word: spaces and comments do not count, nor does the case of words.
//
// A view into the caller's text. Each take_ function moves over what it names and answers whether
// it was there; when not, nothing is moved.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace helios::bench {

[[nodiscard]] constexpr bool is_space(char c) noexcept {
  return c == ' ' || (c >= '\t' && c <= '\r');
}
[[nodiscard]] constexpr bool is_digit(char c) noexcept {
  return c >= '0' && c <= '9';
}
[[nodiscard]] constexpr char lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}
[[nodiscard]] constexpr bool is_word_byte(char c) noexcept {
  return (lower(c) >= 'a' && lower(c) <= 'z') || is_digit(c) || c == '_' || c < 0;
}

class SqlScanner {
 public:
  explicit SqlScanner(std::string_view text) noexcept : left_(text) { skip_blanks(); }

  [[nodiscard]] bool at_end() const noexcept { return left_.empty(); }
  [[nodiscard]] std::string_view left() const noexcept { return left_; }
  [[nodiscard]] char front() const noexcept { return left_.empty() ? '\0' : left_.front(); }

  // The next word as it is written; empty when something else is next.
  [[nodiscard]] std::string_view take_any_word() noexcept {
    const std::string_view word = left_.substr(0, word_size());
    drop(word.size());
    return word;
  }

  // `word`: in lower case.
  [[nodiscard]] bool take_word(std::string_view word) noexcept {
    if (!begins_with(word)) return false;
    if (left_.size() > word.size() && is_word_byte(left_[word.size()])) return false;
    drop(word.size());
    return true;
  }

  [[nodiscard]] bool take_symbol(std::string_view symbol) noexcept {
    if (left_.substr(0, symbol.size()) != symbol) return false;
    drop(symbol.size());
    return true;
  }

  // A whole number that fits.
  [[nodiscard]] bool take_number(int64_t& value) noexcept {
    const char* end = left_.data() + left_.size();
    const auto [stop, error] = std::from_chars(left_.data(), end, value);
    if (error != std::errc()) return false;
    if (stop != end && (is_word_byte(*stop) || *stop == '.')) return false;
    drop(static_cast<size_t>(stop - left_.data()));
    return true;
  }

  // `$1` to `$255`.
  [[nodiscard]] bool take_parameter(uint8_t& number) noexcept {
    if (front() != '$') return false;
    const char* end = left_.data() + left_.size();
    const auto [stop, error] = std::from_chars(left_.data() + 1, end, number);
    if (error != std::errc() || number == 0) return false;
    drop(static_cast<size_t>(stop - left_.data()));
    return true;
  }

  void skip_one() noexcept { drop(left_.empty() ? 0 : 1); }

 private:
  [[nodiscard]] bool begins_with(std::string_view word) const noexcept {
    if (left_.size() < word.size()) return false;
    for (size_t i = 0; i < word.size(); ++i)
      if (lower(left_[i]) != word[i]) return false;
    return true;
  }

  [[nodiscard]] size_t word_size() const noexcept {
    size_t size = 0;
    while (size < left_.size() && is_word_byte(left_[size])) ++size;
    return size;
  }

  void drop(size_t count) noexcept {
    left_.remove_prefix(count);
    skip_blanks();
  }

  void skip_blanks() noexcept {
    while (!left_.empty()) {
      if (is_space(left_.front())) {
        left_.remove_prefix(1);
      } else if (left_.starts_with("--")) {
        skip_behind("\n");
      } else if (left_.starts_with("/*")) {
        skip_behind("*/");
      } else {
        return;
      }
    }
  }

  void skip_behind(std::string_view end) noexcept {
    const size_t at = left_.find(end, 2);
    left_.remove_prefix(at == std::string_view::npos ? left_.size() : at + end.size());
  }

  std::string_view left_;
};

}  // namespace helios::bench
