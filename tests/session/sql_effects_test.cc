#include "helios/session/sql_effects.h"

#include <doctest/doctest.h>

#include <memory>
#include <random>
#include <string>

namespace helios {
namespace {

// "setting unseen (app.x app.y)"; without `literals` and `hidden`.
std::string effects_text(std::string_view text, bool standard_strings = true) {
  constexpr std::string_view names[] = {
      "setting",  "role",       "temporary", "cursor", "lock",     "listening",
      "library",  "unseen",     "reset",     "ends",   "prepares", "executes",
      "reported", "literals",   "hidden",    "slot",   "origin",   "origin_end",
      "backup",   "backup_end", "seed",      "dblink"};
  const SqlEffects effects = effects_of(text, standard_strings);
  std::string all;
  for (size_t i = 0; i < std::size(names); ++i) {
    if (!effects.has((uint32_t{1} << i) & ~(sql_effect::literals | sql_effect::hidden))) continue;
    all += (all.empty() ? "" : " ") + std::string(names[i]);
  }
  if (effects.names_count == 0) return all;
  all += " (";
  for (size_t i = 0; i < effects.names_count; ++i)
    all += (i > 0 ? " " : "") + std::string(effects.names[i]);
  return all + ")";
}

}  // namespace

TEST_CASE("ordinary statements change nothing") {
  for (const std::string_view text :
       {"",
        ";",
        " ; ;",
        "-- nothing",
        "select 1",
        "SELECT set, reset FROM t",
        "update t set x = 1 where y = 'set_config'",
        "insert into temp values (1)",
        "insert into x select * from y on conflict do nothing",
        "delete from t using u returning *",
        "with a as (select 1) select * from a",
        "(select 1) union (select 2)",
        "((values (1)))",
        "begin",
        "start transaction",
        "commit and chain",
        "rollback to savepoint a",
        "savepoint set",
        "copy t from stdin",
        "create table temp (temp int, hold int)",
        "create table t (set_config int)",
        "create index on t (load)",
        "alter role x set search_path = y",
        "alter table t alter c set default 1",
        "comment on table t is 'set x'",
        "show search_path",
        "explain select 1",
        "explain (analyze, verbose) select 1",
        "truncate t",
        "vacuum",
        "notify a, 'b'",
        "declare c cursor for select 1",
        "declare hold cursor with hold_x for select 1",
        "prepare transaction 'x'",
        "merge into temp using t on true when matched then delete",
        "select 'set_config(''a'',''b'',false)'",
        "select $$set_config('a','b',false)$$",
        "select /* set_config('a','b',false) */ 1",
        "select set_config from t",
        "create function f() returns int as $$ set x = 1; listen y $$ language sql",
        "create function f() returns int set search_path = x as 'select 1' language sql"}) {
    CAPTURE(text);
    CHECK(effects_text(text).empty());
  }
}

TEST_CASE("SET for the session is seen, for the transaction it is not") {
  CHECK(effects_text("set work_mem = '1MB'") == "setting");
  CHECK(effects_text("SET SESSION search_path TO a, \"B\"") == "setting");
  CHECK(effects_text(" /* x */ -- y\n set /**/ statement_timeout=1") == "setting");
  CHECK(effects_text("set \"statement_timeout\" to 1") == "setting");
  CHECK(effects_text("set schema 'x'") == "setting");
  CHECK(effects_text("set xml option document") == "setting");
  CHECK(effects_text("set session characteristics as transaction read only") == "setting");
  CHECK(effects_text("set local work_mem = '1MB'").empty());
  CHECK(effects_text("set local role x").empty());
  CHECK(effects_text("set transaction isolation level serializable").empty());
  CHECK(effects_text("set constraints all deferred").empty());
  CHECK(effects_text("set role x") == "role");
  CHECK(effects_text("set session role x") == "role");
  CHECK(effects_text("set role = 'x'") == "role");
  CHECK(effects_text("set session authorization x") == "role");
  CHECK(effects_text("set local session authorization x").empty());
  CHECK(effects_text("set session_authorization = 'x'") == "role");
  CHECK(effects_text("set") == "setting unseen");
  CHECK(effects_text("set 'x' = 1") == "setting unseen");
}

TEST_CASE("what every server reports needs no second look") {
  for (const std::string_view text :
       {"set application_name = 'x'", "set time zone 'UTC'", "set TimeZone to 'UTC'",
        "set names 'UTF8'", "set client_encoding = 'UTF8'", "set session datestyle = 'ISO'",
        "select set_config('TimeZone', 'UTC', false)"}) {
    CAPTURE(text);
    CHECK(effects_text(text).empty());
  }
}

TEST_CASE("names of custom parameters are known, or it is said that they are not") {
  CHECK(effects_text("set app.x = 'y'") == "setting (app.x)");
  CHECK(effects_text("set App.X.z to 1; set app.y = 2") == "setting (App.X.z app.y)");
  CHECK(effects_text("set app.x = 1; set app.x = 2") == "setting (app.x)");
  CHECK(effects_text("set \"app.x\" = 1") == "setting (app.x)");
  CHECK(effects_text("set \"app\".x = 1") == "setting unseen");
  CHECK(effects_text("set app . x = 1") == "setting unseen");
  CHECK(effects_text("set gr\xc3\xb6.x = 1") == "setting unseen");
  std::string many;
  for (int i = 0; i < 9; ++i) many += "set a.x" + std::to_string(i) + " = 1;";
  CHECK(effects_of(many).names_count == SqlEffects::names_max);
  CHECK(effects_of(many).has(sql_effect::unseen));
}

TEST_CASE("set_config is read where its arguments can be") {
  CHECK(effects_text("select set_config('work_mem', '1MB', false)") == "setting");
  CHECK(effects_text("select pg_catalog.set_config('app.x', $1, false), 2") == "setting (app.x)");
  CHECK(effects_text("SELECT SET_CONFIG ( E'app.x' , lower(1, 2) , false)") == "setting (app.x)");
  CHECK(effects_text("select \"set_config\"('app.x', 'y', $1)") == "setting (app.x)");
  CHECK(effects_text("insert into t values (set_config('role', 'x', false))") == "role");
  CHECK(effects_text("select set_config('app.x', $1, true)").empty());
  CHECK(effects_text("select set_config($1, $2, true), set_config($3, 'x', TRUE)").empty());
  CHECK(effects_text("select set_config($1, $2, false)") == "setting unseen");
  CHECK(effects_text("select set_config(x, y, z) from t") == "setting unseen");
  CHECK(effects_text("select set_config('a' || 'b', y, false)") == "setting unseen");
  CHECK(
      effects_text("select set_config(is_local => true, setting_name => 'a', new_value => 'b')") ==
      "setting unseen");
  CHECK(effects_text("select set_config('a', set_config('b', 'c', false), true)") ==
        "setting unseen");
  CHECK(effects_text("select set_config('a', 'b', true and false)") == "setting");
  CHECK(effects_text("select set_config('it''s', 'b', false)") == "setting unseen");
  CHECK(effects_text("select set_config('a', pg_advisory_lock(1)::text, true)") == "lock");
  CHECK(effects_text("explain analyze select set_config('work_mem', '1MB', false)") == "setting");
}

TEST_CASE("what changes the way literals are read is seen, in a transaction too") {
  const auto changes = [](std::string_view text) {
    return effects_of(text).has(sql_effect::literals);
  };
  CHECK(changes("set DateStyle = 'German'"));
  CHECK(changes("set local datestyle to dmy"));
  CHECK(changes("begin; set local time zone 'UTC'"));
  CHECK(changes("set timezone = 'UTC'"));
  CHECK(changes("set names 'LATIN1'"));
  CHECK(changes("set xml option content"));
  CHECK(changes("set local array_nulls = off"));
  CHECK(changes("select set_config('IntervalStyle', $1, true)"));
  CHECK(changes("select set_config($1, $2, true)"));
  CHECK(changes("reset all"));
  CHECK(changes("reset standard_conforming_strings"));
  CHECK(changes("discard all"));
  const auto hides = [](std::string_view text) { return effects_of(text).has(sql_effect::hidden); };
  CHECK(hides("set xml option content"));
  CHECK(hides("set local array_nulls = off"));
  CHECK(hides("select set_config($1, $2, true)"));
  CHECK(hides("reset all"));
  CHECK_FALSE(hides("set local time zone 'UTC'"));
  CHECK_FALSE(hides("set names 'LATIN1'"));
  CHECK_FALSE(changes("set local statement_timeout = 1"));
  CHECK_FALSE(changes("select set_config('app.user', $1, true)"));
  CHECK_FALSE(changes("set search_path = a"));
  CHECK_FALSE(changes("reset search_path"));
  CHECK_FALSE(changes("select 1"));
}

TEST_CASE("RESET and DISCARD are seen") {
  CHECK(effects_text("reset all") == "setting reset reported");
  CHECK(effects_text("reset app.x") == "setting reset");
  CHECK(effects_text("reset time zone") == "setting reset reported");
  CHECK(effects_text("reset \"DateStyle\"") == "setting reset reported");
  CHECK(effects_text("reset role") == "role reset");
  CHECK(effects_text("reset session authorization") == "role reset");
  CHECK(effects_text("discard all") == "setting role reset ends reported");
  CHECK(effects_text("discard temp") == "ends");
  CHECK(effects_text("set work_mem to default") == "setting reset");
  CHECK(effects_text("set application_name = default") == "setting reset reported");
  CHECK(effects_text("set time zone default") == "setting reset reported");
  CHECK(effects_text("set role to default") == "role reset");
  CHECK(effects_text("set local work_mem to default").empty());
  CHECK(effects_text("discard plans").empty());
}

TEST_CASE("temporary tables are seen, unless they end with the transaction") {
  for (const std::string_view text :
       {"create temp table t (x int)", "CREATE TEMPORARY VIEW v AS SELECT 1",
        "create local temp sequence s", "create global temporary table t (x int)",
        "create or replace temp view v as select 1", "create table pg_temp.t (x int)",
        "create table \"pg_temp\".t (x int)", "create function pg_temp.f() returns int as ''",
        "select 1 into temp t", "select 1 into temporary table t", "select 1 into local temp t",
        "select 1 into pg_temp.t", "with a as (select 1) select * into temp t from a",
        "create temp table t on commit delete rows as select 1",
        "explain analyze create temp table t as select 1"}) {
    CAPTURE(text);
    CHECK(effects_text(text) == "temporary");
  }
  CHECK(effects_text("create temp table t (x int) on commit drop").empty());
  CHECK(effects_text("create temp table t on commit drop as select 1") == "temporary");
  CHECK(effects_text("create temp table t(); create temp table u () on commit drop") ==
        "temporary");
}

TEST_CASE("a search path that begins with pg_temp makes tables temporary") {
  CHECK(effects_text("set search_path = pg_temp, public") == "setting temporary");
  CHECK(effects_text("set local search_path to 'pg_temp'") == "temporary");
  CHECK(effects_text("set schema 'pg_temp'") == "setting temporary");
  CHECK(effects_text("set search_path = public, pg_temp") == "setting");
  CHECK(effects_text("select set_config('search_path', 'pg_temp,a', false)") ==
        "setting temporary");
  CHECK(effects_text("select set_config('search_path', 'pg_temp', true)") == "temporary");
  CHECK(effects_text("select set_config('app.x', 'pg_temp', true)").empty());
}

TEST_CASE("what else a session holds is seen") {
  CHECK(effects_text("declare c cursor with hold for select 1") == "cursor");
  CHECK(effects_text("declare c binary scroll cursor with /**/ hold for select 1") == "cursor");
  CHECK(effects_text("declare c cursor without hold for select 1").empty());
  CHECK(effects_text("select pg_advisory_lock(1)") == "lock");
  CHECK(effects_text("select pg_catalog.pg_try_advisory_lock_shared(1, 2)") == "lock");
  CHECK(effects_text("select pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)").empty());
  CHECK(effects_text("select pg_advisory_unlock(1)") == "ends");
  CHECK(effects_text("select pg_advisory_unlock_all()") == "ends");
  CHECK(effects_text("listen a") == "listening");
  CHECK(effects_text("unlisten *") == "ends");
  CHECK(effects_text("load 'auto_explain'") == "library");
  CHECK(effects_text("close c") == "ends");
  CHECK(effects_text("drop table t") == "ends");
}

TEST_CASE("what cannot be seen through is called so") {
  for (const std::string_view text :
       {"do $$ begin end $$", "call p()", "refurbish everything", "select 'open", "select \"open",
        "select $$open", "/* open", "select U&\"\\0073et_config\"('a', 'b', false)", "42", "$1",
        "create function f() begin atomic select 1;"}) {
    CAPTURE(text);
    CHECK(effects_text(text) == "unseen");
  }
}

TEST_CASE("functions of replication and of backups are known") {
  CHECK(effects_text("select pg_create_physical_replication_slot('a', false, true)") == "slot");
  CHECK(
      effects_text("select * from pg_catalog.pg_create_logical_replication_slot('a', 'b', true)") ==
      "slot");
  CHECK(effects_text("select PG_COPY_LOGICAL_REPLICATION_SLOT('a', 'b', true)") == "slot");
  CHECK(effects_text("select pg_drop_replication_slot('a')") == "ends");
  CHECK(effects_text("select pg_replication_origin_session_setup('a')") == "origin");
  CHECK(effects_text("select pg_replication_origin_session_reset()") == "origin_end");
  CHECK(effects_text("select pg_backup_start('a')") == "backup");
  CHECK(effects_text("select * from pg_backup_stop(false)") == "backup_end");
  CHECK(effects_text("select pg_start_backup('a', false, false)") == "backup");
  CHECK(effects_text("select pg_stop_backup(false)") == "backup_end");
  CHECK(effects_text("select pg_advisory_unlock_all()") == "ends");
  CHECK(effects_text("select my.pg_backup_start('a')") == "unseen backup");
  CHECK(!is_plainly_harmless("select pg_backup_start('a')"));
}

TEST_CASE("the seed of random() and connections of dblink are known") {
  CHECK(effects_text("select setseed(0.5), random()") == "seed");
  CHECK(effects_text("set seed = 0.5") == "seed");
  CHECK(effects_text("set session seed to 0.5") == "seed");
  CHECK(effects_text("set local seed to 0.5") == "seed");
  CHECK(effects_text("select set_config('seed', '0.5', false)") == "seed");
  CHECK(effects_text("select set_config('seed', '0.5', true)") == "seed");
  CHECK(effects_text("select random()").empty());
  CHECK(effects_text("select dblink_connect('c', 'dbname=app')") == "dblink");
  CHECK(effects_text("select public.dblink_connect_u('c', 'dbname=app')") == "unseen dblink");
  CHECK(effects_text("select * from dblink('c', 'select 1') as t(a int)") == "unseen");
  CHECK(!is_plainly_harmless("select setseed(0.5)"));
  CHECK(!is_plainly_harmless("select dblink_connect('c', 'dbname=app')"));
}

TEST_CASE("each statement of a text counts") {
  CHECK(effects_text("begin; set local x.y = 1; commit").empty());
  CHECK(effects_text("select 1;set work_mem = 1;") == "setting");
  CHECK(effects_text("select ';set x = 1'; listen y") == "listening");
  CHECK(effects_text("select 'it''s; set a=1'; select 2").empty());
  CHECK(effects_text("select '\\'; set a = 1; --'") == "setting");
  CHECK(effects_text("select '\\'; set a = 1; --'", false).empty());
  CHECK(effects_text("load 'x'; select pg_advisory_lock(1); do ''") == "lock library unseen");
}

TEST_CASE("the body of a function is not run when it is made") {
  CHECK(effects_text("create function f() returns int begin atomic select case when true then 1 "
                     "else 2 end; return 3; end; listen x") == "listening");
  CHECK(effects_text("create procedure p() begin atomic insert into t values (1); end").empty());
  CHECK(effects_text("create rule r as on insert to t do also (insert into u values (1); "
                     "delete from v)")
            .empty());
}

TEST_CASE("prepared statements do what they do when they are executed") {
  CHECK(effects_text("prepare p as select 1") == "prepares");
  CHECK(effects_text("prepare p (int, text) as select set_config('app.x', $2, false)") ==
        "setting prepares (app.x)");
  CHECK(effects_text("execute p") == "executes");
  CHECK(effects_text("execute p(set_config('work_mem', '1MB', false))") == "setting executes");
  CHECK(effects_text("explain analyze execute p(1)") == "executes");
  CHECK(effects_text("create table t as execute p(1)") == "executes");
  CHECK(effects_text("deallocate p") == "ends");
}

TEST_CASE("the quick look knows most queries") {
  for (const std::string_view text :
       {"SELECT 1", "select abalance from pgbench_accounts where aid = 4711;",
        "UPDATE pgbench_accounts SET abalance = abalance + 5 WHERE aid = 1;", "BEGIN", "END;",
        "COMMIT", "rollback ;", "/* app:x */ select 1", "  \n\tinsert into t values (1)",
        "savepoint a", "RELEASE SAVEPOINT a", "with x as (select 1) select * from x"}) {
    CAPTURE(text);
    CHECK(is_plainly_harmless(text));
  }
  CHECK(is_plainly_harmless(std::string_view("select 1;\0", 10)));
  CHECK(is_plainly_harmless("SELECT " + std::string(5000, 'x') + " FROM t"));
  for (const std::string_view text :
       {"set x = 1", "", "select 1; select 2", "SELECT SET_CONFIG('a','b',false)", "listen x",
        "select pg_advisory_lock(1)", "create TEMP table t()", "execute p", "do ''", "u",
        "(select 1)", "/* /* */ */ select 1", "selectx", "select U&\"x\"", "explain select 1"}) {
    CAPTURE(text);
    CHECK(!is_plainly_harmless(text));
  }
}

TEST_CASE("a telling word is found wherever it stands") {
  for (size_t before = 0; before < 70; ++before) {
    for (size_t behind = 0; behind < 40; ++behind) {
      for (const std::string_view word : {"temp", "CONFIG", "Advisory", "u&", "; x"}) {
        const std::string text =
            "select " + std::string(before, 'x') + std::string(word) + std::string(behind, 'y');
        const std::unique_ptr<char[]> exact(new char[text.size()]);
        std::copy(text.begin(), text.end(), exact.get());
        CHECK(!is_plainly_harmless({exact.get(), text.size()}));
      }
    }
    CHECK(is_plainly_harmless("select " + std::string(before, 'e')));
  }
}

// Looked at in three pieces.
bool is_harmless_in_pieces(std::string_view text, size_t first, size_t second) {
  TextScreen screen;
  screen.start();
  screen.add(text.substr(0, first), false);
  screen.add(text.substr(first, second), false);
  screen.add(text.substr(first + second), true);
  return screen.is_harmless();
}

TEST_CASE("a long text is looked at in pieces, cut anywhere") {
  const std::string_view plain = "insert into t values (1, 'em'), (2, 'pt') ; \n";
  const std::string_view telling = "insert into t select set_config('a', 'b', false)";
  const std::string_view several = "insert into t values (1); listen x";
  for (size_t first = 8; first < plain.size(); ++first)
    for (size_t second = 0; second < 6 && first + second < plain.size() - 3; ++second)
      CHECK(is_harmless_in_pieces(plain, first, second));
  for (size_t first = 8; first < telling.size(); ++first)
    for (size_t second = 0; second < 6 && first + second < telling.size(); ++second)
      CHECK(!is_harmless_in_pieces(telling, first, second));
  for (size_t first = 8; first < several.size(); ++first)
    CHECK(!is_harmless_in_pieces(several, first, 0));
  CHECK(!is_harmless_in_pieces("set application_name = 'a'", 12, 3));
}

TEST_CASE("calls in a long text are found in its pieces, cut anywhere") {
  for (const size_t filled : {0, 100, 300}) {
    const std::string filler = "'" + std::string(filled, 'x') + "'";
    const std::string plain = "insert into \"my\".t (a, b) values (1, lower(" + filler +
                              ")), (2, coalesce ( 'x', 'y')), (3, 4)";
    const std::string call = "insert into t values (1, " + filler + ", app . evil(1), " + filler;
    for (size_t first = 8; first < plain.size(); ++first)
      for (size_t second = 0; second < 20 && first + second < plain.size(); ++second)
        CHECK(is_harmless_in_pieces(plain, first, second));
    for (size_t first = 8; first < call.size(); ++first)
      for (size_t second = 0; second < 20 && first + second < call.size(); ++second)
        CHECK(!is_harmless_in_pieces(call, first, second));
  }
}

TEST_CASE("what looks harmless is") {
  constexpr std::string_view pieces[] = {"select ",
                                         "set ",
                                         "x ",
                                         "set_config",
                                         "(",
                                         ")",
                                         "'app.x'",
                                         ",",
                                         "true",
                                         "false",
                                         ";",
                                         "temp ",
                                         "into ",
                                         "create ",
                                         "table ",
                                         "begin ",
                                         "atomic ",
                                         "end ",
                                         "'",
                                         "\"",
                                         "$$",
                                         "/*",
                                         "*/",
                                         "--",
                                         "\n",
                                         "execute ",
                                         "explain ",
                                         "pg_temp",
                                         ".",
                                         "with ",
                                         "hold ",
                                         "declare ",
                                         "E'",
                                         "\\",
                                         "U&\"",
                                         "listen ",
                                         "drop ",
                                         "update ",
                                         "do ",
                                         "local ",
                                         "session ",
                                         "reset ",
                                         "pg_advisory_lock",
                                         "prepare ",
                                         "as ",
                                         " ",
                                         "\x83"};
  std::mt19937 random(11);
  size_t harmless_count = 0;
  for (int round = 0; round < 100'000; ++round) {
    std::string text = random() % 3 == 0 ? "select " : "";
    for (size_t i = random() % 10; i > 0; --i) text += pieces[random() % std::size(pieces)];
    const bool standard = random() % 2 == 0;
    const SqlEffects effects = effects_of(text, standard);
    for (size_t i = 0; i < effects.names_count; ++i) CHECK(!effects.names[i].empty());
    if (!is_plainly_harmless(text)) continue;
    ++harmless_count;
    // What is not closed is an error to the server, and does nothing.
    const uint32_t left = effects.bits & ~sql_effect::ends;
    CAPTURE(text);
    CHECK((left == 0 || left == sql_effect::unseen));
  }
  CHECK(harmless_count > 1000);
}

}  // namespace helios
