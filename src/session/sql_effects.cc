#include "helios/session/sql_effects.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "helios/pool/parameters.h"
#include "helios/session/sql_scanner.h"
#include "session/sql_calls.h"

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

template <typename Mask>
[[gnu::always_inline]] inline Letters to_letters(const Mask& mask) {
  Letters letters;
  static_assert(sizeof(letters) == sizeof(mask));
  std::memcpy(&letters, &mask, sizeof(letters));
  return letters;
}

// One of 16 letters is in it.
template <typename Mask>
[[gnu::always_inline]] inline bool is_any(const Mask& mask) {
  uint64_t halves[2];
  static_assert(sizeof(halves) == sizeof(mask));
  std::memcpy(halves, &mask, sizeof(halves));
  return (halves[0] | halves[1]) != 0;
}

// Three letters of each telling word, so rare that few other queries have them: t-emp, set_con-fig,
// a-dvi-sory. Behind a semicolon follows another statement; U& begins letters by their numbers.
// Looks at 18 letters for what begins in the first 16, and notes the parentheses among these.
[[gnu::always_inline]] inline bool has_telling_letters_here(const char* text,
                                                            Letters& parentheses) {
  const Letters a = load(text), b = load(text + 1), c = load(text + 2);
  const Letters x = a | 0x20, y = b | 0x20, z = c | 0x20;  // In lower case.
  parentheses |= to_letters(a == all('('));
  return is_any(((x == all('e')) & (y == all('m')) & (z == all('p'))) |
                ((x == all('f')) & (y == all('i')) & (z == all('g'))) |
                ((x == all('d')) & (y == all('v')) & (z == all('i'))) |
                ((x == all('u')) & (b == all('&'))) | (a == all(';')));
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

// Of a function of PostgreSQL's own, or of dblink, that does something to the session; nothing: of
// another one. (set_config is read by itself.)
std::optional<uint32_t> effects_of_function(std::string_view name) {
  constexpr std::string_view prefixes[] = {"pg_advisory_", "pg_try_advisory_"};
  for (const std::string_view prefix : prefixes) {
    if (!begins_with_word(name, prefix)) continue;
    name.remove_prefix(prefix.size());
    if (begins_with_word(name, "xact")) return 0;
    return begins_with_word(name, "unlock") ? sql_effect::ends : sql_effect::lock;
  }
  struct Function {
    std::string_view name;
    uint32_t bits;
  };
  constexpr Function functions[] = {
      {"pg_create_physical_replication_slot", sql_effect::slot},
      {"pg_create_logical_replication_slot", sql_effect::slot},
      {"pg_copy_physical_replication_slot", sql_effect::slot},
      {"pg_copy_logical_replication_slot", sql_effect::slot},
      {"pg_drop_replication_slot", sql_effect::ends},
      {"pg_replication_origin_session_setup", sql_effect::origin},
      {"pg_replication_origin_session_reset", sql_effect::origin_end},
      {"pg_backup_start", sql_effect::backup},
      {"pg_backup_stop", sql_effect::backup_end},
      {"pg_start_backup", sql_effect::backup},  // Up to PostgreSQL 14.
      {"pg_stop_backup", sql_effect::backup_end},
      {"setseed", sql_effect::seed},
      {"dblink_connect", sql_effect::dblink},
      {"dblink_connect_u", sql_effect::dblink},
  };
  for (const Function& function : functions)
    if (equals_word(name, function.name)) return function.bits;
  return std::nullopt;
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
  EffectsReader(std::string_view text, bool standard_strings, HarmlessFunctions harmless)
      : text_(text), harmless_(harmless), scanner_(text, standard_strings) {
    advance();
  }

  SqlEffects read() {
    while (!is_at_end()) {
      if (!token_.is_symbol(';')) read_statement();
      if (token_.is_symbol(';')) advance();
    }
    if (token_.kind == SqlTokenKind::unsure) add(sql_effect::unseen);
    return effects_;
  }

 private:
  void add(uint32_t bits) { effects_.bits |= bits; }
  [[nodiscard]] bool is_at_end() const {
    return token_.kind == SqlTokenKind::end || token_.kind == SqlTokenKind::unsure;
  }
  [[nodiscard]] bool is_statement_over() const { return is_at_end() || token_.is_symbol(';'); }
  void advance();
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
  void note_call();
  [[nodiscard]] bool is_of_create(const SqlToken& before) const;
  void skip_parentheses();
  std::string_view take_parameter_name();
  void note_parameter(std::string_view name);
  void note_literals(std::string_view name);
  void note_seed(std::string_view name);
  void note_reset(std::string_view name);
  void note_value(std::string_view name, const SqlToken& value);

  std::string_view text_;
  HarmlessFunctions harmless_;
  SqlScanner scanner_;
  SqlToken token_;
  SqlToken last_;  // The one before.
  // The last name, with what stands before it.
  SqlCall call_;
  enum class Create : uint8_t { no, index, other };
  Create create_ = Create::no;  // What the statement creates.
  // There was a parenthesis behind which a call may stand at once: DISTINCT ON (), OPERATOR().
  bool may_follow_parenthesis_ = false;
  SqlEffects effects_;
};

void EffectsReader::advance() {
  const SqlToken before_last = last_;
  last_ = token_;
  token_ = scanner_.next();
  if (!token_.is_any_name()) return;
  if (last_.is_symbol('.')) {
    call_.is_deep = !before_last.is_any_name() || call_.schema.kind != SqlTokenKind::end;
    call_.schema = before_last;
    call_.name = token_;
    return;
  }
  call_ = {token_, {}, false, last_, false};
  if (last_.is_symbol(':')) {
    const char* const colon = last_.text.data();
    call_.is_cast = colon > text_.data() && colon[-1] == ':';
  }
  if (token_.is_word("operator") || (token_.is_word("on") && last_.is_word("distinct")))
    may_follow_parenthesis_ = true;
}

void EffectsReader::read_statement() {
  create_ = Create::no;
  while (token_.is_symbol('(')) advance();  // Around a query.
  if (token_.is_word("explain")) skip_explain();
  if (token_.is_word("prepare") && !skip_prepare()) return;
  if (take("set")) return read_set();
  if (take("reset")) return read_reset();
  if (take("discard")) return read_discard();
  if (take("create")) return read_create();
  struct Simple {
    std::string_view word;
    uint32_t bits;
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
    note_seed(name);
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
  if (equals_word(name, "seed")) return;  // No server shows its value; see note_seed.
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

// Of random(): the end of the transaction does not undo it.
void EffectsReader::note_seed(std::string_view name) {
  if (equals_word(name, "seed")) add(sql_effect::seed);
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
  const uint32_t before = effects_.bits;
  create_ = token_.is_word("index") || token_.is_word("unique") ? Create::index : Create::other;
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
  if (is_dropped && (before & sql_effect::temporary) == 0) effects_.bits &= ~sql_effect::temporary;
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
  note_call();
  if (word.is_name("set_config")) read_set_config();
}

// The last name has a parenthesis behind it.
void EffectsReader::note_call() {
  const SqlToken& name = call_.name;
  const bool is_own = call_.schema.kind == SqlTokenKind::end || call_.schema.is_name("pg_catalog");
  const std::optional<uint32_t> known = effects_of_function(name.text);
  add(known.value_or(0));
  if (is_own && (known.has_value() || name.is_name("set_config"))) return;
  if (is_of_catalog(call_) || is_no_call(call_, harmless_)) return;
  // An alias with names of columns.
  if (call_.before.is_symbol(')') && !may_follow_parenthesis_) return;
  if (!is_of_create(call_.before)) add(sql_effect::unseen);
}

// CREATE INDEX ON table (...), ... USING method (...).
bool EffectsReader::is_of_create(const SqlToken& before) const {
  if (create_ == Create::no) return false;
  return before.is_word("using") ||
         (create_ == Create::index && (before.is_word("on") || before.is_word("only")));
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
      if (token_.is_symbol('(') && last_.is_any_name()) note_call();
    }
    advance();
  }
  std::string_view name;
  if (is_name_alone && !is_nested && is_plain_text(first)) name = first.text;
  note_value(name, value);
  note_literals(name);
  note_seed(name);
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

SqlEffects effects_of(std::string_view text, bool standard_strings,
                      HarmlessFunctions harmless) noexcept {
  return EffectsReader(text, standard_strings, harmless).read();
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

// One of the parentheses from text[first] on may be that of a call.
[[gnu::hot, gnu::noinline]] bool has_call(std::string_view text, size_t first, bool is_begin,
                                          HarmlessFunctions harmless) noexcept {
  for (size_t place = text.find('(', first); place != text.npos; place = text.find('(', place + 1))
    if (!is_harmless_parenthesis(text, place, is_begin, harmless)) return true;
  return false;
}

// It has letters of a word that may change something, or of a second statement, or calls a function
// that is not known. Parentheses are looked at from text[first] on. `is_begin`: nothing is missing
// at the front of the text.
[[gnu::hot]] bool is_suspect(std::string_view text, size_t first, bool is_begin,
                             HarmlessFunctions harmless) noexcept {
  constexpr size_t step = sizeof(Letters);
  Letters parentheses{};
  size_t i = 0;
  for (; text.size() - i >= step + 2; i += step)
    if (has_telling_letters_here(text.data() + i, parentheses)) return true;
  if (i < text.size()) {
    char rest[step + 4] = {};
    std::memcpy(rest, text.data() + i, text.size() - i);
    if (has_telling_letters_here(rest, parentheses)) return true;
    const bool is_more = text.size() - i > step;
    if (is_more && has_telling_letters_here(rest + 2, parentheses)) return true;
  }
  return is_any(parentheses) && has_call(text, first, is_begin, harmless);
}

}  // namespace

bool is_plainly_harmless(std::string_view text, HarmlessFunctions harmless) noexcept {
  return begins_plainly(text) && !is_suspect(without_end(text), 0, true, harmless);
}

bool may_ask_sequences(std::string_view text) noexcept {
  constexpr size_t size = 7;  // Of either name.
  for (size_t at = text.find('('); at != text.npos; at = text.find('(', at + 1)) {
    size_t end = at;
    while (end > 0 && (text[end - 1] == ' ' || text[end - 1] == '"')) --end;
    if (end < size) continue;
    const uint64_t code = code_of(text.substr(end - size, size));
    if (code == code_of("currval") || code == code_of("lastval")) return true;
  }
  return false;
}

void TextScreen::add(std::string_view piece, bool is_last, HarmlessFunctions harmless) noexcept {
  if (is_last) piece = without_end(piece);
  if (is_first_ && !begins_plainly(piece)) is_harmless_ = false;
  // What begins before this piece.
  std::array<char, 2 * last_letters_max> seam;
  std::copy_n(last_letters_.begin(), last_size_, seam.begin());
  const size_t begin_size = piece.copy(seam.data() + last_size_, last_letters_max);
  const std::string_view seam_text(seam.data(), last_size_ + begin_size);
  if (is_suspect(seam_text, last_size_, is_last_all_, harmless)) is_harmless_ = false;
  if (is_suspect(piece, is_first_ ? 0 : begin_size, is_first_, harmless)) is_harmless_ = false;
  is_first_ = false;
  keep_last(piece);
}

void TextScreen::keep_last(std::string_view piece) noexcept {
  if (piece.size() >= last_letters_max) {
    is_last_all_ = is_last_all_ && last_size_ == 0 && piece.size() == last_letters_max;
    last_size_ =
        piece.substr(piece.size() - last_letters_max).copy(last_letters_.data(), last_letters_max);
    return;
  }
  const size_t kept = std::min(last_size_, last_letters_max - piece.size());
  is_last_all_ = is_last_all_ && kept == last_size_;
  std::copy(last_letters_.begin() + static_cast<ptrdiff_t>(last_size_ - kept),
            last_letters_.begin() + static_cast<ptrdiff_t>(last_size_), last_letters_.begin());
  last_size_ = kept + piece.copy(last_letters_.data() + kept, piece.size());
}

}  // namespace helios
