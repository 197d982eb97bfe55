#!/usr/bin/python3
"""What a client sets in its session follows it from backend to backend, or keeps its backend with it."""

import contextlib
import random
import re
import time

from harness import runner, wire
from harness.wire import SYNC, bind, execute, extended, parse, query

PID = "select pg_backend_pid()"

# More than 300 bytes of names with quotes of both kinds.
LONG_PATH = ", ".join(f"\"it's \"\"{number}\"\" {'x' * 40}\"" for number in range(8))
# Parameters that PostgreSQL 15 does not report, with values to be kept to the letter.
VALUES = {
    "search_path": ["'a, B'", "\"a\"\"b\", \"C d\", public", "''", "pg_catalog", "\"$user\", 'x y'", LONG_PATH],
    "statement_timeout": ["5000", "'7s'", "0"],
    "work_mem": ["'5MB'", "64"],
    "lock_timeout": ["'1min'"],
    "default_transaction_isolation": ["serializable", "'repeatable read'"],
    "enable_seqscan": ["off"],
    "random_page_cost": ["1.5"],
    "extra_float_digits": ["0"],
    "bytea_output": ["escape"],
    "app.x": ["'abc'", "'ABC'", "''", "'it''s'", "'a\\b'", f"'{'long' * 60}'", "'a;b--/*'", "E'\\\\n\\n'", "'größe €'"],
    "App.Two.three": ["'x'"],
}


@contextlib.contextmanager
def clients(proxy, count, user="bench", **parameters):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(proxy.client(user, **parameters)) for _ in range(count)]


@runner.cases(1, 2)
def test_set_follows(connections):
    """What SET has set is shown on any backend, to its client only, exactly as on PostgreSQL."""
    proxy = runner.proxy(cores=connections, max_connections=connections)
    with clients(proxy, 3) as (one, two, plain), runner.cluster().wire() as direct:
        for name, values in VALUES.items():
            default = "" if "." in name else direct.value(f"show {name}")
            for value in values:
                one.query(f"set {name} = {value}")
                direct.query(f"set {name} = {value}")
                shown = direct.value(f"show {name}")
                two.query(f"set session {name} to {values[0]}")
                for _ in range(2):
                    assert one.value(f"show {name}") == shown, (name, value)
                    found = plain.value(f"select coalesce(current_setting('{name}', true), '')")
                    assert found == default, (name, value, found)
                    assert one.execute(f"show {name}") == [[shown]], (name, value)
            for client in (one, two, direct):
                client.query(f"reset {name}")
            assert one.value(f"show {name}") == default, name


def test_many_settings_at_once():
    """Several clients with many settings each, in turns on one backend, keep them all."""
    proxy = runner.proxy(max_connections=1)
    chance = random.Random(3)
    with clients(proxy, 4) as several:
        known = [{} for _ in several]
        for _ in range(runner.scaled(120, 30)):
            place = chance.randrange(len(several))
            name = chance.choice(["work_mem", "lock_timeout", "app.a", "app.b", "search_path"])
            if chance.random() < 0.2:
                several[place].query(f"reset {name}")
                known[place].pop(name, None)
            else:
                value = ("s" if name == "search_path" else "") + str(chance.randrange(100, 200))
                several[place].query(f"set {name} = '{value}'")
                known[place][name] = value
            other = chance.randrange(len(several))
            for asked, value in known[other].items():
                setting = f"(select setting from pg_settings where name = '{asked}')"
                text = f"select coalesce({setting}, current_setting('{asked}', true))"
                assert several[other].value(text) == value, (asked, value)


def test_values_that_differ_only_in_form():
    """Values that differ in case, and those of 200 bytes and more, are told apart and kept whole."""
    proxy = runner.proxy(max_connections=1)
    long = "v" * 3000
    with clients(proxy, 3) as several:
        for client, value in zip(several, ("abc", "ABC", long)):
            client.query(f"set app.name = '{value}'")
        for _ in range(2):
            for client, value in zip(several, ("abc", "ABC", long)):
                assert client.value("show app.name") == value
    for value in ("abc", "ABC", "n" * 63):
        with proxy.client(application_name=value) as client:
            assert client.value("show application_name") == value


def test_a_parameter_that_one_side_has_not_set():
    """Unset is not empty, and what one client has set is unset for one that never did."""
    proxy = runner.proxy(max_connections=1)
    with clients(proxy, 2) as (one, two):
        one.query("set statement_timeout = '9s'")
        assert two.value("show statement_timeout") == "0"
        two.query("set application_name = ''")
        assert one.value("show statement_timeout") == "9s"
        assert two.value("show application_name") == ""


