// The prepared statements of the protocol that a client has by name on its backend, because they do
// not follow it (client_statements.h): what is too large to be held.
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
#include <vector>

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
  [[nodiscard]] bool is_unnamed_statement() const noexcept {
    return is_done() && is_statement_ && !has_name_;
  }

 private:
  enum class State : uint8_t { kind, name, done };
  State state_ = State::done;
  bool is_statement_ = true;
  bool has_name_ = false;
  NameHash hash_;
};

// Bytes at the beginning of a simple query in which commands that drop statements are looked for.
inline constexpr size_t query_text_max = 256;
// A text that begins with this byte may be DEALLOCATE or DISCARD, behind a comment even.
[[nodiscard]] constexpr bool may_be_dropping(uint8_t first) noexcept {
  return (first | 0x20) == 'd' || first <= ' ' || first == '/' || first == '-';
}

// What a text, or its beginning, makes a server forget: nothing that could be told, one prepared
// statement (DEALLOCATE), or all of them (DEALLOCATE ALL, DISCARD ALL).
enum class Dropping : uint8_t { none, one, all };
[[nodiscard]] Dropping read_dropping(std::string_view text) noexcept;

// The name in a text that is one DEALLOCATE of one name; empty when it is something else.
[[nodiscard]] std::string read_deallocated_name(std::string_view text);

// A command of a text that names a prepared statement: EXECUTE (also within EXPLAIN or CREATE),
// DEALLOCATE, PREPARE. Empty name: none, or one that the server would read in its own encoding, or
// cut.
struct NamedCommand {
  enum class Kind : uint8_t { deallocate, execute, prepare, deallocate_all };
  Kind kind = Kind::deallocate;
  std::string name;
};
using NamedCommands = std::vector<NamedCommand>;
// One of them is EXECUTE.
[[nodiscard]] bool executes(const NamedCommands& commands) noexcept;
// In their order; at most one of a statement.
[[nodiscard]] NamedCommands read_named_commands(std::string_view text);
// A quick look: false when the text has none.
[[nodiscard]] bool may_have_commands(std::string_view text) noexcept;
// Longer texts are not looked into, but for the beginning of a query.
inline constexpr size_t command_text_max = size_t{16} * 1024;
// Of a text that has none as a rule; none in one that is too long.
[[nodiscard]] NamedCommands find_named_commands(std::string_view text);

// The text is one PREPARE and nothing else, so that it can be sent again for the same.
[[nodiscard]] bool is_single_prepare(std::string_view text, bool standard_strings) noexcept;

class StatementNames {
 public:
  [[nodiscard]] bool empty() const noexcept { return names_ == nullptr; }
  [[nodiscard]] size_t size() const noexcept { return names_ == nullptr ? 0 : names_->size(); }
  [[nodiscard]] bool contains(uint64_t name) const noexcept {
    return names_ != nullptr && names_->contains(name);
  }
  void add(uint64_t name);
  void remove(uint64_t name) noexcept;
  void clear() noexcept;

 private:
  std::unique_ptr<std::unordered_set<uint64_t>> names_;  // Null: none, as with nearly all clients.
};

}  // namespace helios
