#include "load/backend_sql.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "helios/base/clock.h"

namespace helios::bench {
namespace {

using Kind = StatementKind;

Kind kind_of(std::string_view text) {
  return recognise(text).kind;
}

std::vector<std::string> statements_of(std::string_view text) {
  std::vector<std::string> found;
  for (std::string_view next = next_statement(text); !next.empty(); next = next_statement(text))
    found.emplace_back(next);
  return found;
}

std::string tag_of(std::string_view text) {
  char tag[command_tag_size_max];
  return {tag, write_command_tag(text, tag)};
}

TEST_CASE("transaction commands are recognised in any case, behind spaces and comments") {
  CHECK(kind_of("BEGIN") == Kind::begin);
  CHECK(kind_of(" /* why */ begin isolation level serializable") == Kind::begin);
  CHECK(kind_of("-- a line\nstart transaction read only") == Kind::start);
  CHECK(kind_of("Commit") == Kind::commit);
  CHECK(kind_of("END") == Kind::commit);
  CHECK(kind_of("rollback") == Kind::rollback);
  CHECK(kind_of("ABORT") == Kind::rollback);
  CHECK(kind_of("rollback to savepoint a") == Kind::rollback_to);
  CHECK(kind_of("ROLLBACK WORK TO a") == Kind::rollback_to);
  CHECK(kind_of("commit prepared 'x'") == Kind::command);
  CHECK(kind_of("beginning") == Kind::command);
}

TEST_CASE("a text without a word is empty") {
  CHECK(kind_of("") == Kind::empty);
  CHECK(kind_of(" \n -- nothing") == Kind::empty);
  CHECK(kind_of("/* never closed") == Kind::empty);
}

TEST_CASE("the version is a row of its own") {
  CHECK(kind_of("SELECT version()") == Kind::version);
  CHECK(kind_of("select versions") == Kind::row);
}

TEST_CASE("a number is a number and nothing else") {
  CHECK(recognise("select 42").value == 42);
  CHECK(recognise("SELECT  -7 ").value == -7);
  CHECK_FALSE(recognise("select 42").is_wide);
  CHECK(recognise("select 42::bigint").is_wide);
  CHECK(recognise("select 3000000000").is_wide);
  CHECK(kind_of("select 3000000000::int4") == Kind::row);
  CHECK(kind_of("select 1, 2") == Kind::row);
  CHECK(kind_of("select 1.5") == Kind::row);
  CHECK(kind_of("select 1x") == Kind::row);
  CHECK(kind_of("select 99999999999999999999") == Kind::row);
  CHECK(kind_of("select 1::text") == Kind::row);
}

TEST_CASE("a parameter stands for the number") {
  const Statement plain = recognise("select $3");
  CHECK(plain.kind == Kind::number);
  CHECK(plain.parameter == 3);
  CHECK(plain.is_wide);
  CHECK_FALSE(recognise("select $1::int").is_wide);
  CHECK(kind_of("select $0") == Kind::row);
  CHECK(kind_of("select $300") == Kind::row);
}

TEST_CASE("division by zero is an error, other divisions are rows") {
  CHECK(kind_of("select 1/0") == Kind::division_by_zero);
  CHECK(kind_of("select 1 / 0") == Kind::division_by_zero);
  CHECK(kind_of("select 1/2") == Kind::row);
}

TEST_CASE("pgbench's lookup gives its aid") {
  const Statement lookup = recognise("SELECT abalance FROM pgbench_accounts WHERE aid = 17");
  CHECK(lookup.kind == Kind::lookup);
  CHECK(lookup.value == 17);
  CHECK(recognise("select abalance from a where aid=$1").parameter == 1);
  CHECK(kind_of("select abalance, aid from a where aid = 5") == Kind::lookup_pair);
  CHECK(kind_of("select abalance, bid from a where aid = 5") == Kind::row);
  CHECK(kind_of("select abalance from a where bid = 5") == Kind::row);
  CHECK(kind_of("select abalance from a where aid = 5 for update") == Kind::row);
  CHECK(kind_of("select abalance from a where aid = 3000000000") == Kind::row);
}

TEST_CASE("large results are asked for by the first word or by a comment") {
  CHECK(kind_of("SELECT big") == Kind::big);
  CHECK(kind_of("select big from x") == Kind::big);
  CHECK(kind_of("/* big */ select 1") == Kind::big);
  CHECK(kind_of("select /* big */ 1") == Kind::big);
  CHECK(kind_of("select bigger") == Kind::row);
  CHECK(kind_of("insert into t values ('/* big */')") == Kind::insert);
}

TEST_CASE("pg_sleep takes seconds with a fraction") {
  CHECK(recognise("select pg_sleep(2)").value == seconds(2));
  CHECK(recognise("select pg_sleep( 0.25 )").value == milliseconds(250));
  CHECK(recognise("select pg_sleep(1e30)").value == seconds(24 * 3600));
  CHECK(kind_of("select pg_sleep(-1)") == Kind::row);
  CHECK(kind_of("select pg_sleep(x)") == Kind::row);
  CHECK(kind_of("select pg_sleep(nan)") == Kind::row);
}

TEST_CASE("COPY has a direction") {
  CHECK(kind_of("copy t from stdin") == Kind::copy_in);
  CHECK(kind_of("COPY t (a, b) FROM STDIN WITH (FREEZE ON)") == Kind::copy_in);
  CHECK(kind_of("copy (select a from b) to stdout") == Kind::copy_out);
  CHECK(kind_of("copy t from '/file'") == Kind::command);
}

TEST_CASE("statements end at semicolons outside of quotes and comments") {
  using Texts = std::vector<std::string>;
  CHECK(statements_of("select 1") == Texts{"select 1"});
  CHECK(statements_of("select 1;") == Texts{"select 1"});
  CHECK(statements_of(";;a; ;b;") == Texts{"a", "b"});
  CHECK(statements_of("set a = 'x;y''z;'; b") == Texts{"set a = 'x;y''z;'", " b"});
  CHECK(statements_of("set a = E'x\\';'; b") == Texts{"set a = E'x\\';'", " b"});
  CHECK(statements_of("select \"a;b\"; c") == Texts{"select \"a;b\"", " c"});
  CHECK(statements_of("do $x$ a; $y$ b $x$; c") == Texts{"do $x$ a; $y$ b $x$", " c"});
  CHECK(statements_of("select $1; c") == Texts{"select $1", " c"});
  CHECK(statements_of("a /* ; */; b -- ;\n; c") == Texts{"a /* ; */", " b -- ;\n", " c"});
  CHECK(statements_of("select 'never closed; x") == Texts{"select 'never closed; x"});
  CHECK(statements_of("a $") == Texts{"a $"});
  CHECK(statements_of("").empty());
}

TEST_CASE("parameters are counted outside of quotes") {
  CHECK(parameters_count("select 1") == 0);
  CHECK(parameters_count("select $1, $12, $2") == 12);
  CHECK(parameters_count("select '$9', $1 -- $7") == 1);
}

TEST_CASE("a command's words are its tag") {
  CHECK(tag_of("vacuum analyze t") == "VACUUM");
  CHECK(tag_of("create table t (a int)") == "CREATE TABLE");
  CHECK(tag_of("CREATE TEMP TABLE t (a int)") == "CREATE TABLE");
  CHECK(tag_of("create unlogged table t (a int)") == "CREATE TABLE");
  CHECK(tag_of("drop table if exists t") == "DROP TABLE");
  CHECK(tag_of("truncate t") == "TRUNCATE TABLE");
  CHECK(tag_of("savepoint a") == "SAVEPOINT");
  CHECK(tag_of("prepare p as select 1") == "PREPARE");
  CHECK(tag_of("discard plans") == "DISCARD PLANS");
  CHECK(tag_of("prepare transaction 'x'") == "PREPARE TRANSACTION");
  CHECK(tag_of("create " + std::string(1000, 'x')).size() < command_tag_size_max);
  CHECK(tag_of(std::string(1000, 'x')).size() < command_tag_size_max);
}

TEST_CASE("SET names a parameter and its value") {
  const auto name = [](std::string_view text) { return std::string(read_setting(text).name); };
  const auto value = [](std::string_view text) { return std::string(read_setting(text).value); };
  CHECK(name("set application_name = 'x'") == "application_name");
  CHECK(value("set application_name = 'x'") == "x");
  CHECK(value("SET SESSION DateStyle TO ISO, DMY ") == "ISO, DMY");
  CHECK(value("set a = E'x'") == "x");
  CHECK(name("set time zone 'UTC'") == "TimeZone");
  CHECK(value("set time zone 'UTC'") == "UTC");
  CHECK(read_setting("set local a = 1").is_local);
  CHECK_FALSE(read_setting("set a = 1").is_local);
  CHECK(read_setting("set a to default").is_default);
  CHECK_FALSE(read_setting("set a to 'default'").is_default);
  CHECK(name("set transaction read only").empty());
  CHECK(name("reset all") == "all");
  CHECK(name("show TimeZone") == "TimeZone");
  CHECK(name("show time zone") == "TimeZone");
}

TEST_CASE("DEALLOCATE names a statement or none") {
  CHECK(read_deallocate("deallocate s") == "s");
  CHECK(read_deallocate("DEALLOCATE PREPARE \"S\"") == "S");
  CHECK(read_deallocate("deallocate all").empty());
  CHECK(read_deallocate("deallocate allow") == "allow");
}

}  // namespace
}  // namespace helios::bench