def test_only_what_is_committed_follows():
    """A SET that is rolled back, to a savepoint too, or local to the transaction does not follow."""
    proxy = runner.proxy(max_connections=1)
    with clients(proxy, 2) as (one, two):
        one.query("set work_mem = '5MB'")
        for end in ("rollback", "commit"):
            one.query("begin")
            one.query("set work_mem = '6MB'")
            one.query("savepoint s")
            one.query("set work_mem = '7MB'; set app.s = 'lost'")
            one.query("rollback to savepoint s")
            one.query("set local lock_timeout = '1s'")
            one.query(end)
            two.query("select 1")
            assert one.value("show work_mem") == ("5MB" if end == "rollback" else "6MB")
            assert one.value("show lock_timeout") == "0"
            assert one.value("select coalesce(current_setting('app.s', true), '')") == ""
            assert two.value("show work_mem") == "4MB"
        one.query("begin")
        one.query("set work_mem = '8MB'")
        one.error_of("select 1/0")
        one.query("commit")
        two.query("select 1")
        assert one.value("show work_mem") == "6MB"
        one.error_of("set work_mem = '9MB'; select 1/0")
        two.query("select 1")
        assert one.value("show work_mem") == "6MB"


def test_set_config_follows():
    """set_config follows like SET, wherever it stands; with is_local it does not."""
    proxy = runner.proxy(max_connections=1)
    with clients(proxy, 2) as (one, two):
        one.query("select set_config('search_path', '\"A b\", c', false), 1")
        one.execute("select set_config('app.x', $1, false)", ["by value"])
        one.execute("select set_config('app.l', $1, true)", ["local"])
        one.query("with a as (select set_config('work_mem', '5MB', false)) select * from a")
        two.query("select 1")
        assert one.value("show search_path") == '"A b", c'
        assert one.value("show app.x") == "by value"
        assert one.value("show work_mem") == "5MB"
        assert one.value("select coalesce(current_setting('app.l', true), '')") == ""
        # By a prepared statement, in another transaction than the one that prepared it.
        one.send(parse("select set_config('app.p', $1, false)", "p"), SYNC)
        one.recv_until("Z")
        one.send(bind(["bound"], "p"), execute(), wire.close("S", "p"), SYNC)
        one.recv_until("Z")
        two.query("select 1")
        assert one.value("show app.p") == "bound"


def test_set_in_a_function_that_is_asked_about():
    """What DO and CALL set follows, too; unknown custom parameters of theirs are cleaned away."""
    runner.cluster().run(
        "create or replace procedure sets() language plpgsql as "
        "$$ begin perform set_config('lock_timeout', '3s', false); end $$"
    )
    proxy = runner.proxy(max_connections=1)
    hidden = "select coalesce(current_setting('hidden.x', true), '')"
    hide = "do $$ begin perform set_config('hidden.x', 'secret', false); end $$"
    with clients(proxy, 2) as (one, two):
        one.query("do $$ begin perform set_config('work_mem', '5MB', false); end $$")
        one.query(hide)
        one.query("call sets()")
        assert two.value(hidden) == ""
        assert two.value("show work_mem") == "4MB"
        assert one.value("show work_mem") == "5MB"
        assert one.value("show lock_timeout") == "3s"
        # Who has set it finds it up to the end of the transaction; behind others, no longer.
        for _ in range(2):
            one.query("begin")
            one.query(hide)
            assert one.value(hidden) == "secret"
            one.query("commit")
            assert two.value(hidden) == one.value(hidden) == ""
            assert one.query(f"{hide}; {hidden}") == [["secret"]]
            assert two.value(hidden) == one.value(hidden) == ""
        # One that it has named itself is known.
        one.query("set app.known = 'a'")
        one.query("do $$ begin perform set_config('app.known', 'b', false); end $$")
        assert two.value("select coalesce(current_setting('app.known', true), '')") == ""
        assert one.value("show app.known") == "b"


def test_role_follows():
    """SET ROLE and SET SESSION AUTHORIZATION follow, with what was set before by who could."""
    runner.cluster().run("grant alice to bench")
    runner.cluster().run("drop role if exists chief")
    runner.cluster().run("create role chief superuser login")
    try:
        proxy = runner.proxy(max_connections=1)
        who = "select session_user || ' ' || current_user"
        with clients(proxy, 2) as (one, two):
            one.query("set role alice")
            assert two.value(who) == "bench bench"
            assert one.value(who) == "bench alice"
            one.query("begin; reset role; rollback")
            two.query("select 1")
            assert one.value(who) == "bench alice"
            one.query("set role none")
            two.query("set role alice")
            assert one.value(who) == "bench bench"
            assert two.value(who) == "bench alice"
            two.query("reset role")
            assert two.value(who) == "bench bench"
        users = [{"name": "*", "auth": "trust"}]
        with runner.fresh_proxy(max_connections=1, user=users) as own, clients(own, 2, "chief") as (one, two):
            one.query("set log_min_duration_statement = 12345")
            one.query("set session authorization bob")
            assert two.value(who) == "chief chief"
            assert two.value("show log_min_duration_statement") == "-1"
            assert one.value(who) == "bob bob"
            one.query("reset session authorization; set role alice")
            assert two.value(who) == "chief chief"
            assert one.value(who) == "chief alice"
            one.query("discard all")
            assert one.value(who) == "chief chief"
            assert one.value("show log_min_duration_statement") == "-1"
    finally:
        runner.cluster().run("revoke alice from bench")
        runner.cluster().run("drop role chief")


