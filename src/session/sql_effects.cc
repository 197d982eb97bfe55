#include "helios/session/sql_effects.h"

#include <algorithm>
#include <cstring>

#include "helios/pool/parameters.h"
#include "helios/session/sql_scanner.h"

namespace helios {
namespace {

// --- The quick look ---

using Letters = uint8_t __attribute__((vector_size(16)));

Letters load(const char* text) {
  Letters letters;
  std::memcpy(&letters, text, sizeof(letters));
  return letters;
}

constexpr Letters all(uint8_t letter) {
  return Letters{} + letter;
}

// Three letters of each telling word, so rare that few other queries have them: t-emp, set_con-fig,
// a-dvi-sory. Behind a semicolon follows another statement; U& begins letters by their numbers.
// Looks at 18 letters for what begins in the first 16.
bool has_telling_letters_here(const char* text) {
  const Letters a = load(text), b = load(text + 1), c = load(text + 2);
  const Letters x = a | 0x20, y = b | 0x20, z = c | 0x20;  // In lower case.
  const auto found = ((x == all('e')) & (y == all('m')) & (z == all('p'))) |
                     ((x == all('f')) & (y == all('i')) & (z == all('g'))) |
                     ((x == all('d')) & (y == all('v')) & (z == all('i'))) |
                     ((x == all('u')) & (b == all('&'))) | (a == all(';'));
  uint64_t halves[2];
  static_assert(sizeof(halves) == sizeof(found));
  std::memcpy(halves, &found, sizeof(halves));
  return (halves[0] | halves[1]) != 0;
}

// The first eight letters of a word in lower case, as a number.
constexpr uint64_t code_of(std::string_view word) {
  uint64_t code = 0;
  for (const char c : word.substr(0, 8)) code = code << 8 | (static_cast<uint8_t>(c) | 0x20);
  return code;
}

constexpr bool is_letter(char c) {
  return static_cast<uint8_t>((static_cast<uint8_t>(c) | 0x20) - 'a') < 26;
}

// A simple comment in front of the query: some tools put one there. Empty when it is not simple.
std::string_view behind_comments(std::string_view text) {
  for (;;) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t\n\r"), text.size()));
    if (!text.starts_with("/*")) return text;
    const size_t end = text.find("*/", 2);
    if (end == std::string_view::npos || text.substr(2, end - 2).find("/*") != text.npos) return {};
    text.remove_prefix(end + 2);
  }
}

// Without what ends a single statement.
[[gnu::hot]] std::string_view without_end(std::string_view text) {
  const auto drop = [&](auto is_dropped) {
    while (!text.empty() && is_dropped(text.back())) text.remove_suffix(1);
  };
  const auto is_blank = [](char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; };
  drop([](char c) { return c == '\0'; });
  drop(is_blank);
  if (!text.empty() && text.back() == ';') text.remove_suffix(1);
  return text;
}

// --- The whole text ---

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

// A literal that is its own text.
bool is_plain_text(const SqlToken& token) {
  return (token.kind == SqlTokenKind::string || token.kind == SqlTokenKind::escaped) &&
         is_ascii(token.text) && token.text.find_first_of("'\\") == std::string_view::npos;
}

uint16_t effects_of_function(std::string_view name) {
  constexpr std::string_view prefixes[] = {"pg_advisory_", "pg_try_advisory_"};
  for (const std::string_view prefix : prefixes) {
    if (!begins_with_word(name, prefix)) continue;
    name.remove_prefix(prefix.size());
    if (begins_with_word(name, "xact")) return 0;
    return begins_with_word(name, "unlock") ? sql_effect::ends : sql_effect::lock;
  }
  return 0;
}

constexpr std::string_view known_statements[] = {
    "abort",    "alter",  "analyse",  "analyze",   "begin",    "checkpoint", "cluster", "comment",
    "commit",   "copy",   "delete",   "end",       "fetch",    "grant",      "import",  "insert",
    "lock",     "merge",  "move",     "notify",    "reassign", "refresh",    "reindex", "release",
    "revoke",   "show",   "rollback", "savepoint", "security", "select",     "start",   "table",
    "truncate", "update", "vacuum",   "values",    "with",
};

// Reads a text statement by statement.
class EffectsReader {
 public:
  EffectsReader(std::string_view text, bool standard_strings)
      : scanner_(text, standard_strings), token_(scanner_.next()) {}

  SqlEffects read() {
    while (!is_at_end()) {
      if (!token_.is_symbol(';')) read_statement();
      if (token_.is_symbol(';')) advance();
    }
    if (token_.kind == SqlTokenKind::unsure) add(sql_effect::unseen);
    return effects_;
  }

