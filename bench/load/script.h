// What clients run: scripts, parsed once and read by every core.
//
// A script is a list of steps: \set a variable, or send a statement and wait for its answer. The
// text is SQL as psql reads it (statements end with ';' outside quotes, comments and parentheses)
// with pgbench's `\set name expression` and `:name`. Immutable once made; any thread may read.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/result.h"
#include "load/expression.h"
#include "load/load.h"

namespace helios::bench {

struct ScriptStatement {
  // The text cut at its variables: text, slot, text, slot, ..., text.
  std::vector<std::string> texts;
  std::vector<uint32_t> slots;
  std::string parameter_text;  // With $1, $2, ... in place of the variables.
  std::string prepared_name;   // The same for every client; no two statements share one.
  // What the answer must be: as many rows (or messages of data that is copied out) and this command
  // tag. Without a tag nothing is compared.
  std::string expected_tag;
  uint32_t expected_rows = 0;
  // The column `checked_column` of each row must be what the variable was.
  uint32_t checked_slot = VariableNames::none;
  uint32_t checked_column = 0;
  // COPY FROM STDIN: what follows the server's CopyInResponse. Sent as a Query in every mode.
  bool copies_in = false;
};

struct Step {
  // The statement to send, or `none`: then a variable is set.
  static constexpr uint32_t none = UINT32_MAX;
  uint32_t statement = none;
  uint32_t slot = 0;
  Expression expression;
  std::string place;  // "file:line", for errors.
};

struct Script {
  std::string name;
  uint64_t weight = 1;
  std::vector<Step> steps;  // At least one of them is a statement.
  size_t last_statement_step = 0;
  uint32_t statements_count = 0;
  bool reconnects = false;  // A connection for each transaction.
};

// All scripts of a run, and what they share.
struct ScriptSet {
  std::vector<Script> scripts;
  std::vector<ScriptStatement> statements;
  VariableNames variables;
  uint64_t weights_total = 0;
  uint32_t statements_per_transaction_max = 0;
  Nanoseconds think_time = 0;  // That the scripts want, when none is given.
  // The CopyData messages and the CopyDone of the statements that copy in.
  std::vector<uint8_t> copy_in_data;

  // `number` is random, below weights_total.
  [[nodiscard]] uint32_t choose(uint64_t number) const noexcept;
  [[nodiscard]] bool has_copy_in() const noexcept { return !copy_in_data.empty(); }
};

// Adds what `text` holds to `set`. `name` is the file, for errors ("file:line: what").
[[nodiscard]] Result<bool> add_script(ScriptSet& set, const std::string& name, uint64_t weight,
                                      std::string_view text);

// Built-in scripts by name, and files.
[[nodiscard]] Result<ScriptSet> load_scripts(std::span<const ScriptChoice> choices);

// A line for each built-in script.
[[nodiscard]] std::string list_of_scripts();

}  // namespace helios::bench