OF_ROLES = """
grant alice, bob to bench;
create schema alice authorization alice;
create schema bob authorization bob;
create schema hers authorization alice;
grant usage on schema alice to public;
create table alice.own as select 'of alice' as x;
create table bob.own as select 'of bob' as x;
create table alice.typed as select 'text' as x;
create table bob.typed as select 7 as x;
create table alice.private as select 'private' as x;
create table hers.private as select 'hers' as x;
create table rows_of (owner name, x text);
insert into rows_of values ('alice', 'row of alice'), ('bob', 'row of bob'), ('bench', 'row of bench');
grant all on rows_of to public;
grant all on all tables in schema alice, hers to alice;
grant all on all tables in schema bob to bob;
alter table rows_of enable row level security;
create policy own_rows on rows_of using (owner = current_user);
"""
WITHOUT_ROLES = """
drop schema if exists alice, bob, hers cascade;
drop table if exists rows_of;
revoke alice, bob from bench;
"""
# Name of a statement, and what each role gets by it: a value, or an error.
TEXTS_OF_ROLES = {
    "own": ("select x from own", {"alice": "of alice", "bob": "of bob"}),
    "typed": ("select x from typed", {"alice": "text", "bob": "7"}),
    "rows": ("select x from rows_of", {"alice": "row of alice", "bob": "row of bob"}),
    "private": ("select x from alice.private", {"alice": "private", "bob": None}),
    "hers": ("select x from hers.private", {"alice": "hers", "bob": None}),
}


def test_statements_of_roles():
    """Statements of one name and text read what the role of their client may see, whatever it is on the backend."""
    cluster = runner.cluster()
    cluster.run(WITHOUT_ROLES)
    cluster.run(OF_ROLES)
    try:
        proxy = runner.proxy(max_connections=1)
        with clients(proxy, 2) as through, cluster.wire() as one, cluster.wire() as two:

            def both(number, *messages):
                """Rows and errors, which are PostgreSQL's own."""
                told = []
                for client in (through[number], (one, two)[number]):
                    client.send(*messages)
                    found = client.recv_until("Z")
                    told.append((wire.kinds(found), wire.rows(found), [f["C"] for f in wire.errors(found)]))
                assert told[0] == told[1], (number, messages, told)
                return told[0][1:]

            def use(number, role, names):
                """By statements that there are, by new ones and by simple queries."""
                for name in names:
                    text, wanted = TEXTS_OF_ROLES[name]
                    answer = ([], ["42501"]) if wanted[role] is None else ([[wanted[role]]], [])
                    (_, errors) = both(number, bind((), name), execute(), SYNC)
                    assert bool(errors) == (wanted[role] is None), (name, role, errors)
                    assert both(number, extended(text), SYNC) == answer, (name, role)
                    assert both(number, query(text)) == answer, (name, role)

            for number, role in ((0, "alice"), (1, "bob")):
                both(number, query(f"set role {role}"))
                for name, (text, _) in TEXTS_OF_ROLES.items():
                    both(number, parse(text, name), SYNC)
            for _ in range(2):
                use(0, "alice", TEXTS_OF_ROLES)
                use(1, "bob", TEXTS_OF_ROLES)
            # They change places. (What has other columns then does not fit its statement any more.)
            for number, role in ((0, "bob"), (1, "alice")):
                both(number, query(f"set role {role}"))
            for _ in range(2):
                use(0, "bob", ("own", "rows", "private"))
                use(1, "alice", ("own", "rows", "private"))
            both(0, query("begin"))
            both(0, query("set local role alice"))
            use(0, "alice", ("own", "rows", "private"))
            both(0, query("rollback"))
            use(0, "bob", ("own", "rows", "private"))
    finally:
        cluster.run(WITHOUT_ROLES)


def test_reset_leads_to_the_defaults():
    """RESET ALL and DISCARD ALL bring a client to the defaults, on any backend."""
    for reset in ("reset all", "discard all"):
        with runner.fresh_proxy(max_connections=1) as proxy, clients(proxy, 2) as (one, two):
            one.query("set work_mem = '5MB'; set search_path = x; set app.x = 'y'")
            two.query("select 1")
            one.query(reset)
            two.query("set work_mem = '6MB'")
            assert one.value("show work_mem") == "4MB"
            assert one.value("show search_path") == '"$user", public'
            assert one.value("select coalesce(current_setting('app.x', true), '')") == ""
            assert two.value("show work_mem") == "6MB"