 private:
  void add(uint16_t bits) { effects_.bits = static_cast<uint16_t>(effects_.bits | bits); }
  [[nodiscard]] bool is_at_end() const {
    return token_.kind == SqlTokenKind::end || token_.kind == SqlTokenKind::unsure;
  }
  [[nodiscard]] bool is_statement_over() const { return is_at_end() || token_.is_symbol(';'); }
  void advance() { token_ = scanner_.next(); }
  // Moves over a word if it is the next.
  bool take(std::string_view word) {
    if (!token_.is_word(word)) return false;
    advance();
    return true;
  }

  void read_statement();
  void skip_explain();
  bool skip_prepare();
  void read_set();
  void read_reset();
  void read_discard();
  void read_create();
  void read_rest(std::string_view command);
  void read_body();
  void read_into();
  void read_set_config();
  void note_word();
  void skip_parentheses();
  std::string_view take_parameter_name();
  void note_parameter(std::string_view name);
  void note_literals(std::string_view name);
  void note_reset(std::string_view name);
  void note_value(std::string_view name, const SqlToken& value);

  SqlScanner scanner_;
  SqlToken token_;
  SqlEffects effects_;
};

void EffectsReader::read_statement() {
  while (token_.is_symbol('(')) advance();  // Around a query.
  if (token_.is_word("explain")) skip_explain();
  if (token_.is_word("prepare") && !skip_prepare()) return;
  if (take("set")) return read_set();
  if (take("reset")) return read_reset();
  if (take("discard")) return read_discard();
  if (take("create")) return read_create();
  struct Simple {
    std::string_view word;
    uint16_t bits;
  };
  constexpr Simple simple[] = {
      {"listen", sql_effect::listening}, {"unlisten", sql_effect::ends},
      {"deallocate", sql_effect::ends},  {"load", sql_effect::library},
      {"close", sql_effect::ends},       {"drop", sql_effect::ends},
      {"do", sql_effect::unseen},        {"call", sql_effect::unseen},
      {"execute", sql_effect::executes}, {"declare", 0},
  };
  for (const auto& [word, bits] : simple) {
    if (!token_.is_word(word)) continue;
    add(bits);
    return read_rest(word);
  }
  for (const std::string_view word : known_statements)
    if (token_.is_word(word)) return read_rest(word);
  // A statement of a later version, or none at all.
  add(sql_effect::unseen);
  read_rest({});
}

// EXPLAIN ANALYZE does what it explains.
void EffectsReader::skip_explain() {
  advance();
  if (token_.is_symbol('(')) return skip_parentheses();
  while (take("analyze") || take("analyse") || take("verbose")) {
  }
}

// False: there is no statement in it.
bool EffectsReader::skip_prepare() {
  advance();
  if (token_.is_word("transaction")) {
    read_rest({});
    return false;
  }
  add(sql_effect::prepares);
  advance();
  if (token_.is_symbol('(')) skip_parentheses();
  return take("as");
}

void EffectsReader::skip_parentheses() {
  size_t depth = 0;
  do {
    if (token_.is_symbol('(')) ++depth;
    if (token_.is_symbol(')')) --depth;
    advance();
  } while (depth > 0 && !is_at_end());
}

void EffectsReader::read_set() {
  const bool is_local = take("local");
  const bool is_session = !is_local && take("session");
  if (token_.is_word("transaction") || token_.is_word("constraints")) {
    // For this transaction only.
  } else if (is_session && token_.is_word("authorization")) {
    add(sql_effect::role);
  } else {
    std::string_view name = take_parameter_name();
    if (equals_word(name, "time")) (void)take("zone");
    if (equals_word(name, "names")) name = "client_encoding";
    if (token_.is_symbol('=') || token_.is_word("to")) advance();
    note_value(name, token_);
    note_literals(name);
    if (!is_local && token_.is_word("default")) {
      note_reset(name);
    } else if (!is_local) {
      note_parameter(name);
    }
  }
  read_rest({});
}

// A name with its dots; empty when it is not in one piece, or cannot be kept as it is.
std::string_view EffectsReader::take_parameter_name() {
  if (!token_.is_any_name()) return {};
  const bool is_quoted = token_.kind == SqlTokenKind::quoted_word;
  std::string_view name = token_.text;
  advance();
  while (token_.is_symbol('.')) {
    const SqlToken dot = token_;
    advance();
    const char* const end = name.data() + name.size();
    if (is_quoted || token_.kind != SqlTokenKind::word || dot.text.data() != end ||
        token_.text.data() != end + 1)
      return {};
    name = {name.data(), name.size() + 1 + token_.text.size()};
    advance();
  }
  return is_ascii(name) ? name : std::string_view();
}

// `name`: empty when it is not known.
void EffectsReader::note_parameter(std::string_view name) {
  if (name.empty()) return add(sql_effect::setting | sql_effect::unseen);
  if (equals_word(name, "role") || equals_word(name, "session_authorization"))
    return add(sql_effect::role);
  // Every server reports these. SET TIME ZONE sets TimeZone.
  if (is_settable_later(name) || equals_word(name, "time")) return;
  add(sql_effect::setting);
  if (name.find('.') != std::string_view::npos) effects_.add_name(name);
}

// Where pg_temp comes first in the search path, every table that is made is temporary.
void EffectsReader::note_value(std::string_view name, const SqlToken& value) {
  if (!equals_word(name, "search_path") && !equals_word(name, "schema")) return;
  if (begins_with_word(value.text, "pg_temp")) add(sql_effect::temporary);
}

void EffectsReader::note_literals(std::string_view name) {
  if (equals_word(name, "time")) name = "TimeZone";  // SET TIME ZONE.
  if (equals_word(name, "xml")) name = "xmloption";  // SET XML OPTION.
  if (!name.empty() && !decides_literals(name)) return;
  add(sql_effect::literals | (is_settable_later(name) ? 0 : sql_effect::hidden));
}

void EffectsReader::note_reset(std::string_view name) {
  note_literals(name);
  const bool is_role = equals_word(name, "role") || equals_word(name, "session_authorization");
  add((is_role ? sql_effect::role : sql_effect::setting) | sql_effect::reset);
  if (equals_word(name, "time") || is_followed_parameter(name)) add(sql_effect::reported);
}

void EffectsReader::read_reset() {
  if (token_.is_word("all")) {
    add(sql_effect::setting | sql_effect::reset | sql_effect::reported | sql_effect::literals |
        sql_effect::hidden);
  } else if (token_.is_word("session")) {
    add(sql_effect::role | sql_effect::reset);
  } else {
    note_reset(take_parameter_name());
  }
  read_rest({});
}

void EffectsReader::read_discard() {
  if (token_.is_word("all")) {
    add(sql_effect::setting | sql_effect::role | sql_effect::reset | sql_effect::reported |
        sql_effect::literals | sql_effect::hidden | sql_effect::ends);
  } else if (token_.is_word("temp") || token_.is_word("temporary")) {
    add(sql_effect::ends);
  }
  read_rest({});
}

void EffectsReader::read_create() {
  if (take("or")) (void)take("replace");
  if (!take("local")) (void)take("global");
  const uint16_t before = effects_.bits;
  if (token_.is_word("temp") || token_.is_word("temporary")) add(sql_effect::temporary);
  SqlToken last[3];
  while (!is_statement_over()) {
    last[0] = last[1];
    last[1] = last[2];
    last[2] = token_;
    if (token_.is_name("pg_temp")) add(sql_effect::temporary);
    note_word();
    if (last[1].is_word("begin") && last[2].is_word("atomic")) read_body();
    if (last[1].is_word("as") && last[2].is_word("execute")) add(sql_effect::executes);
  }
  // It ends with the transaction.
  const bool is_dropped =
      last[0].is_word("on") && last[1].is_word("commit") && last[2].is_word("drop");
  if (is_dropped && (before & sql_effect::temporary) == 0)
    effects_.bits = static_cast<uint16_t>(effects_.bits & ~sql_effect::temporary);
}

// The statements of a function that begins with BEGIN ATOMIC: they run when it is called.
void EffectsReader::read_body() {
  size_t depth = 1;
  while (depth > 0 && !is_at_end()) {
    if (token_.is_word("case")) ++depth;
    if (token_.is_word("end")) --depth;
    advance();
  }
  if (depth > 0) add(sql_effect::unseen);
}

// Up to the end of the statement: what may stand anywhere. `command`: its first word.
void EffectsReader::read_rest(std::string_view command) {
  const bool is_declare = command == "declare";
  const bool fills_table = command == "insert" || command == "merge";
  bool is_behind_with = false;
  while (!is_statement_over()) {
    if (is_declare && is_behind_with && token_.is_word("hold")) add(sql_effect::cursor);
    is_behind_with = token_.is_word("with");
    if (!fills_table && token_.is_word("into")) {
      advance();
      read_into();
    } else {
      note_word();
    }
  }
}

// SELECT ... INTO [TEMP].
void EffectsReader::read_into() {
  if (!take("local")) (void)take("global");
  if (token_.is_word("temp") || token_.is_word("temporary") || token_.is_name("pg_temp"))
    add(sql_effect::temporary);
}

// One token anywhere in a statement: a call of a function that changes the session?
void EffectsReader::note_word() {
  const SqlToken word = token_;
  advance();
  if (!word.is_any_name() || !token_.is_symbol('(')) return;
  if (word.is_name("set_config")) return read_set_config();
  add(effects_of_function(word.text));
}

// Inside the parentheses behind set_config: name, value, is_local.
void EffectsReader::read_set_config() {
  advance();
  const SqlToken first = token_;
  SqlToken value;
  bool is_name_alone = false;
  bool is_local = false;
  bool is_nested = false;
  size_t argument = 0;
  size_t tokens_count = 0;  // Of the argument.
  size_t depth = 1;
  while (depth > 0 && !is_statement_over()) {
    if (token_.is_symbol('(')) ++depth;
    if (token_.is_symbol(')')) --depth;
    if (depth == 1 && token_.is_symbol(',')) {
      if (argument == 0) is_name_alone = tokens_count == 1;
      ++argument;
      tokens_count = 0;
    } else if (depth > 0) {
      ++tokens_count;
      if (argument == 1 && tokens_count == 1) value = token_;
      is_local = argument == 2 && tokens_count == 1 && token_.is_word("true");
      if (token_.is_name("set_config")) is_nested = true;
      if (token_.is_any_name()) add(effects_of_function(token_.text));
    }
    advance();
  }
  std::string_view name;
  if (is_name_alone && !is_nested && is_plain_text(first)) name = first.text;
  note_value(name, value);
  note_literals(name);
  if (!is_local || is_nested) note_parameter(name);
}

}  // namespace

