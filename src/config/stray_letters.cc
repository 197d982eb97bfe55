#include "config/stray_letters.h"

namespace helios {
namespace {

constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";

bool is_stray(char letter) noexcept {
  const auto byte = static_cast<unsigned char>(letter);
  const bool is_space = letter == '\t' || letter == '\n' || letter == '\r';
  return byte >= 0x7f || (byte < ' ' && !is_space);
}

// Where a text stands between strings and comments. Text that is not TOML may be taken for
// something else, but then the parser stops at the place where the two begin to differ.
class Scanner {
 public:
  explicit Scanner(std::string_view text) noexcept : text_(text) {}

  [[nodiscard]] std::optional<Place> find() noexcept {
    if (text_.starts_with(byte_order_mark)) at_ = byte_order_mark.size();
    while (at_ < text_.size()) {
      if (is_at_stray()) return place();
      step();
    }
    return std::nullopt;
  }

 private:
  [[nodiscard]] bool is_at_stray() const noexcept {
    if (is_in_comment_) return false;
    if (quote_.empty()) return is_stray(text_[at_]);
    const bool is_escape = quote_.front() == '"' && text_[at_] == '\\' && at_ + 1 < text_.size();
    return is_escape && is_stray(text_[at_ + 1]);
  }

  void step() noexcept {
    const char letter = text_[at_];
    const std::string_view rest = text_.substr(at_);
    size_t size = 1;
    if (letter == '\n') {
      is_in_comment_ = false;
      if (quote_.size() == 1) quote_ = {};
    } else if (is_in_comment_) {
    } else if (quote_.empty()) {
      is_in_comment_ = letter == '#';
      if (letter == '"') quote_ = rest.starts_with("\"\"\"") ? "\"\"\"" : "\"";
      if (letter == '\'') quote_ = rest.starts_with("'''") ? "'''" : "'";
      if (!quote_.empty()) size = quote_.size();
    } else if (letter == '\\' && quote_.front() == '"') {
      // Not past a line's end, which ends a string of one line.
      size = rest.size() > 1 && rest[1] != '\n' ? 2 : 1;
    } else if (rest.starts_with(quote_)) {
      size = quote_.size();
      // A string in three quotes may end with up to two more that belong to it.
      if (size == 3) size += extra_quote_count(rest.substr(3));
      quote_ = {};
    }
    at_ += size;
  }

  [[nodiscard]] size_t extra_quote_count(std::string_view rest) const noexcept {
    size_t count = 0;
    while (count < 2 && count < rest.size() && rest[count] == quote_.front()) ++count;
    return count;
  }

  [[nodiscard]] Place place() const noexcept {
    Place result;
    for (const char letter : text_.substr(0, at_)) {
      const bool is_inner_byte = (static_cast<unsigned char>(letter) & 0xc0) == 0x80;
      if (!is_inner_byte) ++result.column;
      if (letter == '\n') result = {result.line + 1, 1};
    }
    return result;
  }

  std::string_view text_;
  size_t at_ = 0;
  std::string_view quote_;  // What ends the string at hand; empty outside of strings.
  bool is_in_comment_ = false;
};

}  // namespace

std::optional<Place> find_stray_letter(std::string_view text) noexcept {
  return Scanner(text).find();
}

}  // namespace helios