@runner.cases("transaction", "session")
def test_reset_leads_to_the_startup_values(mode):
    """RESET ALL and DISCARD ALL bring back what the client has started with, and it is told."""
    proxy = runner.proxy(max_connections=2, mode=mode)
    own = {"application_name": "mine", "TimeZone": "Asia/Tokyo", "statement_timeout": "4321"}
    for reset in ("reset all", "discard all", "reset timezone; reset application_name; reset statement_timeout"):
        with proxy.client(**own) as one, proxy.client(statement_timeout="4321") as two:
            one.query("set application_name = 'x'; set timezone = 'UTC'; set statement_timeout = 1234")
            two.query("select 1")
            one.send(query(reset))
            found = one.recv_until("Z")
            one.send(query("select 1"))
            told = sorted(m.pair for m in found + one.recv_until("Z") if m.kind == "S")
            assert told == [("TimeZone", "Asia/Tokyo"), ("application_name", "mine")], told
            for name, value in own.items():
                assert one.value(f"show {name}") == value.replace("4321", "4321ms"), name
            one.query("set timezone = 'UTC'")
            one.send(query(reset.partition(";")[0]), query("show timezone"), query("begin"), query("show timezone"))
            found = [row for _ in range(4) for row in wire.rows(one.recv_until("Z"))]
            assert found == [["Asia/Tokyo"]] * 2, found


def test_reset_of_one_parameter_leaves_the_others():
    """A client that has set what its backend begins with keeps that, whatever else is reset, or rolled back."""
    with runner.fresh_proxy(max_connections=1) as proxy, clients(proxy, 2, TimeZone="Asia/Tokyo") as (one, two):
        one.query("set timezone = 'UTC'")
        for texts in (
            ["reset datestyle"],
            ["reset application_name", "reset work_mem"],
            ["begin", "reset all", "rollback"],
            ["begin", "savepoint here", "reset timezone", "rollback to here", "commit"],
        ):
            two.query("set timezone = 'Asia/Tokyo'; reset all")
            one.send(*map(query, texts))
            told = [m.pair for _ in texts for m in one.recv_until("Z") if m.kind == "S"]
            assert one.value("show timezone") == "UTC", texts
            assert "TimeZone" not in dict(told), told
        one.query("reset all")
        assert one.value("show timezone") == "Asia/Tokyo"


def test_startup_parameters():
    """Every parameter of the start-up packet or of `options` holds, custom ones too; RESET leads back to it."""
    proxy = runner.proxy(max_connections=1)
    own = {"statement_timeout": "4321", "extra_float_digits": "2", "app.tenant": "t1"}
    options = "-c work_mem=7MB -c my.option=a\\ b --lock-timeout=3s"
    with proxy.client(options=options, **own) as one, proxy.client() as two:
        two.query("set statement_timeout = 1111")
        for _ in range(2):
            assert one.value("show statement_timeout") == "4321ms"
            assert one.value("show extra_float_digits") == "2"
            assert one.value("show app.tenant") == "t1"
            assert one.value("show my.option") == "a b"
            assert one.value("show work_mem") == "7MB"
            assert one.value("show lock_timeout") == "3s"
            assert two.value("select coalesce(current_setting('app.tenant', true), '')") == ""
            assert two.value("show statement_timeout") == "1111ms"
            one.query("set statement_timeout = 2222")
            one.query("set app.tenant = 't2'")
            assert one.value("show app.tenant") == "t2"
            one.query("reset all")


def test_a_startup_parameter_that_is_not_known():
    """An unknown start-up parameter gives PostgreSQL's own error, and the next client is served."""
    proxy = runner.proxy(max_connections=1)
    for wrong in ({"no_such_parameter": "1"}, {"options": "-c no_such_parameter=1"}, {"work_mem": "much"}):
        with runner.cluster().wire() as probe:
            assert probe.value("select 1") == "1"
        try:
            with proxy.client(**wrong) as client:
                client.query("select 1")
            raise AssertionError(f"{wrong} was taken")
        except wire.ServerError as error:
            assert error.code in ("42704", "22023"), error
            assert "no_such_parameter" in error.text or "work_mem" in error.text, error
        with proxy.client() as client:
            assert client.value("select 1") == "1"


def test_options_without_a_name():
    """Options that name nothing, or set nothing, are refused at once, as by PostgreSQL."""
    proxy = runner.proxy(max_connections=1)
    for options in ("-c =", "-c=", "-c =x", "--=x", "-c", "-c x", "-", "x=y", "-c \\"):
        codes = []
        for connect in (lambda: wire.Conn(runner.cluster().address), proxy.open):
            with connect() as conn:
                try:
                    conn.login("bench", "app", options=options)
                    codes.append(conn.error_of("select 1/0")["C"])
                except wire.ServerError as error:
                    codes.append(error.code)
        # An empty name is one that PostgreSQL does not know.
        assert [code.replace("42704", "42601") for code in codes] == ["42601", "42601"], (options, codes)