void SqlEffects::add_name(std::string_view name) noexcept {
  const auto end = names.begin() + names_count;
  if (std::find(names.begin(), end, name) != end) return;
  if (names_count == names_max) {
    bits |= sql_effect::unseen;
    return;
  }
  names[names_count++] = name;
}

SqlEffects effects_of(std::string_view text, bool standard_strings) noexcept {
  return EffectsReader(text, standard_strings).read();
}

namespace {

// With the words that nearly all queries begin with, and that are all of six letters.
bool begins_commonly(std::string_view text) noexcept {
  uint64_t letters;
  if (text.size() < sizeof(letters) || is_letter(text[6])) return false;
  std::memcpy(&letters, text.data(), sizeof(letters));
  switch ((__builtin_bswap64(letters) | 0x2020202020202020) >> 16) {
    case code_of("select"):
    case code_of("insert"):
    case code_of("update"):
    case code_of("delete"):
    case code_of("commit"):
      return true;
    default:
      return false;
  }
}

// Its first word is known, and does nothing by itself.
[[gnu::hot]] bool begins_plainly(std::string_view text) noexcept {
  if (begins_commonly(text)) return true;
  text = behind_comments(text);
  size_t size = 0;
  while (size < text.size() && size < 16 && is_letter(text[size])) ++size;
  switch (code_of(text.substr(0, size))) {
    case code_of("select"):
    case code_of("insert"):
    case code_of("update"):
    case code_of("delete"):
    case code_of("begin"):
    case code_of("commit"):
    case code_of("rollback"):
    case code_of("with"):
    case code_of("end"):
    case code_of("start"):
    case code_of("savepoint"):
    case code_of("release"):
    case code_of("values"):
    case code_of("show"):
    case code_of("fetch"):
    case code_of("table"):
    case code_of("copy"):
    case code_of("abort"):
    case code_of("truncate"):
    case code_of("lock"):
    case code_of("notify"):
    case code_of("merge"):
    case code_of("alter"):
    case code_of("analyze"):
    case code_of("vacuum"):
    case code_of("deallocate"):
    // These may end what a session holds.
    case code_of("drop"):
    case code_of("close"):
    case code_of("unlisten"):
      return true;
    default:
      return false;
  }
}

// It has letters of a word that may change something, or of a second statement.
[[gnu::hot]] bool has_telling_letters(std::string_view text) noexcept {
  constexpr size_t step = sizeof(Letters);
  for (; text.size() >= step + 2; text.remove_prefix(step))
    if (has_telling_letters_here(text.data())) return true;
  if (text.empty()) return false;
  char rest[step + 4] = {};
  std::memcpy(rest, text.data(), text.size());
  return has_telling_letters_here(rest) ||
         (text.size() > step && has_telling_letters_here(rest + 2));
}

}  // namespace

bool is_plainly_harmless(std::string_view text) noexcept {
  return begins_plainly(text) && !has_telling_letters(without_end(text));
}

void TextScreen::add(std::string_view piece, bool is_last) noexcept {
  if (is_last) piece = without_end(piece);
  if (is_first_ && !begins_plainly(piece)) is_harmless_ = false;
  char seam[4] = {last_letters_[0], last_letters_[1]};
  const size_t size = piece.copy(seam + 2, 2);
  if (has_telling_letters({seam, size + 2}) || has_telling_letters(piece)) is_harmless_ = false;
  is_first_ = false;
  last_letters_ = {seam[size], seam[size + 1]};
  if (piece.size() > 2) (void)piece.substr(piece.size() - 2).copy(last_letters_.data(), 2);
}

}  // namespace helios
