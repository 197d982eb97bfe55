// What the text of a query may change in the server's session, beyond its transaction.
//
// Told from the text alone, so it knows PostgreSQL's own statements and functions; what a function
// of somebody else does inside cannot be seen. Where the text cannot be read with certainty the
// answer is `unseen`, never "nothing". Pure; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace helios {

// Bits; several may be set.
namespace sql_effect {
constexpr uint16_t setting = 1 << 0;    // A parameter, for longer than the transaction.
constexpr uint16_t role = 1 << 1;       // SET ROLE, SET SESSION AUTHORIZATION.
constexpr uint16_t temporary = 1 << 2;  // A table, or something else in pg_temp.
constexpr uint16_t cursor = 1 << 3;     // DECLARE ... WITH HOLD.
constexpr uint16_t lock = 1 << 4;       // An advisory lock that is held to the session's end.
constexpr uint16_t listening = 1 << 5;  // LISTEN.
constexpr uint16_t library = 1 << 6;    // LOAD.
constexpr uint16_t unseen = 1 << 7;     // DO, CALL, what cannot be read: anything.
constexpr uint16_t reset = 1 << 8;      // RESET, DISCARD ALL: parameters go back to their defaults.
constexpr uint16_t ends = 1 << 9;  // What a session holds may be gone: DROP, CLOSE, UNLISTEN...
constexpr uint16_t prepares = 1 << 10;  // PREPARE: the other bits hold when EXECUTE comes.
constexpr uint16_t executes = 1 << 11;  // EXECUTE.
constexpr uint16_t reported = 1 << 12;  // With `reset`: of parameters that servers report, too.
constexpr uint16_t literals = 1 << 13;  // A parameter that decides_literals, if only up to the end
                                        // of the transaction.
constexpr uint16_t hidden = 1 << 14;    // With `literals`: of one that servers do not report.

// What follows no client, so that the backend has to stay with it.
constexpr uint16_t holding = temporary | cursor | lock | listening | library;
}  // namespace sql_effect

struct SqlEffects {
  static constexpr size_t names_max = 8;

  uint16_t bits = 0;
  // Of custom parameters (with a dot in it) that are set: the server does not list those. Views
  // into the text, as written; more than fit, or what cannot be kept so, sets `unseen`.
  uint8_t names_count = 0;
  std::array<std::string_view, names_max> names;

  [[nodiscard]] bool has(uint16_t wanted) const noexcept { return (bits & wanted) != 0; }
  void add_name(std::string_view name) noexcept;
};

// `standard_strings`: the session's standard_conforming_strings. The text ends at its first NUL, if
// there is one.
[[nodiscard]] SqlEffects effects_of(std::string_view text, bool standard_strings = true) noexcept;

// True when a quick look shows that the text changes nothing but may end what the session holds:
// effects_of() answers nothing, or `ends`. False says nothing. Made for the path of each query.
[[nodiscard]] bool is_plainly_harmless(std::string_view text) noexcept;

// The same for a text that is too long to be kept: its pieces are looked at as they come.
class TextScreen {
 public:
  void start() noexcept { *this = TextScreen(); }
  // The first piece has the first word.
  void add(std::string_view piece, bool is_last) noexcept;
  [[nodiscard]] bool has_begun() const noexcept { return !is_first_; }
  [[nodiscard]] bool is_harmless() const noexcept { return is_harmless_; }

 private:
  std::array<char, 2> last_letters_{};  // Of the piece before: a word may be cut in two.
  bool is_first_ = true;
  bool is_harmless_ = true;
};

}  // namespace helios