PINS = {
    "create temp table held (x int)": "drop table held",
    "create temporary view held as select 1": "drop view held",
    "select 1 as x into temp held": "discard temp",
    "declare held cursor with hold for select generate_series(1, 10)": "close held",
    "select pg_advisory_lock(4711)": "select pg_advisory_unlock(4711)",
    "select pg_try_advisory_lock_shared(4711)": "select pg_advisory_unlock_all()",
    "set search_path = pg_temp; create table held (x int)": "drop table held; reset search_path",
}


@runner.cases(1, 2)
def test_pins(cores):
    """What cannot follow keeps the backend with its client, until it is gone."""
    proxy = runner.proxy(cores=cores, max_connections=2)
    for begin, end in PINS.items():
        with clients(proxy, 3) as (one, two, three):
            one.query(begin)
            pid = one.value(PID)
            others = {client.value(PID) for _ in range(3) for client in (two, three)}
            assert pid not in others, begin
            assert one.value(PID) == pid, begin
            one.query(end)
            two.query("begin")
            three.query("begin")
            found = {client.value(PID) for client in (two, three)}
            assert pid in found and len(found) == 2, (begin, pid, found)
            two.query("commit")
            three.query("commit")


@runner.cases(*PINS)
def test_pins_end_by_a_prepared_statement(begin):
    """What ends a pin was prepared before there was any."""
    end = PINS[begin].partition(";")[0]
    with runner.fresh_proxy(max_connections=2) as proxy, clients(proxy, 3) as (one, two, three):
        one.send(parse(end, "end"), SYNC)
        assert wire.kinds(one.recv_until("Z")) == "1Z"
        for _ in range(2):
            one.query(begin)
            pid = one.value(PID)
            one.send(bind([], "end"), execute(), SYNC)
            assert not wire.errors(one.recv_until("Z"))
            two.query("begin")
            three.query("begin")
            found = {client.value(PID) for client in (two, three)}
            assert pid in found and len(found) == 2, (pid, found)
            two.query("commit")
            three.query("commit")
            one.query("reset search_path")


def test_deallocate_by_a_prepared_statement():
    """DEALLOCATE that was prepared before there was a statement: nobody else is told of it, and it is gone."""
    with runner.fresh_proxy(max_connections=1) as proxy, clients(proxy, 2) as (one, two):
        one.send(parse("deallocate held", "end"), SYNC)
        assert wire.kinds(one.recv_until("Z")) == "1Z"
        one.query("prepare held as select 1")
        one.send(bind([], "end"), execute(), SYNC)
        assert wire.kinds(one.recv_until("Z")) == "2CZ"
        assert two.value("select 'served'") == "served"
        assert one.error_of("execute held")["C"] == "26000"


def test_pins_work():
    """A client uses its temporary table, its cursor and its notifications over many transactions."""
    proxy = runner.proxy(max_connections=2)
    with clients(proxy, 2) as (one, two):
        one.query("create temp table mine (x int)")
        one.query("insert into mine values (1), (2)")
        two.query("select 1")
        assert one.value("select count(*) from mine") == "2"
        one.query("begin; declare c cursor with hold for select x from mine order by x; commit")
        two.query("select 1")
        assert one.query("fetch 1 from c") == [["1"]]
        assert one.query("fetch 1 from c") == [["2"]]
        one.query("listen news")
        two.query("notify news, 'hello'")
        assert one.recv_until("A")[-1].kind == "A"
        # As long as one reason is left.
        pid = one.value(PID)
        one.query("drop table mine cascade; close c")
        two.query("select 1")
        assert one.value(PID) == pid
        one.query("unlisten *")


@runner.cases(1, 2)
def test_pins_can_be_seen(cores):
    """Who keeps a server connection, which and why is in the statistics; that it begins and ends is in the log."""
    duration = r"[\d.]+ (ns|us|ms|s)"
    with runner.fresh_proxy(cores=cores, max_connections=3) as proxy, clients(proxy, 2) as (one, two):

        def is_logged(pattern):
            return len(re.findall(pattern + "$", proxy.log(), re.M)) == 1

        one.query("create temp table held (x int)")
        two.query("begin; select pg_advisory_lock(4711)")
        two.query("create temp table held (x int); commit")
        begun = {one: ["temporary table"], two: ["temporary table", "advisory lock"]}
        for client, reasons in begun.items():
            for reason in reasons:
                line = f"client {client.pid} of bench@app keeps its server connection: {reason}"
                runner.eventually(lambda l=line: is_logged(l), what=line)
        rows = proxy.statistics()
        for name in ("bench@app", "total"):
            assert rows[name]["pinned"] == "2", rows[name]
            assert rows[name]["pinned by"] == "2 temporary table, 1 advisory lock", rows[name]
            assert re.fullmatch(duration, rows[name]["longest pin"]), rows[name]
        for client, reasons in begun.items():
            line = f"pin: client {client.pid} of bench@app keeps server process {client.value(PID)}: "
            line += ", ".join(f"{reason} for {duration}" for reason in reasons)
            runner.eventually(lambda l=line: is_logged(l), what=line)
        # One ends by a statement, one by another, one with its client.
        two.query("drop table held")
        ended = "client {} of bench@app kept its server connection for " + duration + ": {}"
        runner.eventually(lambda: is_logged(ended.format(two.pid, "temporary table")), what="its end")
        rows = proxy.statistics()
        assert rows["bench@app"]["pinned by"] == "1 temporary table, 1 advisory lock", rows["bench@app"]
        two.query("select pg_advisory_unlock(4711)")
        one.close()
        for client, reasons in begun.items():
            for reason in reasons:
                line = ended.format(client.pid, reason)
                runner.eventually(lambda l=line: is_logged(l), what=line)
        row = proxy.statistics()["bench@app"]
        assert (row["pinned"], row["pinned by"], row["longest pin"]) == ("0", "-", "-"), row
        # Of two tables.
        assert proxy.log().count("pin: client") == 4, proxy.log()


