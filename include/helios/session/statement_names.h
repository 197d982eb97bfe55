// The prepared statements that a client has by name on its backend, because they do not follow it
// (client_statements.h): those of PREPARE in SQL, and what is too large to be held.
//
// While there is one, the backend stays with the client. Names are kept as hashes: a collision can
// only keep a backend longer than needed or, with a chance of 2^-64 per pair, too short. One
// session's data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>

#include "helios/base/bytes.h"

namespace helios {

// FNV-1a over a name, fed in pieces; never 0.
class NameHash {
 public:
  void add(uint8_t byte) noexcept { hash_ = (hash_ ^ byte) * 0x100000001b3ULL; }
  [[nodiscard]] uint64_t value() const noexcept { return hash_ == 0 ? 1 : hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325ULL;
};

[[nodiscard]] uint64_t hash_name(std::string_view name) noexcept;

// Reads the name out of the body of a Parse ("name\0...") or Close ("S" or "P", "name\0"), whatever
// the pieces it comes in.
class NameReader {
 public:
  // `tag`: P or C.
  void start(uint8_t tag) noexcept;
  void add(ByteSpan body) noexcept;
  [[nodiscard]] bool is_done() const noexcept { return state_ == State::done; }
  // 0: the unnamed statement, or a portal.
  [[nodiscard]] uint64_t name() const noexcept {
    return is_statement_ && has_name_ ? hash_.value() : 0;
  }

 private:
  enum class State : uint8_t { kind, name, done };
  State state_ = State::done;
  bool is_statement_ = true;
  bool has_name_ = false;
  NameHash hash_;
};

// Bytes at the beginning of a simple query in which commands of the following kinds are looked for.
inline constexpr size_t query_text_max = 256;
// A text that begins with this byte may be a command that begins with this letter (a small one).
[[nodiscard]] constexpr bool may_be_command(uint8_t first, char letter) noexcept {
  return (first | 0x20) == letter || first == ' ' || first == '\n' || first == '\t';
}

// What a PREPARE or DEALLOCATE in SQL names.
struct SqlName {
  bool is_known = false;
  uint64_t name = 0;
};
// `text`: the beginning of a simple query. Known only when it is a single plain PREPARE name or
// DEALLOCATE [PREPARE] name.
[[nodiscard]] SqlName read_sql_name(std::string_view text) noexcept;

// What a text, or its beginning, makes a server forget: nothing that could be told, one prepared
// statement (DEALLOCATE), or all of them (DEALLOCATE ALL, DISCARD ALL).
enum class Dropping : uint8_t { none, one, all };
[[nodiscard]] Dropping read_dropping(std::string_view text) noexcept;

// The name in a text that is one DEALLOCATE of one name; empty when it is something else.
[[nodiscard]] std::string read_deallocated_name(std::string_view text);

class StatementNames {
 public:
  [[nodiscard]] bool empty() const noexcept { return names_ == nullptr && !has_unknown_; }
  [[nodiscard]] size_t size() const noexcept { return names_ == nullptr ? 0 : names_->size(); }
  [[nodiscard]] bool may_contain(uint64_t name) const noexcept {
    return has_unknown_ || (names_ != nullptr && names_->contains(name));
  }
  void add(uint64_t name);
  void remove(uint64_t name) noexcept;
  // A statement whose name could not be read: only clear() takes it away.
  void add_unknown() noexcept { has_unknown_ = true; }
  void clear() noexcept;

 private:
  std::unique_ptr<std::unordered_set<uint64_t>> names_;  // Null: none, as with nearly all clients.
  bool has_unknown_ = false;
};

}  // namespace helios
