#include "load/script.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace helios::bench {
namespace {

struct Parsed {
  ScriptSet set;
  std::string error;

  explicit Parsed(std::string_view text) {
    const Result<bool> result = add_script(set, "file.sql", 1, text);
    if (!result.ok()) error = result.error();
  }
  [[nodiscard]] std::vector<std::string> texts() const {
    std::vector<std::string> all;
    for (const ScriptStatement& statement : set.statements) all.push_back(statement.parameter_text);
    return all;
  }
};

using Texts = std::vector<std::string>;

Result<ScriptSet> load(std::vector<ScriptChoice> choices) {
  return load_scripts(choices);
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("statements end with a semicolon or the file") {
  const Parsed parsed("SELECT 1;\n ;; SELECT\n 2 ; SELECT 3");
  CHECK(parsed.error == "");
  CHECK(parsed.texts() == Texts{"SELECT 1", "SELECT\n 2 ", "SELECT 3"});
  CHECK(parsed.set.scripts[0].statements_count == 3);
  CHECK(parsed.set.scripts[0].last_statement_step == 2);
}

TEST_CASE("a semicolon in quotes, comments or parentheses does not end a statement") {
  const Texts whole = {"SELECT 'a;''b;'",
                       "SELECT \"a;\"\"b;\"",
                       "SELECT E'a\\';b'",
                       "SELECT 'a\\'",
                       "SELECT $$a;b$$",
                       "SELECT $tag$ ; $$ ; $tag$",
                       "SELECT 1 -- ; here\n + 1",
                       "SELECT 1 /* ; /* ; */ ; */ + 1",
                       "CREATE RULE r AS (SELECT 1; SELECT 2)"};
  for (const std::string& text : whole) {
    const Parsed parsed(text + "; SELECT 2");
    CHECK_MESSAGE(parsed.error == "", text);
    CHECK_MESSAGE((parsed.texts() == Texts{text, "SELECT 2"}), text);
  }
}

TEST_CASE("a dollar within a word is no quote") {
  CHECK(Parsed("SELECT a$b; SELECT c$d").texts() == Texts{"SELECT a$b", "SELECT c$d"});
  CHECK(Parsed("SELECT $1; SELECT $2").texts() == Texts{"SELECT $1", "SELECT $2"});
}

TEST_CASE("variables are replaced outside quotes, casts and slices") {
  const Parsed parsed(
      "\\set aid random(1, 100000 * :scale)\n"
      "SELECT :aid::text, ':aid', $$:aid$$, a[1:2], :scale /* :none */;");
  CHECK(parsed.error == "");
  REQUIRE(parsed.set.statements.size() == 1);
  const ScriptStatement& statement = parsed.set.statements[0];
  CHECK(statement.parameter_text == "SELECT $1::text, ':aid', $$:aid$$, a[1:2], $2 /* :none */");
  CHECK(statement.slots ==
        std::vector<uint32_t>{parsed.set.variables.find("aid"), VariableNames::scale});
  CHECK(statement.texts.size() == 3);
  CHECK(statement.texts[0] == "SELECT ");
}

TEST_CASE("\\set may be anywhere between statements, and be continued") {
  const Parsed parsed("SELECT 1;\n  \\set a 1 + \\\n 2\n-- a comment\n\\set b :a\nSELECT :b");
  CHECK(parsed.error == "");
  REQUIRE(parsed.set.scripts.size() == 1);
  const Script& script = parsed.set.scripts[0];
  REQUIRE(script.steps.size() == 4);
  CHECK(script.steps[0].statement == 0);
  CHECK(script.steps[1].statement == Step::none);
  CHECK(script.steps[2].slot == parsed.set.variables.find("b"));
  CHECK(script.steps[3].statement == 1);
  CHECK(script.steps[1].place == "file.sql:2");
}

TEST_CASE("mistakes are told with file and line") {
  CHECK(has(Parsed("SELECT 1;\n\\sleep 1\nSELECT 2").error, "file.sql:2: unknown command \\sleep"));
  CHECK(has(Parsed("\n\n\\set\nSELECT 1").error, "file.sql:3: \\set needs a name"));
  CHECK(has(Parsed("\\set a 1 +\nSELECT 1").error, "file.sql:1: the expression is not complete"));
  CHECK(has(Parsed("SELECT 1;\nSELECT :aid").error, "file.sql:2: unknown variable :aid"));
  CHECK(has(Parsed("SELECT 1;\nSELECT 'a\n\n").error, "file.sql:2: the quote has no end"));
  CHECK(has(Parsed("SELECT $a$ b").error, "file.sql:1: the quote $a$ has no end"));
  CHECK(has(Parsed("SELECT 1 /* a /* b */\n").error, "file.sql:1: the comment has no end"));
  CHECK(has(Parsed("/* a\n").error, "file.sql:1: the comment has no end"));
  CHECK(has(Parsed("SELECT 1\n\\set a 1\n").error, "file.sql:2: a backslash within a statement"));
  CHECK(has(Parsed("-- nothing\n ; \\set a 1\n").error, "file.sql: there is no statement"));
}

TEST_CASE("every built-in script is understood") {
  const std::string list = list_of_scripts();
  for (size_t at = 0; at < list.size(); at = list.find('\n', at) + 1) {
    const std::string name = list.substr(at, list.find(' ', at) - at);
    const Result<ScriptSet> set = load({{name, 1}});
    REQUIRE_MESSAGE(set.ok(), name);
    CHECK(set.value().weights_total == 100);
    CHECK(set.value().statements_per_transaction_max >= 1);
    for (const ScriptStatement& statement : set.value().statements)
      CHECK_MESSAGE(!statement.expected_tag.empty(), name);
  }
}

TEST_CASE("checks of built-in scripts name a variable that the statement sends") {
  for (const char* name : {"select-1", "lookup", "tpcb", "connect", "think"}) {
    const Result<ScriptSet> set = load({{name, 1}});
    REQUIRE(set.ok());
    int checked_count = 0;
    for (const ScriptStatement& statement : set.value().statements) {
      if (statement.checked_slot == VariableNames::none) continue;
      ++checked_count;
      CHECK(statement.slots == std::vector<uint32_t>{statement.checked_slot});
    }
    CHECK(checked_count == 1);
  }
}

TEST_CASE("weights choose between scripts") {
  const Result<ScriptSet> set = load({{"select-1", 3}, {"mixed", 1}, {"insert", 0}});
  REQUIRE(set.ok());
  CHECK(set.value().weights_total == 400);
  std::vector<int> counts(set.value().scripts.size());
  for (uint64_t number = 0; number < 400; ++number) ++counts[set.value().choose(number)];
  CHECK(counts == std::vector<int>{300, 99, 1, 0});
}

TEST_CASE("scripts that cannot be had are explained") {
  CHECK(has(load({{"selct-1", 1}}).error(), "did you mean \"select-1\"?"));
  CHECK(has(load({{"/nowhere/x.sql", 1}}).error(), "No such file"));
  CHECK(has(load({{"/tmp", 1}}).error(), "directory"));
  CHECK(has(load({{"select-1", 0}}).error(), "weight"));
}

TEST_CASE("the data of copy-in is 1 MB of whole messages") {
  const Result<ScriptSet> set = load({{"copy-in", 1}});
  REQUIRE(set.ok());
  CHECK(set.value().has_copy_in());
  CHECK(set.value().copy_in_data.size() == 125 * (8000 + 5) + 5);
  const Result<ScriptSet> other = load({{"select-1", 1}});
  REQUIRE(other.ok());
  CHECK_FALSE(other.value().has_copy_in());
}

}  // namespace helios::bench
