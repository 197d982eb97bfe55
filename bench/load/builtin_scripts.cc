// The scripts that come with the program, and the loading of all scripts of a run.

#include <array>
#include <optional>
#include <span>

#include "helios/base/assert.h"
#include "helios/config/nearest.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"
#include "load/script.h"
#include "load/text_file.h"

namespace helios::bench {
namespace {

constexpr uint32_t no_statement = UINT32_MAX;

// What the answer to a statement must be.
struct Expected {
  const char* tag;
  uint32_t rows = 0;  // A DataRow each, or a CopyData.
};

// One of the texts of a built-in script, between which a weight chooses.
struct Part {
  uint32_t weight = 0;  // Of 100; 0: not there.
  const char* text = "";
  std::span<const Expected> answers;  // To each statement.
  // The statement whose rows must hold `checked_variable` in `checked_column`.
  uint32_t checked_statement = no_statement;
  const char* checked_variable = "";
  uint32_t checked_column = 0;
  uint32_t copying_statement = no_statement;  // COPY FROM STDIN.
  const char* label = nullptr;                // Of one of several parts, in reports.
};

struct Builtin {
  const char* name;
  const char* summary;
  std::array<Part, 2> parts;
  bool reconnects = false;
  Nanoseconds think_time = 0;
};

constexpr const char* select_1 = "\\set n unique()\nSELECT :n";

constexpr const char* lookup =
    "\\set aid random(1, 100000 * :scale)\n"
    "SELECT abalance, aid FROM pgbench_accounts WHERE aid = :aid";

constexpr const char* pgbench_select =
    "\\set aid random(1, 100000 * :scale)\n"
    "SELECT abalance FROM pgbench_accounts WHERE aid = :aid";

constexpr const char* tpcb =
    "\\set aid random(1, 100000 * :scale)\n"
    "\\set bid random(1, 1 * :scale)\n"
    "\\set tid random(1, 10 * :scale)\n"
    "\\set delta random(-5000, 5000)\n"
    "BEGIN;\n"
    "UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;\n"
    "SELECT abalance, aid FROM pgbench_accounts WHERE aid = :aid;\n"
    "UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;\n"
    "UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;\n"
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)"
    " VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);\n"
    "END";

constexpr const char* insert =
    "\\set aid random(1, 100000 * :scale)\n"
    "\\set bid random(1, 1 * :scale)\n"
    "\\set tid random(1, 10 * :scale)\n"
    "\\set delta random(-5000, 5000)\n"
    "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)"
    " VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP)";

constexpr const char* result_1mb =
    "SELECT repeat('x', 94) FROM generate_series(1, 10000) /* big */";

constexpr uint32_t big_rows = 10'000;

// The table lives in the transaction only, so that the load fills no disk.
constexpr const char* copy_in =
    "BEGIN;\n"
    "CREATE TEMP TABLE helios_bench_copy (line text) ON COMMIT DROP;\n"
    "COPY helios_bench_copy FROM STDIN;\n"
    "COMMIT";

constexpr const char* copy_out =
    "COPY (SELECT repeat('x', 99) FROM generate_series(1, 10000)) TO STDOUT";

constexpr std::array<Expected, 1> one_row = {{{"SELECT 1", 1}}};
constexpr std::array<Expected, 1> big_result = {{{"SELECT 10000", big_rows}}};
constexpr std::array<Expected, 1> one_insert = {{{"INSERT 0 1"}}};
constexpr std::array<Expected, 7> tpcb_answers = {{{"BEGIN"},
                                                   {"UPDATE 1"},
                                                   {"SELECT 1", 1},
                                                   {"UPDATE 1"},
                                                   {"UPDATE 1"},
                                                   {"INSERT 0 1"},
                                                   {"COMMIT"}}};
constexpr std::array<Expected, 4> copy_in_answers = {
    {{"BEGIN"}, {"CREATE TABLE"}, {"COPY 10000"}, {"COMMIT"}}};
constexpr std::array<Expected, 1> copy_out_answers = {{{"COPY 10000", big_rows}}};

constexpr std::array<Builtin, 11> builtins = {{
    {"select-1",
     "SELECT of a number that nobody else asks for; the answer is checked",
     {{{100, select_1, one_row, 0, "n", 0}}}},
    {"lookup",
     "one row of pgbench_accounts by its key; the answer is checked",
     {{{100, lookup, one_row, 0, "aid", 1}}}},
    {"pgbench-select",
     "the same in pgbench's own words (pgbench -S); checked is that it is one row",
     {{{100, pgbench_select, one_row}}}},
    {"tpcb",
     "pgbench's transaction: three updates, a select and an insert; its select is checked",
     {{{100, tpcb, tpcb_answers, 2, "aid", 1}}}},
    {"insert", "one row into pgbench_history", {{{100, insert, one_insert}}}},
    {"result-1mb", "a result of 10,000 rows, about 1 MB", {{{100, result_1mb, big_result}}}},
    {"copy-in",
     "1 MB by COPY FROM STDIN into a temporary table",
     {{{100, copy_in, copy_in_answers, no_statement, "", 0, 2}}}},
    {"copy-out", "1 MB by COPY TO STDOUT", {{{100, copy_out, copy_out_answers}}}},
    {"connect",
     "select-1 on a connection of its own; the latency includes connect and login",
     {{{100, select_1, one_row, 0, "n", 0}}},
     true},
    {"think",
     "select-1 of clients that pause between (100 ms on average, or --think-time)",
     {{{100, select_1, one_row, 0, "n", 0}}},
     false,
     milliseconds(100)},
    {"mixed",
     "99 of 100 transactions sleep 1 ms in the server, 1 of 100 sleeps 500 ms",
     {{{99, "SELECT pg_sleep(0.001)", one_row, no_statement, "", 0, no_statement, "mixed 1 ms"},
       {1, "SELECT pg_sleep(0.5)", one_row, no_statement, "", 0, no_statement, "mixed 500 ms"}}}},
}};

const Builtin* find_builtin(std::string_view name) {
  for (const Builtin& builtin : builtins)
    if (name == builtin.name) return &builtin;
  return nullptr;
}

// 10,000 lines of 100 bytes in messages of 8,000 bytes, and the end.
std::vector<uint8_t> make_copy_in_data() {
  constexpr size_t lines_per_message = 80;
  constexpr size_t messages_count = 125;
  std::string body;
  for (size_t i = 0; i < lines_per_message; ++i) body.append(99, 'x').append(1, '\n');
  std::vector<uint8_t> data;
  MessageWriter writer(data);
  for (size_t i = 0; i < messages_count; ++i) {
    writer.begin(frontend_tag::copy_data);
    writer.add_bytes(as_bytes(body));
    writer.end();
  }
  writer.begin(frontend_tag::copy_done);
  writer.end();
  return data;
}

void add_part(ScriptSet& set, const Builtin& builtin, const Part& part, uint64_t weight) {
  const size_t first = set.statements.size();
  const Result<bool> added = add_script(set, builtin.name, weight, part.text);
  ASSERT(added.ok());
  if (part.label != nullptr) set.scripts.back().name = part.label;
  set.scripts.back().reconnects = builtin.reconnects;
  ASSERT(part.answers.size() == set.statements.size() - first);
  for (size_t i = 0; i < part.answers.size(); ++i) {
    set.statements[first + i].expected_tag = part.answers[i].tag;
    set.statements[first + i].expected_rows = part.answers[i].rows;
  }
  if (part.checked_statement != no_statement) {
    ScriptStatement& statement = set.statements[first + part.checked_statement];
    statement.checked_slot = set.variables.find(part.checked_variable);
    statement.checked_column = part.checked_column;
  }
  if (part.copying_statement == no_statement) return;
  set.statements[first + part.copying_statement].copies_in = true;
  if (set.copy_in_data.empty()) set.copy_in_data = make_copy_in_data();
}

std::string unknown_script(const std::string& name, const std::string& reason) {
  std::vector<std::string_view> names;
  for (const Builtin& builtin : builtins) names.emplace_back(builtin.name);
  return "\"" + name +
         "\" is no built-in script (--list-scripts shows them), and no file: " + reason +
         suggestion(name, names);
}

Result<bool> add_file(ScriptSet& set, const std::string& path, uint64_t weight) {
  const Result<std::string> text = read_text_file(path);
  if (!text.ok()) return Error{unknown_script(path, text.error())};
  return add_script(set, path, weight, text.value());
}

}  // namespace

Result<ScriptSet> load_scripts(std::span<const ScriptChoice> choices) {
  ScriptSet set;
  for (const ScriptChoice& choice : choices) {
    // A script with parts counts as one, and parts are weighted in hundredths.
    const uint64_t weight = choice.weight;
    const Builtin* builtin = find_builtin(choice.name);
    if (builtin == nullptr) {
      const Result<bool> added = add_file(set, choice.name, weight * 100);
      if (!added.ok()) return Error{added.error()};
      continue;
    }
    for (const Part& part : builtin->parts)
      if (part.weight > 0) add_part(set, *builtin, part, weight * part.weight);
    set.think_time = std::max(set.think_time, builtin->think_time);
  }
  if (set.weights_total == 0) return Error{"no script has a weight above 0"};
  return set;
}

std::string list_of_scripts() {
  std::string text;
  for (const Builtin& builtin : builtins) {
    std::string name = builtin.name;
    name.resize(16, ' ');
    text += name + builtin.summary + "\n";
  }
  return text;
}

}  // namespace helios::bench
