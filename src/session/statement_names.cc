#include "helios/session/statement_names.h"

#include <algorithm>

#include "helios/session/sql_scanner.h"

namespace helios {
uint64_t hash_name(std::string_view name) noexcept {
  NameHash hash;
  for (char c : name) hash.add(static_cast<uint8_t>(c));
  return hash.value();
}

void NameReader::start(uint8_t tag) noexcept {
  state_ = tag == 'C' ? State::kind : State::name;
  is_statement_ = true;
  has_name_ = false;
  hash_ = NameHash();
}

void NameReader::add(ByteSpan body) noexcept {
  for (uint8_t byte : body) {
    if (state_ == State::done) return;
    if (state_ == State::kind) {
      is_statement_ = byte == 'S';
      state_ = State::name;
    } else if (byte == 0) {
      state_ = State::done;
    } else {
      has_name_ = true;
      hash_.add(byte);
    }
  }
}

namespace {

// Names are cut at 63 bytes by the server, counted in its encoding: longer ones are left to the
// careful side.
constexpr size_t name_size_known = 63;

// A name as PostgreSQL keeps it: quoted as it is, plain in lower case. Empty when that depends on
// the server's encoding.
std::string name_of(const SqlToken& token) {
  std::string name;
  if (token.kind == SqlTokenKind::quoted_word) {
    for (size_t i = 0; i < token.text.size(); ++i) {
      name += token.text[i];
      if (token.text[i] == '"') ++i;  // They are doubled.
    }
    return name;
  }
  for (const char c : token.text) {
    if (static_cast<unsigned char>(c) >= 0x80) return {};
    name += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return name;
}

// Of the text only as much is read as is needed to tell.
class DroppingReader {
 public:
  explicit DroppingReader(std::string_view text) : scanner_(text), token_(scanner_.next()) {}

  Dropping read() {
    const bool is_deallocate = token_.is_word("deallocate");
    if (!is_deallocate && !token_.is_word("discard")) return Dropping::none;
    advance();
    if (is_deallocate) take_prepare();
    if (token_.is_word("all")) return Dropping::all;
    return is_deallocate ? Dropping::one : Dropping::none;
  }
  // Behind read(), which has found one: its name, if nothing else follows.
  std::string read_name() {
    if (!token_.is_any_name()) return {};
    std::string name = name_of(token_);
    advance();
    if (token_.is_symbol(';')) advance();
    return token_.kind == SqlTokenKind::end ? name : std::string();
  }

 private:
  void advance() { token_ = scanner_.next(); }
  // PREPARE is a word of the command, or the name.
  void take_prepare() {
    if (!token_.is_word("prepare")) return;
    SqlScanner behind = scanner_;
    if (behind.next().is_any_name()) advance();
  }

  SqlScanner scanner_;
  SqlToken token_;
};

}  // namespace

Dropping read_dropping(std::string_view text) noexcept {
  return DroppingReader(text).read();
}

std::string read_deallocated_name(std::string_view text) {
  DroppingReader reader(text);
  if (reader.read() != Dropping::one) return {};
  std::string name = reader.read_name();
  return name.size() > name_size_known ? std::string() : name;
}

bool executes(const NamedCommands& commands) noexcept {
  return std::any_of(commands.begin(), commands.end(), [](const NamedCommand& command) {
    return command.kind == NamedCommand::Kind::execute;
  });
}

namespace {

// Reads the commands of a text, one statement after the other.
class CommandReader {
 public:
  explicit CommandReader(std::string_view text) : scanner_(text), token_(scanner_.next()) {}

  NamedCommands read() {
    while (is_inside()) {
      read_statement();
      while (is_inside() && !token_.is_symbol(';')) advance();
      while (token_.is_symbol(';')) advance();
    }
    return std::move(commands_);
  }

 private:
  using Kind = NamedCommand::Kind;

  [[nodiscard]] bool is_inside() const noexcept {
    return token_.kind != SqlTokenKind::end && token_.kind != SqlTokenKind::unsure;
  }
  void advance() { token_ = scanner_.next(); }
  void read_statement() {
    if (token_.is_word("execute")) return read_name(Kind::execute);
    if (token_.is_word("prepare")) return read_name(Kind::prepare);
    if (token_.is_word("deallocate")) return read_deallocate();
    const bool creates = token_.is_word("create");
    if (!creates && !token_.is_word("explain")) return;
    // CREATE TABLE x AS EXECUTE; there are triggers that EXECUTE FUNCTION.
    bool may_execute = !creates;
    while (is_inside() && !token_.is_symbol(';')) {
      if (may_execute && token_.is_word("execute")) return read_name(Kind::execute);
      may_execute = !creates || token_.is_word("as");
      advance();
    }
  }
  void read_deallocate() {
    SqlScanner behind = scanner_;
    // A word of the command, or the name.
    if (behind.next().is_word("prepare") && behind.next().is_any_name()) advance();
    SqlScanner name = scanner_;
    if (!name.next().is_word("all")) return read_name(Kind::deallocate);
    advance();
    commands_.push_back({Kind::deallocate_all, {}});
  }
  void read_name(Kind kind) {
    advance();
    std::string name = token_.is_any_name() ? name_of(token_) : std::string();
    if (name.size() > name_size_known) name.clear();
    commands_.push_back({kind, std::move(name)});
  }

  SqlScanner scanner_;
  SqlToken token_;
  NamedCommands commands_;
};

}  // namespace

NamedCommands read_named_commands(std::string_view text) {
  return CommandReader(text).read();
}

bool may_have_commands(std::string_view text) noexcept {
  text = text.substr(0, text.find('\0'));
  const SqlToken first = SqlScanner(text).next();
  if (first.is_word("deallocate") || first.is_word("prepare")) return true;
  for (const char letter : {'x', 'X'}) {
    for (size_t at = text.find(letter); at != std::string_view::npos;
         at = text.find(letter, at + 1))
      if (at > 0 && equals_word(text.substr(at - 1, 7), "execute")) return true;
  }
  // Behind another statement.
  const size_t end = text.find(';');
  const size_t last = text.find_last_not_of(" \t\r\n;");
  return end != std::string_view::npos && last != std::string_view::npos && last > end;
}

NamedCommands find_named_commands(std::string_view text) {
  text = text.substr(0, text.find('\0'));
  if (text.size() > command_text_max || !may_have_commands(text)) return {};
  return read_named_commands(text);
}

bool is_single_prepare(std::string_view text, bool standard_strings) noexcept {
  SqlScanner scanner(text, standard_strings);
  if (!scanner.next().is_word("prepare")) return false;
  bool is_over = false;
  for (SqlToken token = scanner.next(); token.kind != SqlTokenKind::end; token = scanner.next()) {
    if (is_over || token.kind == SqlTokenKind::unsure) return false;
    is_over = token.is_symbol(';');
  }
  return true;
}

void StatementNames::add(uint64_t name) {
  if (names_ == nullptr) names_ = std::make_unique<std::unordered_set<uint64_t>>();
  names_->insert(name);
}

void StatementNames::remove(uint64_t name) noexcept {
  if (names_ == nullptr) return;
  names_->erase(name);
  if (names_->empty()) names_.reset();
}

void StatementNames::clear() noexcept {
  names_.reset();
}

}  // namespace helios