def test_load_pins_to_the_end():
    """What LOAD has loaded stays with its client whatever it does, and ends with its backend."""
    runner.cluster().run("drop role if exists loader")
    runner.cluster().run("create role loader superuser login")
    loaded = "select count(*) from pg_settings where name = 'auto_explain.log_min_duration'"
    try:
        users = [{"name": "*", "auth": "trust"}]
        with runner.fresh_proxy(max_connections=2, user=users) as proxy:
            for end in ("terminate", "close"):
                one = proxy.client("loader")
                one.query("load 'auto_explain'")
                pid = one.value(PID)
                with clients(proxy, 2, "loader") as (two, three):
                    for sql in ("select 1", "reset all", "discard all", "set work_mem = '5MB'", "begin; rollback"):
                        one.query(sql)
                        for client in (two, three):
                            other, count = client.query(f"{PID}; {loaded}")
                            assert other != [pid] and count == ["0"], (sql, other, count)
                        assert one.query(f"{PID}; {loaded}") == [[pid], ["1"]]
                    getattr(one, end)()
                    runner.eventually(lambda: not runner.cluster().backends(f"pid = {pid}"), what="its end")
                    two.query("begin")
                    assert three.value(loaded) == "0" and pid not in (two.value(PID), three.value(PID))
                    two.query("commit")
            assert proxy.log().count("keeps its server connection: LOAD") == 2
    finally:
        runner.cluster().run("drop role loader")


@runner.cases(
    "select setseed(0.25)",
    "set seed = 0.25",
    "begin; set local seed = 0.25; commit",
    "select set_config('seed', '0.25', true)",
)
def test_a_seed_stays_with_its_client(begin):
    """random() goes on for who has seeded it, and nobody else has that seed."""
    proxy = runner.proxy(max_connections=2)
    with wire.Conn(runner.cluster().address).login("bench", "app") as direct:
        direct.query(begin)
        wanted = [direct.value("select random()") for _ in range(3)]
    with clients(proxy, 2) as (one, two):
        one.query(begin)
        found = []
        for _ in range(3):
            assert two.value("select random()") not in wanted
            found.append(one.value("select random()"))
        assert found == wanted
        pid = one.value(PID)
    runner.eventually(lambda: not runner.cluster().backends(f"pid = {pid}"), what="the end of the seeded backend")


def test_a_connection_of_dblink_stays_with_its_client():
    """What dblink has connected to is found by its client, and by nobody else; it ends with its backend."""
    cluster = runner.cluster()
    cluster.run("create extension dblink; grant execute on function dblink_connect_u(text, text) to bench")
    try:
        target = f"host={cluster.address[0]} port={cluster.port} dbname=app user=bench"
        with runner.fresh_proxy(max_connections=2) as proxy:
            with clients(proxy, 2) as (one, two):
                one.query(f"select dblink_connect_u('mine', '{target}')")
                pid = one.value(PID)
                for _ in range(3):
                    assert one.value("select x from dblink('mine', 'select 5') as t(x int)") == "5"
                    assert two.value("select coalesce(dblink_get_connections(), '{}')") == "{}"
            runner.eventually(lambda: not cluster.backends(f"pid = {pid}"), what="the end of the backend")
    finally:
        cluster.run("drop extension dblink")


def test_what_ends_with_the_transaction_pins_nothing():
    """Temporary tables that are rolled back or dropped at commit, and locks of the transaction, keep nothing."""
    proxy = runner.proxy(max_connections=1)
    with clients(proxy, 2) as (one, two):
        for sql in (
            "begin; create temp table t (x int) on commit drop; commit",
            "begin; create temp table t (x int); rollback",
            "begin; create temp table t (x int); drop table t; commit",
            "begin; select pg_advisory_xact_lock(1); commit",
            "begin; declare c cursor for select 1; commit",
            "begin; listen x; rollback",
            "begin; set local search_path = pg_temp; create table t (x int); drop table t; commit",
        ):
            one.query(sql)
            assert two.value("select 1") == "1"


