// What the text of a query may change in the server's session, beyond its transaction.
//
// Told from the text alone, so it knows PostgreSQL's own statements and functions; what a function
// of somebody else does inside cannot be seen: it may be anything, unless the caller knows it to be
// harmless. Where the text cannot be read with certainty the answer is `unseen`, never "nothing".
// What is run without being called by its name (triggers, operators, casts, what is in a view) is
// not in the text at all. Pure; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace helios {

// Bits; several may be set.
namespace sql_effect {
constexpr uint32_t setting = 1 << 0;    // A parameter, for longer than the transaction.
constexpr uint32_t role = 1 << 1;       // SET ROLE, SET SESSION AUTHORIZATION.
constexpr uint32_t temporary = 1 << 2;  // A table, or something else in pg_temp.
constexpr uint32_t cursor = 1 << 3;     // DECLARE ... WITH HOLD.
constexpr uint32_t lock = 1 << 4;       // An advisory lock that is held to the session's end.
constexpr uint32_t listening = 1 << 5;  // LISTEN.
constexpr uint32_t library = 1 << 6;    // LOAD.
constexpr uint32_t unseen = 1 << 7;     // DO, CALL, a function that is not known: anything.
constexpr uint32_t reset = 1 << 8;      // RESET, DISCARD ALL: parameters go back to their defaults.
constexpr uint32_t ends = 1 << 9;  // What a session holds may be gone: DROP, CLOSE, UNLISTEN...
constexpr uint32_t prepares = 1 << 10;  // PREPARE: the other bits hold when EXECUTE comes.
constexpr uint32_t executes = 1 << 11;  // EXECUTE.
constexpr uint32_t reported = 1 << 12;  // With `reset`: of parameters that servers report, too.
constexpr uint32_t literals = 1 << 13;  // A parameter that decides_literals, if only up to the end
                                        // of the transaction.
constexpr uint32_t hidden = 1 << 14;    // With `literals`: of one that servers do not report.
constexpr uint32_t slot = 1 << 15;      // A replication slot, which may be a temporary one.
constexpr uint32_t origin = 1 << 16;    // A replication origin of the session...
constexpr uint32_t origin_end = 1 << 17;
constexpr uint32_t backup = 1 << 18;  // A backup that runs up to...
constexpr uint32_t backup_end = 1 << 19;
constexpr uint32_t seed = 1 << 20;    // Of random(): setseed, SET SEED.
constexpr uint32_t dblink = 1 << 21;  // A connection of dblink.

// What follows no client, so that the backend has to stay with it.
constexpr uint32_t holding =
    temporary | cursor | lock | listening | library | slot | origin | backup | seed | dblink;
}  // namespace sql_effect

struct SqlEffects {
  static constexpr size_t names_max = 8;

  uint32_t bits = 0;
  // Of custom parameters (with a dot in it) that are set: the server does not list those. Views
  // into the text, as written; more than fit, or what cannot be kept so, sets `unseen`.
  uint8_t names_count = 0;
  std::array<std::string_view, names_max> names;

  [[nodiscard]] bool has(uint32_t wanted) const noexcept { return (bits & wanted) != 0; }
  void add_name(std::string_view name) noexcept;
};

// Functions of somebody's own that leave the session as it is: "name", or "schema.name", as they
// are called, and as the server keeps them; "*" at the end stands for any end.
using HarmlessFunctions = std::span<const std::string>;

// `standard_strings`: the session's standard_conforming_strings. The text ends at its first NUL, if
// there is one.
[[nodiscard]] SqlEffects effects_of(std::string_view text, bool standard_strings = true,
                                    HarmlessFunctions harmless = {}) noexcept;

// True when a quick look shows that the text changes nothing but may end what the session holds:
// effects_of() answers nothing, or `ends`. False says nothing. Made for the path of each query.
[[nodiscard]] bool is_plainly_harmless(std::string_view text,
                                       HarmlessFunctions harmless = {}) noexcept;

// The text, or its beginning, may call currval or lastval. Made for the path of each query.
[[nodiscard]] bool may_ask_sequences(std::string_view text) noexcept;

// The same as is_plainly_harmless for a text that is too long to be kept: its pieces are looked at
// as they come.
class TextScreen {
 public:
  void start() noexcept { *this = TextScreen(); }
  // The first piece has the first word.
  void add(std::string_view piece, bool is_last, HarmlessFunctions harmless = {}) noexcept;
  [[nodiscard]] bool has_begun() const noexcept { return !is_first_; }
  [[nodiscard]] bool is_harmless() const noexcept { return is_harmless_; }

 private:
  // A word may be cut in two, and what stands before a parenthesis is looked at. (Where it would
  // take more than these the text is suspected.)
  static constexpr size_t last_letters_max = 128;

  void keep_last(std::string_view piece) noexcept;

  std::array<char, last_letters_max> last_letters_{};  // Of the pieces before.
  size_t last_size_ = 0;
  bool is_last_all_ = true;  // There were no more letters.
  bool is_first_ = true;
  bool is_harmless_ = true;
};

}  // namespace helios
