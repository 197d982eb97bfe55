#include "helios/session/statement_names.h"

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

NamedCommand read_named_command(std::string_view text) {
  SqlScanner scanner(text);
  const SqlToken command = scanner.next();
  const bool is_execute = command.is_word("execute");
  if (!is_execute && !command.is_word("prepare"))
    return {NamedCommand::Kind::deallocate, read_deallocated_name(text)};
  const SqlToken token = scanner.next();
  std::string name = token.is_any_name() ? name_of(token) : std::string();
  if (name.size() > name_size_known) name.clear();
  return {is_execute ? NamedCommand::Kind::execute : NamedCommand::Kind::prepare, std::move(name)};
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