def test_a_pinned_backend_is_clean_for_the_next():
    """When a client with a pinned backend goes, the next one finds nothing of it."""
    with runner.fresh_proxy(max_connections=1) as proxy:
        for end in ("terminate", "close", "reset"):
            one = proxy.client()
            one.query("create temp table mine (x int); set work_mem = '5MB'; set app.x = 'y'")
            one.query("select pg_advisory_lock(7); listen mine")
            one.query("begin; declare c cursor with hold for select 1; commit; set role none")
            pid = one.value(PID)
            getattr(one, end)()
            with proxy.client() as two:
                assert two.value(PID) == pid
                assert two.value("select to_regclass('mine')") is None
                assert two.value("select count(*) from pg_locks where locktype = 'advisory'") == "0"
                assert two.value("select count(*) from pg_listening_channels()") == "0"
                assert two.value("select count(*) from pg_cursors") == "0"
                assert two.value("show work_mem") == "4MB"
                assert two.value("select coalesce(current_setting('app.x', true), '')") == ""


HIDDEN = """
create or replace function hides(value text) returns text language plpgsql as
$$ begin perform set_config('hidden.owner', value, false); return value; end $$;
create or replace function hides_on_insert() returns trigger language plpgsql as
$$ begin perform hides(new.value); return new; end $$;
create table if not exists hiding (value text);
create or replace trigger hides before insert on hiding for each row execute function hides_on_insert();
create or replace view hidden as select hides('mine') as value;
grant execute on function hides(text), hides_on_insert() to public;
grant select, insert on hiding, hidden to public
"""
SEEN = "select coalesce(current_setting('hidden.owner', true), '')"

CALLS = (
    "select hides('mine')",
    "SELECT public . Hides ( 'mine' )",
    'select "hides"(\'mine\') from pg_class limit 1',
    "select 1 from pg_class where relname = hides('mine') or true limit 1",
    "insert into hiding_plain (value) values (hides('mine'))",
    "with x as (select hides('mine')) select * from x",
    "select hides /* so */ ('mine')",
    "begin; select hides('mine'); commit",
)


@runner.cases("follow", "pin", "refuse", "strict")
def test_what_functions_hide_is_cleaned_away(policy):
    """What a function of one's own sets inside is met by nobody else, however it is called."""
    runner.cluster().run(HIDDEN)
    runner.cluster().run("create table if not exists hiding_plain (value text)")
    runner.cluster().run("grant insert on hiding_plain to public")
    with runner.fresh_proxy(max_connections=1, pool={"session_state": policy}) as proxy:
        with clients(proxy, 2) as (one, two):
            for sql in CALLS:
                one.query(sql)
                assert two.value(SEEN) == "", sql
                if ";" not in sql:
                    one.execute(sql)
                    assert two.value(SEEN) == "", sql
            # By a named statement, which does so each time it is bound.
            one.send(parse("select hides($1)", "calls"), SYNC)
            assert wire.kinds(one.recv_until("Z")) == "1Z"
            for _ in range(3):
                one.send(bind(["mine"], "calls"), execute(), SYNC)
                assert not wire.errors(one.recv_until("Z"))
                assert two.value(SEEN) == ""
            if policy == "pin":
                return  # What has a name known would keep the backend.
            # What is known to follow does.
            one.query("select set_config('hidden.owner', 'one', false), hides('two')")
            assert two.value(SEEN) == ""
            assert one.value(SEEN) == "two"


def test_functions_that_are_harmless_by_configuration():
    """A function in harmless_functions costs nothing; one that changes the session all the same is not noticed."""
    runner.cluster().run(HIDDEN)
    pool = {"harmless_functions": ["hides", "public.hides"]}
    with runner.fresh_proxy(max_connections=1, pool=pool) as proxy:
        with clients(proxy, 2) as (one, two):
            for sql in CALLS[:2]:
                one.query(sql)
                assert two.value(SEEN) == "mine", sql
                one.query("do $$ begin end $$")
                assert two.value(SEEN) == "", sql


def test_the_limit_of_follow():
    """What is run without being called by its name is not seen by follow; strict cleans it away."""
    runner.cluster().run(HIDDEN)
    for policy, seen in (("follow", "mine"), ("strict", "")):
        with runner.fresh_proxy(max_connections=1, pool={"session_state": policy}) as proxy:
            with clients(proxy, 2) as (one, two):
                for sql in ("insert into hiding values ('mine')", "select * from hidden"):
                    one.query(sql)
                    assert two.value(SEEN) == seen, (policy, sql)
                    one.query("do $$ begin end $$")
                    assert two.value(SEEN) == "", (policy, sql)
                one.query("set work_mem = '5MB'")
                two.query("select 1")
                assert one.value("show work_mem") == "5MB", policy


