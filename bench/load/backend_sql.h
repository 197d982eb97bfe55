// The little SQL that the canned server understands.
//
// A statement is recognised by its first words; only what decides the answer is read: a number, the
// `aid` of pgbench's lookup, the seconds of pg_sleep. What is not recognised is a row (SELECT and
// the like) or a command with its own words as tag. Pure functions on the caller's text; any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace helios::bench {

enum class StatementKind : uint8_t {
  empty,
  begin,
  start,  // START TRANSACTION: as begin, with a tag of its own.
  commit,
  rollback,
  rollback_to,  // A savepoint: the block goes on.
  set,
  reset,
  show,
  discard_all,
  deallocate,
  insert,
  update,
  delete_rows,
  copy_in,
  copy_out,
  command,  // Anything else that answers with its tag only.
  // With rows:
  number,            // SELECT <number>.
  lookup,            // SELECT abalance FROM ... WHERE aid = <number>.
  lookup_pair,       // SELECT abalance, aid FROM ... WHERE aid = <number>.
  count,             // SELECT count(*) ...: 1, the scale of pgbench's tables.
  partitions,        // What pgbench asks before its first transaction.
  version,           // SELECT version(): poolers read it.
  row,               // Any other: rows as the options say.
  big,               // About 1 MB.
  sleep,             // SELECT pg_sleep(<seconds>).
  division_by_zero,  // SELECT <number>/0.
};

struct Statement {
  StatementKind kind = StatementKind::empty;
  bool is_wide = false;   // number: the column is an int8, not an int4.
  uint8_t parameter = 0;  // number and lookups: $`parameter` is the value; 0: `value` is.
  int64_t value = 0;      // The number, the aid, or for sleep nanoseconds.
};

[[nodiscard]] Statement recognise(std::string_view text) noexcept;

// Cuts the next statement off the front of `rest`, without its semicolon; semicolons in quotes and
// comments do not count. Statements without a word are skipped. Empty when none is left.
[[nodiscard]] std::string_view next_statement(std::string_view& rest) noexcept;

// Whether a word may stand in a block that has failed: it ends the block, or goes back in it.
[[nodiscard]] bool leaves_failed_block(StatementKind kind) noexcept;

// The highest N of `$N` in the text, at most 255.
[[nodiscard]] uint8_t parameters_count(std::string_view text) noexcept;

// The tag of a command that is known by its words only ("CREATE TABLE", "VACUUM"), written to `to`;
// its size. Requires: room for command_tag_size_max bytes.
inline constexpr size_t command_tag_size_max = 64;
[[nodiscard]] size_t write_command_tag(std::string_view text, char* to) noexcept;

// `SET [SESSION | LOCAL] name { = | TO } value`, RESET name and SHOW name.
struct SettingChange {
  std::string_view name;   // "all" for RESET ALL; empty: a SET that sets nothing we report.
  std::string_view value;  // Of SET, as written, without the quotes around it.
  bool is_default = false;
  bool is_local = false;
};
[[nodiscard]] SettingChange read_setting(std::string_view text) noexcept;

// The name of DEALLOCATE [PREPARE] name, without quotes; empty for ALL.
[[nodiscard]] std::string_view read_deallocate(std::string_view text) noexcept;

}  // namespace helios::bench
