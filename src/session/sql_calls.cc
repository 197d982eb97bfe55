#include "session/sql_calls.h"

#include <algorithm>
#include <array>

#include "helios/base/assert.h"
#include "session/catalog_names.h"

namespace helios {
namespace {

// --- What stands before it ---

// Behind these words stands a table, a type, an alias or the like, and behind that a list of
// columns or of types. (Eight letters decide: behind any word that is no keyword there is no call
// either.)
bool is_before_no_call(std::string_view word) {
  switch (code_of(word)) {
    case code_of("into"):
    case code_of("as"):
    case code_of("table"):
    case code_of("exists"):
    case code_of("with"):
    case code_of("recursive"):
    case code_of("references"):
    case code_of("copy"):
    case code_of("analyze"):
    case code_of("vacuum"):
    case code_of("view"):
    case code_of("type"):
    case code_of("of"):
    case code_of("execute"):
    case code_of("function"):
    case code_of("procedure"):
    case code_of("routine"):
    case code_of("aggregate"):
    case code_of("statistics"):
      return true;
    default:
      return false;
  }
}

// Words of SQL that may name a function as well, but not behind the other one. ")": behind one.
struct WordPair {
  std::string_view before;
  std::string_view word;
};
constexpr WordPair word_pairs[] = {
    {")", "over"},       {")", "filter"},      {"group", "by"},          {"order", "by"},
    {"partition", "by"}, {"on", "conflict"},   {"primary", "key"},       {"foreign", "key"},
    {"by", "range"},     {"by", "list"},       {"by", "hash"},           {"by", "rollup"},
    {"by", "cube"},      {"grouping", "sets"}, {"time", "zone"},         {"as", "materialized"},
    {"as", "identity"},  {"as", "enum"},       {"not", "materialized"},  {"then", "insert"},
    {"bit", "varying"},  {"char", "varying"},  {"character", "varying"}, {")", "include"},
    {")", "inherits"},   {"then", "update"},   {"do", "also"},           {"do", "instead"},
};

bool is_pair(const SqlCall& call) {
  if (call.schema.kind != SqlTokenKind::end || call.name.kind != SqlTokenKind::word) return false;
  return std::any_of(std::begin(word_pairs), std::end(word_pairs), [&](const WordPair& pair) {
    const bool is_behind =
        pair.before == ")" ? call.before.is_symbol(')') : call.before.is_word(pair.before);
    return is_behind && equals_word(call.name.text, pair.word);
  });
}

// --- Names of functions ---

// The server folds what does not stand in quotes to lower case.
bool is_name_of(const SqlToken& token, std::string_view name) {
  return token.kind == SqlTokenKind::word ? equals_word(token.text, name) : token.text == name;
}

// "*" at the end of `listed` stands for any end of the name.
bool fits(SqlToken name, std::string_view listed) {
  if (!listed.ends_with('*')) return is_name_of(name, listed);
  listed.remove_suffix(1);
  name.text = name.text.substr(0, listed.size());
  return is_name_of(name, listed);
}

bool is_listed(const SqlCall& call, std::string_view listed) {
  if (call.schema.kind == SqlTokenKind::end) return fits(call.name, listed);
  const size_t dot = call.schema.text.size();
  return listed.size() > dot && listed[dot] == '.' &&
         is_name_of(call.schema, listed.substr(0, dot)) && fits(call.name, listed.substr(dot + 1));
}

bool has_capital(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

// --- A text from behind ---

constexpr std::array<bool, 256> letters_of_names() {
  std::array<bool, 256> letters{};
  for (size_t c = 0; c < letters.size(); ++c)
    letters[c] = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 c == '_' || c == '$' || c >= 0x80;
  return letters;
}
constexpr std::array<bool, 256> name_letters = letters_of_names();

constexpr bool is_blank(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

constexpr bool begins_name(char c) {
  return name_letters[static_cast<uint8_t>(c)] && (c < '0' || c > '9') && c != '$';
}

// The same as a BackwardReader finds where there is nothing but names and single spaces: false says
// nothing. Where the text does not reach back far enough for that, it is false, too.
[[gnu::hot]] bool is_commonly_harmless(std::string_view text, size_t place) {
  const char* const begin = text.data();
  const char* at = begin + place;
  const auto is_in_word = [&] { return at > begin && name_letters[static_cast<uint8_t>(at[-1])]; };
  const auto skip_space = [&] {
    if (at > begin && at[-1] == ' ') --at;
    return at > begin && !is_blank(at[-1]) && at[-1] != '/';
  };
  if (!skip_space()) return false;
  const bool is_quoted = at[-1] == '"';
  if (is_quoted) --at;
  const char* end = at;
  while (is_in_word()) --at;
  if (at == end) return !is_quoted;
  const std::string_view name(at, static_cast<size_t>(end - at));
  if (is_quoted && (at == begin || *--at != '"')) return false;
  if (!skip_space() || at[-1] == '.' || at[-1] == '"' || !begins_name(name.front())) return false;
  if (!is_quoted && find_catalog_name(name) != CatalogName::unknown) return true;
  end = at;
  while (is_in_word()) --at;
  return at > begin && at < end && begins_name(*at) &&
         is_before_no_call({at, static_cast<size_t>(end - at)});
}

// Unsure as soon as what it has passed may be in a comment, or begin before the text.
class BackwardReader {
 public:
  BackwardReader(std::string_view text, size_t place, bool is_begin)
      : text_(text), place_(place), is_begin_(is_begin) {}

  [[nodiscard]] bool is_unsure() const { return is_unsure_; }
  [[nodiscard]] bool is_at_begin() const { return place_ == 0; }
  [[nodiscard]] bool is_behind(char c) const { return place_ > 0 && text_[place_ - 1] == c; }
  [[nodiscard]] bool is_behind_word() const {
    return place_ > 0 && name_letters[static_cast<uint8_t>(text_[place_ - 1])];
  }
  [[nodiscard]] bool is_behind_name() const { return is_behind_word() || is_behind('"'); }

  // The token before is another one then.
  void skip_blanks() {
    bool is_other_line = false;
    while (place_ > 0 && is_blank(text_[place_ - 1])) {
      --place_;
      is_other_line = is_other_line || text_[place_] == '\n' || text_[place_] == '\r';
    }
    if (is_other_line) skip_comments_of_line();
    if (place_ == 0 && !is_begin_) is_unsure_ = true;
    if (is_behind('/') && place_ > 1 && text_[place_ - 2] == '*') is_unsure_ = true;
  }
  bool take(char c) {
    if (!is_behind(c)) return false;
    --place_;
    return true;
  }
  SqlToken take_word() {
    const size_t end = place_;
    while (is_behind_word()) --place_;
    if (place_ == 0 && !is_begin_) is_unsure_ = true;
    // The end of a number or of a dollar quote may be a part of it.
    const char first = text_[place_];
    if ((first >= '0' && first <= '9') || first == '$') is_unsure_ = true;
    return {SqlTokenKind::word, text_.substr(place_, end - place_)};
  }
  SqlToken take_name() {
    if (is_behind_word()) return take_word();
    const size_t end = place_ - 1;
    const size_t begin = end == 0 ? std::string_view::npos : text_.rfind('"', end - 1);
    // Of an escaped quote it would be the wrong one.
    is_unsure_ =
        is_unsure_ || begin == std::string_view::npos || begin == 0 || text_[begin - 1] == '"';
    if (is_unsure_) return {};
    place_ = begin;
    return {SqlTokenKind::quoted_word, text_.substr(begin + 1, end - begin - 1)};
  }
  // What there is: a word, or a single letter of something else.
  SqlToken take_any() {
    if (is_behind_word()) return take_word();
    if (is_at_begin()) return {};
    return {SqlTokenKind::symbol, text_.substr(--place_, 1)};
  }

 private:
  // What ends with its line may be a comment.
  void skip_comments_of_line() {
    size_t i = place_;
    while (i > 0 && text_[i - 1] != '\n' && text_[i - 1] != '\r') {
      --i;
      if (text_[i] == '-' && i > 0 && text_[i - 1] == '-') is_unsure_ = true;
    }
    if (i == 0 && !is_begin_) is_unsure_ = true;
  }

  std::string_view text_;
  size_t place_;
  bool is_begin_;
  bool is_unsure_ = false;
};

}  // namespace

[[gnu::hot]] bool is_of_catalog(const SqlCall& call) noexcept {
  if (call.is_deep) return false;
  const bool has_schema = call.schema.kind != SqlTokenKind::end;
  // These read the catalogs only.
  if (has_schema && call.schema.is_name("information_schema")) return true;
  if (has_schema && !call.schema.is_name("pg_catalog")) return false;
  const bool is_quoted = call.name.kind == SqlTokenKind::quoted_word;
  switch (find_catalog_name(call.name.text)) {
    case CatalogName::unknown:
      return false;
    case CatalogName::function:
      return !is_quoted || !has_capital(call.name.text);
    case CatalogName::word:
      return !is_quoted && !has_schema;
  }
  UNREACHABLE("catalog name");
}

bool is_no_call(const SqlCall& call, std::span<const std::string> harmless) noexcept {
  if (call.is_cast) return true;
  if (call.before.kind == SqlTokenKind::word && is_before_no_call(call.before.text)) return true;
  if (is_pair(call)) return true;
  return !call.is_deep && std::any_of(harmless.begin(), harmless.end(),
                                      [&](const auto& listed) { return is_listed(call, listed); });
}

// Apart from the common case, whose path is short so.
[[gnu::noinline]] static bool is_harmless_behind(std::string_view text, size_t place, bool is_begin,
                                                 std::span<const std::string> harmless) {
  BackwardReader reader(text, place, is_begin);
  reader.skip_blanks();
  if (reader.is_unsure()) return false;
  if (!reader.is_behind_name()) return true;
  SqlCall call;
  call.name = reader.take_name();
  reader.skip_blanks();
  if (reader.is_unsure()) return false;
  if (reader.take('.')) {
    reader.skip_blanks();
    if (!reader.is_behind_name()) return false;
    call.schema = reader.take_name();
    reader.skip_blanks();
    call.is_deep = reader.is_behind('.');
  }
  if (reader.is_unsure()) return false;
  if (is_of_catalog(call)) return true;
  call.before = reader.take_any();
  call.is_cast = call.before.is_symbol(':') && reader.is_behind(':');
  return !reader.is_unsure() && is_no_call(call, harmless);
}

[[gnu::hot]] bool is_harmless_parenthesis(std::string_view text, size_t place, bool is_begin,
                                          std::span<const std::string> harmless) noexcept {
  DEBUG_ASSERT(place < text.size() && text[place] == '(');
  return is_commonly_harmless(text, place) || is_harmless_behind(text, place, is_begin, harmless);
}

}  // namespace helios