@runner.cases("simple", "prepared")
def test_sequences_do_not_follow(protocol):
    """What a sequence gave a client is there to the end of its transaction, and for nobody else."""
    runner.cluster().run("drop table if exists counted; create table counted (id serial, name text)")
    runner.cluster().run("grant all on counted, counted_id_seq to public")

    def ask(client, sql):
        if protocol == "simple":
            client.send(query(sql))
        else:
            client.send(wire.close("S", "asks") + parse(sql, "asks") + bind(name="asks") + execute() + SYNC)
        return [fields["C"] for fields in wire.errors(client.recv_until("Z"))]

    with runner.fresh_proxy(max_connections=1) as proxy:
        with clients(proxy, 3) as (one, two, three):
            for sql in ("select lastval()", "SELECT CurrVal ('counted_id_seq')", 'select "lastval"()'):
                one.query("insert into counted (name) values ('one')")
                assert ask(two, sql) == ["55000"], sql
                assert ask(three, sql) == ["55000"], sql
            one.query("begin; insert into counted (name) values ('one')")
            number = one.value("select lastval()")
            assert one.value("select currval('counted_id_seq')") == number
            one.query("commit")
            assert ask(two, "select lastval()") == ["55000"]


def test_pin_policy():
    """With "pin" a client that sets an unreported parameter keeps its backend until it resets it."""
    with runner.fresh_proxy(max_connections=2, pool={"session_state": "pin"}) as proxy:
        with clients(proxy, 2) as (one, two):
            one.query("set application_name = 'x'")
            one.query("set work_mem = '5MB'")
            pid = one.value(PID)
            assert all(two.value(PID) != pid for _ in range(3))
            assert one.value("show work_mem") == "5MB"
            one.query("reset all")
            two.query("begin")
            one.query("begin")
            assert len({one.value(PID), two.value(PID)}) == 2


def test_warn_policy():
    """With "warn" the state stays where it is, and the log tells once for each client."""
    with runner.fresh_proxy(max_connections=1, pool={"session_state": "warn"}) as proxy:
        with clients(proxy, 2) as (one, two):
            one.query("set work_mem = '5MB'")
            one.query("set work_mem = '6MB'")
            assert two.value("show work_mem") == "6MB"
            one.query("reset work_mem")
        runner.eventually(lambda: "does not follow it" in proxy.log(), what="a warning")
        assert proxy.log().count("does not follow it") == 1


def test_refuse_policy():
    """With "refuse" what would keep a backend is an error; the client goes on, and parameters follow."""
    with runner.fresh_proxy(max_connections=1, pool={"session_state": "refuse"}) as proxy:
        with clients(proxy, 2) as (one, two):
            for sql in PINS:
                fields = one.error_of(sql)
                assert fields["C"] == "0A000" and "session_state" in fields["M"], fields
                one.send(extended(sql) + SYNC)
                found = one.recv_until("Z")
                assert [e["C"] for e in wire.errors(found)] == ["0A000"], found
            one.query("set work_mem = '5MB'")
            two.query("select 1")
            assert one.value("show work_mem") == "5MB"
            one.query("begin; create temp table t (x int) on commit drop; commit")
            one.query("begin")
            one.send(query("listen x"))
            assert one.recv_last_error()["C"] == "0A000"
            assert two.value("select 1") == "1"


def test_a_client_that_sets_before_each_query():
    """A client that sets something in each transaction does not keep others from the only backend."""
    proxy = runner.proxy(max_connections=1)
    with clients(proxy, 3) as several:

        def work(number):
            client = several[number]
            for turn in range(runner.scaled(60, 10)):
                client.query(f"set work_mem = '{number + 1}MB'")
                client.query(f"begin; set local lock_timeout = {turn + 1}; commit")
                assert client.value("show work_mem") == f"{number + 1}MB"

        began = time.monotonic()
        runner.in_threads([lambda n=n: work(n) for n in range(3)])
        assert time.monotonic() - began < 60


def test_pipelined_settings():
    """Settings within a pipeline follow, whatever comes behind them in it."""
    proxy = runner.proxy(max_connections=1)
    with clients(proxy, 2) as (one, two):
        one.send(extended("set work_mem = '5MB'") + SYNC + extended("set app.x = 'y'") + SYNC + query("select 1"))
        for _ in range(3):
            one.result()
        two.query("select 1")
        assert one.query("select current_setting('work_mem'), current_setting('app.x')") == [["5MB", "y"]]


def test_settings_in_other_encodings():
    """Values outside ASCII are kept whatever client_encoding sender and successor have."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client(client_encoding="LATIN1") as one, proxy.client(client_encoding="UTF8") as two:
        one.send(wire.message("Q", b"set app.x = 'gr\xf6\xdfe'\0"))
        one.recv_until("Z")
        two.query("set app.x = 'ž€'")
        assert two.value("show app.x") == "ž€"
        assert one.value("select octet_length(convert_to(current_setting('app.x'), 'UTF8'))") == "7"
        assert two.value("show app.x") == "ž€"


if __name__ == "__main__":
    runner.main()
