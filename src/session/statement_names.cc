#include "helios/session/statement_names.h"

#include <strings.h>

#include <utility>

namespace helios {
namespace {

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '$' || static_cast<unsigned char>(c) >= 0x80;
}

void skip_space(std::string_view& text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
}

std::string_view take_word(std::string_view& text) {
  size_t size = 0;
  while (size < text.size() && is_word(text[size])) ++size;
  const std::string_view word = text.substr(0, size);
  text.remove_prefix(size);
  skip_space(text);
  return word;
}

bool equals(std::string_view word, std::string_view keyword) {
  return word.size() == keyword.size() &&
         strncasecmp(word.data(), keyword.data(), word.size()) == 0;
}

// A name as PostgreSQL keeps it: quoted as it is, plain in lower case. Empty when it is neither.
std::string take_name(std::string_view& text) {
  std::string name;
  if (!text.empty() && text.front() == '"') {
    for (size_t i = 1; i < text.size(); ++i) {
      if (text[i] != '"') {
        name += text[i];
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        name += '"';
        ++i;
      } else {
        text.remove_prefix(i + 1);
        skip_space(text);
        return name;
      }
    }
    return {};
  }
  for (char c : take_word(text)) {
    if (static_cast<unsigned char>(c) >= 0x80)
      return {};  // Folding depends on the server's encoding.
    name += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return name;
}

}  // namespace

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

// PREPARE name or DEALLOCATE [PREPARE] name, as far as it can be told for sure.
struct NamingCommand {
  bool is_deallocate = false;
  std::string name;
};

NamingCommand read_command(std::string_view text) {
  // The text of a Query message ends with a NUL.
  while (!text.empty() && text.back() == '\0') text.remove_suffix(1);
  skip_space(text);
  const std::string_view command = take_word(text);
  const bool is_deallocate = equals(command, "deallocate");
  if (!is_deallocate && !equals(command, "prepare")) return {};
  if (is_deallocate) {
    std::string_view rest = text;
    if (equals(take_word(rest), "prepare") && !rest.empty() && rest.front() != ';') text = rest;
    rest = text;
    if (equals(take_word(rest), "all")) return {};
  }
  // Names are cut at 63 bytes by the server, counted in its encoding: longer ones are left to the
  // careful side.
  std::string name = take_name(text);
  if (name.empty() || name.size() > 63) return {};
  if (is_deallocate && !text.empty() && text != ";") return {};
  // Behind PREPARE follows any text; a second statement in it would end with a tag of its own, and
  // be seen there.
  return {is_deallocate, std::move(name)};
}

}  // namespace

SqlName read_sql_name(std::string_view text) noexcept {
  const NamingCommand command = read_command(text);
  return command.name.empty() ? SqlName() : SqlName{true, hash_name(command.name)};
}

std::string read_deallocated_name(std::string_view text) {
  NamingCommand command = read_command(text);
  return command.is_deallocate ? std::move(command.name) : std::string();
}

Dropping read_dropping(std::string_view text) noexcept {
  skip_space(text);
  if (text.empty() || (text.front() | 0x20) != 'd') return Dropping::none;
  const std::string_view command = take_word(text);
  const bool is_deallocate = equals(command, "deallocate");
  if (!is_deallocate && !equals(command, "discard")) return Dropping::none;
  std::string_view what = take_word(text);
  if (is_deallocate && equals(what, "prepare")) what = take_word(text);
  if (equals(what, "all")) return Dropping::all;
  return is_deallocate ? Dropping::one : Dropping::none;
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
  has_unknown_ = false;
}

}  // namespace helios
