#!/usr/bin/python3
"""Queries in every shape of the protocol, large ones, and the parameters that follow a client."""

import contextlib
import re
import struct
import time

from harness import libpq, runner, wire
from harness.wire import SYNC, FLUSH, bind, close, describe, execute, extended, parse, query

MODES = [(mode, cores) for mode in ("transaction", "session", "statement") for cores in (1, 2)]

INT4_PLUS, INT4_DIVIDE = 177, 154


def int4(value):
    return struct.pack("!i", value)


def call(oid, left, right):
    return wire.function_call(oid, [int4(left), int4(right)])


NOTICE = "do $$ begin raise notice 'hello'; end $$"
BAD_PARSE = parse("selec 1") + bind() + execute()
BAD_BIND = parse("select $1::int") + bind(["x"]) + execute()
BAD_EXECUTE = parse("select 1 / $1::int") + bind([0]) + execute()
GOOD = extended("select 'good'")
SERIES = parse("select generate_series(1, 5)") + bind()

# Name -> (steps, how many ReadyForQuery come). A step of bytes is sent; a step of text waits for a
# message of one of these kinds.
SHAPES = {
    "simple": ([query("select 1, null, 'x'")], 1),
    "several statements": ([query("select 1; select 2; select 3")], 1),
    "error between statements": ([query("select 1; select 1/0; select 2")], 1),
    "empty query": ([query("")], 1),
    "only a semicolon": ([query(" ; ")], 1),
    "notice": ([query(NOTICE)], 1),
    "two simple": ([query("select 1") + query("select 2")], 2),
    "twenty simple": ([b"".join(query(f"select {i}") for i in range(20))], 20),
    "simple, error, simple": ([query("select 1") + query("nonsense") + query("select 2")], 3),
    "extended": ([extended("select $1::text", ["x"]) + SYNC], 1),
    "extended empty query": ([extended("") + SYNC], 1),
    "no data": ([extended("set local work_mem = '1MB'") + SYNC], 1),
    "lone sync": ([SYNC], 1),
    "three syncs": ([SYNC * 3], 3),
    "three batches": ([(GOOD + SYNC) * 3], 3),
    "fifty batches": ([(GOOD + SYNC) * 50], 50),
    "several executes in a batch": ([GOOD * 3 + SYNC], 1),
    "flush, then sync": ([GOOD + FLUSH, "C", SYNC], 1),
    "flush at once with sync": ([GOOD + FLUSH + SYNC], 1),
    "lone flush, then sync": ([FLUSH, SYNC], 1),
    "flush after each message": (
        [parse("select 7") + FLUSH, "1", bind() + FLUSH, "2", execute() + FLUSH, "C", SYNC],
        1,
    ),
    "simple after sync": ([GOOD + SYNC + query("select 1")], 2),
    "simple in a batch": ([GOOD + query("select 1")], 1),
    "sync after simple in a batch": ([GOOD + query("select 1") + SYNC], 2),
    "simple in a failed batch": ([BAD_EXECUTE + query("select 'skipped'") + SYNC], 1),
    "simple after the error of a batch": ([BAD_EXECUTE, "E", query("select 'skipped'"), SYNC], 1),
    "three simple in a failed batch": ([BAD_PARSE + query("select 1") * 3 + SYNC + GOOD + SYNC], 2),
    "call in a failed batch": ([BAD_BIND + call(INT4_PLUS, 1, 2) + SYNC], 1),
    "portal in pieces": ([SERIES + execute(rows=2) * 3 + SYNC], 1),
    "portal left open": ([SERIES + execute(rows=2) + SYNC], 1),
    "named portal": (
        [parse("select 3") + bind(portal="p") + execute("p") + close("P", "p") + SYNC],
        1,
    ),
    "describe a statement": ([parse("select $1::int") + describe("S") + SYNC], 1),
    "describe an unknown name": ([describe("S", "unknown") + SYNC + GOOD + SYNC], 2),
    "bind an unknown name": ([bind(name="unknown") + execute() + SYNC + GOOD + SYNC], 2),
    "close unknown names": ([close("S", "unknown") + close("P", "unknown") + SYNC], 1),
    "named in one batch": (
        [parse("select $1::int", "s") + bind([5], "s") + execute() + close("S", "s") + SYNC],
        1,
    ),
    "name taken twice": (
        [parse("select 1", "s") + parse("select 2", "s") + SYNC + close("S", "s") + SYNC],
        2,
    ),
    "function call": ([call(INT4_PLUS, 40, 2)], 1),
    "function calls and queries": (
        [call(INT4_PLUS, 1, 2) + query("select 1") + call(INT4_DIVIDE, 1, 0) + GOOD + SYNC],
        4,
    ),
    "large parse and bind": ([extended("select length($1)" + " " * 90000, ["y" * 99999]) + SYNC], 1),
    "many rows": ([query("select g, repeat('z', 100) from generate_series(1, 5000) g")], 1),
}
for _name, _bad in (("parse", BAD_PARSE), ("bind", BAD_BIND), ("execute", BAD_EXECUTE)):
    SHAPES[f"error in {_name}, sync with it"] = ([_bad + GOOD + SYNC + GOOD + SYNC], 2)
    SHAPES[f"error in {_name}, sync later"] = ([_bad + GOOD, "E", SYNC + GOOD + SYNC], 2)
    SHAPES[f"error in {_name}, messages later"] = ([_bad, "E", GOOD, FLUSH, GOOD, SYNC], 1)
    SHAPES[f"good, error in {_name}, good"] = ([(GOOD + SYNC + _bad + SYNC) * 2 + GOOD + SYNC], 5)

# Shapes with transaction blocks, which statement mode refuses.
BLOCKS = {
    "block in three queries": ([query("begin") + query("select 1") + query("commit")], 3),
    "block in one query": ([query("begin; select 1; commit")], 1),
    "failed block": ([query("begin") + query("bad") + query("select 1") + query("rollback")], 4),
    "block in batches": (
        [(extended("begin") + SYNC) + (GOOD + SYNC) * 3 + extended("commit") + SYNC],
        5,
    ),
    "block in one batch": ([extended("begin") + GOOD + extended("commit") + SYNC], 1),
    "error in a block of batches": (
        [extended("begin") + SYNC + BAD_EXECUTE + SYNC + GOOD + SYNC + extended("rollback") + SYNC],
        4,
    ),
    "portal over batches": (
        [query("begin"), "Z"]
        + [parse("select generate_series(1, 5)") + bind(portal="c") + SYNC, "Z"]
        + [execute("c", 2) + SYNC, "Z", execute("c", 2) + SYNC, "Z", query("commit")],
        5,
    ),
}


def transcript(conn, steps, count, piece=0):
    """Plays the steps: every reply but notices' and reports' place, as (kind, body)."""
    found = []
    seen = 0
    for step in steps:
        if isinstance(step, str):
            found += conn.recv_until(step)
        elif piece:
            conn.send_in_pieces(step, piece)
        else:
            conn.send(step)
    seen = sum(1 for m in found if m.kind == "Z")
    while seen < count:
        found.append(conn.recv())
        seen += found[-1].kind == "Z"
    conn.send(query("select 'end'"))
    found += conn.recv_until("Z")
    return [(m.kind, m.body) for m in found if m.kind != "S"]


def check_shapes(proxy, shapes, piece=0):
    for name, (steps, count) in shapes.items():
        with runner.cluster().wire() as direct:
            expected = transcript(direct, steps, count)
        with proxy.client() as client:
            got = transcript(client, steps, count, piece)
        assert got == expected, f"shape '{name}':\n  got      {got[:30]}\n  expected {expected[:30]}"


@runner.cases(*MODES)
@runner.timeout(120)
def test_shapes(mode, cores):
    """Every shape of messages is answered as the server itself answers it."""
    proxy = runner.proxy(mode=mode, cores=cores, max_connections=1)
    check_shapes(proxy, SHAPES)
    if mode != "statement":
        check_shapes(proxy, BLOCKS)


@runner.timeout(120)
def test_shapes_in_small_pieces():
    """Messages that arrive byte by byte, or cut at odd places, are answered the same."""
    proxy = runner.proxy(max_connections=1)
    small = {n: s for n, s in SHAPES.items() if sum(map(len, s[0])) < 600}
    check_shapes(proxy, small, piece=1)
    check_shapes(proxy, SHAPES, piece=1021)


@runner.cases(("transaction", 1), ("session", 2), ("statement", 2))
def test_shapes_on_one_connection(mode, cores):
    """All shapes one after another on one connection leave nothing behind that disturbs the next."""
    proxy = runner.proxy(mode=mode, cores=cores, max_connections=1)
    shapes = dict(SHAPES) if mode == "statement" else {**SHAPES, **BLOCKS}
    with runner.cluster().wire() as direct, proxy.client() as client:
        for name, (steps, count) in shapes.items():
            expected = transcript(direct, steps, count)
            got = transcript(client, steps, count)
            assert got == expected, f"shape '{name}': {got[:20]} instead of {expected[:20]}"


@runner.cases(1, 2)
def test_two_clients_take_turns_in_shapes(cores):
    """Two clients that pipeline at the same time through one backend each get their own replies."""
    proxy = runner.proxy(cores=cores, max_connections=1)

    def work(tag):
        with proxy.client() as client:
            for turn in range(runner.scaled(60, 10)):
                values = [f"{tag}-{turn}-{i}" for i in range(10)]
                client.send(*(extended("select $1::text", [v]) + SYNC for v in values))
                for value in values:
                    assert client.result() == [[value]]
                assert client.value(f"select '{tag}'") == tag

    runner.in_threads([lambda t=t: work(t) for t in ("one", "two", "three", "four")])


@runner.cases(*MODES)
def test_libpq_queries(mode, cores):
    """libpq's simple, parameter and pipeline calls work."""
    proxy = runner.proxy(mode=mode, cores=cores, max_connections=2)
    with proxy.libpq() as conn:
        assert conn.value("select 41 + 1") == "42"
        assert conn.execute("select $1::text || $2", ["a", "b"]).rows == [["ab"]]
        conn.enter_pipeline()
        for number in range(20):
            conn.send_params("select 10 / $1::int", [number % 5])
            if number % 3 == 2:
                conn.pipeline_sync()
        conn.pipeline_sync()
        statuses = []
        while statuses.count(libpq.PIPELINE_SYNC) < 7:
            result = conn.get_result()
            if result is not None:
                statuses.append(result.status)
        expected = []
        failed = False
        for number in range(20):
            if failed:
                expected.append(libpq.PIPELINE_ABORTED)
            elif number % 5 == 0:
                expected.append(libpq.FATAL_ERROR)
                failed = True
            else:
                expected.append(libpq.TUPLES_OK)
            if number % 3 == 2:
                expected.append(libpq.PIPELINE_SYNC)
                failed = False
        expected.append(libpq.PIPELINE_SYNC)
        assert statuses == expected, (statuses, expected)
        conn.exit_pipeline()
        assert conn.value("select 'after'") == "after"


@runner.cases(("transaction", 1), ("transaction", 2), ("session", 1))
def test_named_statements(mode, cores):
    """A named statement works until it is closed, while others use the pool."""
    proxy = runner.proxy(mode=mode, cores=cores, max_connections=3)
    with proxy.libpq() as one, proxy.libpq() as two, proxy.client("app") as third:
        one.prepare("s", "select 'one' || $1::text")
        two.prepare("s", "select 'two' || $1::text")
        for turn in range(20):
            assert one.execute_prepared("s", [turn]).rows == [[f"one{turn}"]]
            assert third.value(f"select {turn}") == str(turn)
            assert two.execute_prepared("s", [turn]).rows == [[f"two{turn}"]]
        one.query("deallocate s")
        result = None
        try:
            one.execute_prepared("s", [1])
        except libpq.Error as error:
            result = error.code
        assert result == "26000", result
        assert two.execute_prepared("s", ["x"]).rows == [["twox"]]


@runner.cases(1, 2)
def test_named_statement_frees_its_backend(cores):
    """A closed statement gives the only backend back; so does the end of its client."""
    proxy = runner.proxy(cores=cores, max_connections=1)
    for end in ("close", "deallocate", "terminate", "vanish"):
        one, two = proxy.client(), proxy.client()
        one.send(parse("select 1", "pinned"), SYNC)
        one.recv_until("Z")
        if end == "close":
            one.send(close("S", "pinned"), SYNC)
            one.recv_until("Z")
        elif end == "deallocate":
            one.query("deallocate all")
        elif end == "terminate":
            one.terminate()
        else:
            one.reset()
        assert two.value("select 'free'") == "free", end
        two.send(bind(name="pinned"), SYNC)
        failed = wire.errors(two.recv_until("Z"))
        assert [f["C"] for f in failed] == ["26000"], (end, failed)
        one.close()
        two.close()


def test_sql_prepare_is_pinned():
    """SQL PREPARE keeps its statement reachable, and out of the reach of others."""
    proxy = runner.proxy(max_connections=3)
    with proxy.client() as one, proxy.client() as two:
        one.query("prepare mine as select 'mine'")
        for _ in range(10):
            assert two.value("select 2") == "2"
            assert one.value("execute mine") == "mine"
        assert two.error_of("execute mine")["C"] == "26000"
        one.query("deallocate mine")


def test_notices_arrive():
    """Notices reach the client that caused them, at their place."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as one, proxy.client() as two:
        one.send(query("do $$ begin for i in 1..5 loop raise notice 'n%', i; end loop; end $$"))
        found = one.recv_until("Z")
        assert [m.kind for m in found] == ["N"] * 5 + ["C", "Z"], found
        assert [m.fields["M"] for m in found[:5]] == [f"n{i}" for i in range(1, 6)]
        two.value("select 1")
        assert not two.notices


def test_parameter_status_after_set():
    """A SET of a reported parameter is reported to its client, at once."""
    proxy = runner.proxy(max_connections=2)
    with proxy.libpq() as conn:
        conn.query("set application_name = 'changed'")
        assert conn.parameter("application_name") == "changed"
        conn.query("set timezone = 'Asia/Tokyo'")
        assert conn.parameter("TimeZone") == "Asia/Tokyo"
        assert conn.value("show timezone") == "Asia/Tokyo"


def test_login_reports_parameters():
    """The welcome names every parameter that the server itself names."""
    proxy = runner.proxy(max_connections=2)
    with runner.cluster().wire() as direct, proxy.client() as client:
        assert set(direct.parameters) <= set(client.parameters), (
            set(direct.parameters) - set(client.parameters)
        )
        for name in ("server_version", "integer_datetimes", "standard_conforming_strings"):
            assert client.parameters[name] == direct.parameters[name]
        assert client.parameters["session_authorization"] == "bench"


# Large ones.


@runner.cases(1, 2)
@runner.timeout(240)
def test_large_results(cores):
    """A result of 100 MB, in many rows or in one, streams through in little memory."""
    megabytes = runner.scaled(100, 10)
    with runner.fresh_proxy(cores=cores, max_connections=2) as proxy:
        with proxy.client() as client:
            client.timeout = 120
            client.send(query(f"select repeat('x', 1000000) from generate_series(1, {megabytes})"))
            seen = 0
            while True:
                got = client.recv()
                if got.kind == "D":
                    assert got.body.count(b"x") == 1000000
                    seen += 1
                elif got.kind == "Z":
                    break
            assert seen == megabytes
            value = client.value(f"select repeat('y', {megabytes} * 1000000)")
            assert len(value) == megabytes * 1000000 and value.count("y") == len(value)
            assert client.value("select 1") == "1"
        proxy.check_memory()


@runner.timeout(300)
def test_large_queries():
    """A query text of 200 MB and a parameter of 50 MB stream through in little memory."""
    with runner.fresh_proxy(max_connections=2) as proxy:
        with proxy.client() as client:
            client.timeout = 200
            client.socket.settimeout(200)
            for size in (50_000_000, runner.scaled(200_000_000, 20_000_000)):
                literal = "a" * size
                client.send(query(f"select length('{literal}')"))
                assert client.result() == [[str(size)]]
            client.send(extended("select length($1)", ["b" * 50_000_000]), SYNC)
            assert client.result() == [["50000000"]]
            assert client.value("select 1") == "1"
        proxy.check_memory()


@runner.timeout(120)
def test_large_query_with_a_slow_sender():
    """A client that stops in the middle of a large query delays nobody else."""
    proxy = runner.proxy(max_connections=2)
    text = query("select length('" + "c" * 3_000_000 + "')")
    with proxy.client() as slow, proxy.client() as other:
        slow.send(text[:2_000_000])
        for number in range(50):
            assert other.value(f"select {number}") == str(number)
        slow.send(text[2_000_000:])
        assert slow.result() == [["3000000"]]


# Parameters follow the client.

VALUES = {
    "application_name": [
        "abc",
        "ABC",
        "",
        "n" * 200,
        "it's \"quoted\"",
        "back\\slash\\",
        "\\'; select 1; --",
        "a;b,c=d $$ $1",
        " spaces  inside ",
    ],
    "client_encoding": ["UTF8", "LATIN1", "SQL_ASCII", "utf-8"],
    "TimeZone": ["Europe/Berlin", "UTC", "Asia/Tokyo", "<+03>-3"],
    "DateStyle": ["ISO, MDY", "SQL, DMY", "German", "iso", "Postgres, YMD"],
    "IntervalStyle": ["postgres", "iso_8601"],
}


def direct_value(name, value):
    """What the server itself makes of a startup parameter."""
    with wire.Conn(runner.cluster().address) as conn:
        conn.login("bench", "app", **{name: value})
        return conn.value(f"show {name}"), conn.parameters.get(name)


@runner.cases(("transaction", 1), ("transaction", 2), ("statement", 1), ("session", 1))
@runner.timeout(120)
def test_startup_parameters_follow(mode, cores):
    """Each client finds its own startup values on whatever backend it gets, to the letter."""
    proxy = runner.proxy(mode=mode, cores=cores, max_connections=4 if mode == "session" else 1)
    for name, values in VALUES.items():
        for first in values:
            for second in values[:3]:
                one = proxy.client(**{name: first})
                two = proxy.client(**{name: second})
                plain = proxy.client()
                for _ in range(2):
                    for client, value in ((one, first), (two, second)):
                        shown, _ = direct_value(name, value)
                        got = client.value(f"show {name}")
                        assert got == shown, f"{name}={value!r}: {got!r}, not {shown!r}"
                        assert client.parameters[name] == shown, (value, client.parameters[name])
                assert plain.value(f"show {name}") == runner.cluster().wire().value(f"show {name}")
                for client in (one, two, plain):
                    client.close()


@runner.cases("transaction", "session")
def test_date_style_is_completed_by_the_server(mode):
    """What a start-up packet leaves out of DateStyle is the server's default, whatever another client has set."""
    for value in ("ISO", "DMY", "German", "sql", "ISO, YMD", "default"):
        with runner.fresh_proxy(mode=mode, max_connections=2 if mode == "session" else 1) as proxy:
            with proxy.client() as other:
                other.query("set datestyle = 'SQL, DMY'")
                shown, _ = direct_value("DateStyle", value)
                for _ in range(2):
                    with proxy.client(DateStyle=value) as client:
                        assert client.parameters["DateStyle"] == shown, (value, client.parameters["DateStyle"])
                        assert client.value("show datestyle") == shown, value
                assert other.value("show datestyle") == "SQL, DMY"
    with runner.fresh_proxy(mode=mode, max_connections=1) as proxy:
        try:
            proxy.client(DateStyle="bad")
            raise AssertionError("taken")
        except wire.ServerError as error:
            assert 'invalid value for parameter "DateStyle": "bad"' in str(error), error


@runner.cases(1, 2)
def test_set_parameters_follow(cores):
    """A reported parameter set in a session follows it from transaction to transaction."""
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as one, proxy.client() as two, proxy.client() as plain:
        for name, values in VALUES.items():
            for value in values:
                text = value.replace("'", "''")
                one.query(f"set {name} = '{text}'")
                shown = one.value(f"show {name}")
                two.query(f"set {name} = '{values[0]}'")
                before = plain.value(f"show {name}")
                for _ in range(2):
                    assert one.value(f"show {name}") == shown, (name, value)
                    assert plain.value(f"show {name}") == before
            one.query(f"reset {name}")
            two.query(f"reset {name}")


def test_parameters_in_a_pipeline():
    """The settings go out before the first message of a pipeline, and their replies are not seen."""
    proxy = runner.proxy(max_connections=1)
    show = "select current_setting('application_name')"
    with proxy.client(application_name="one") as one, proxy.client(application_name="two") as two:
        for _ in range(10):
            for client, name in ((one, "one"), (two, "two")):
                client.send((extended(show) + SYNC) * 3)
                for _ in range(3):
                    found = client.recv_until("Z")
                    assert wire.kinds(found) == "12TDCZ", found
                    assert wire.rows(found) == [[name]]


def test_parameters_before_a_large_query():
    """The settings also go out before a query larger than every buffer."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client(application_name="one") as one, proxy.client(application_name="two") as two:
        for client, name in ((one, "one"), (two, "two"), (one, "one")):
            sql = "select current_setting('application_name'), length('" + "d" * 500_000 + "')"
            assert client.query(sql) == [[name, "500000"]]
            got = client.execute("select current_setting('application_name'), $1", ["e" * 500_000])
            assert got[0][0] == name


def test_set_and_rollback_of_a_parameter():
    """A SET that is rolled back does not follow."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client(application_name="old") as one, proxy.client() as two:
        one.query("begin")
        one.query("set application_name = 'new'")
        one.query("rollback")
        two.query("select 1")
        assert one.value("show application_name") == "old"
        one.query("begin")
        one.query("set local application_name = 'local'")
        one.query("commit")
        two.query("select 1")
        assert one.value("show application_name") == "old"


def test_bad_startup_parameter():
    """A startup value that the server refuses fails its client with the server's code, only it."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as other:
        assert other.value("select 1") == "1"
        for turn in range(3):
            bad = proxy.open()
            code = None
            try:
                bad.login("bench", "app", TimeZone="No/Where")
                code = bad.error_of("select 1")["C"]
            except wire.ServerError as error:
                code = error.code
            assert code == "22023", code
            bad.close()
            assert other.value(f"select {turn}") == str(turn)


OPTIONS = [
    ("-c statement_timeout=4321", "statement_timeout", "4321ms"),
    ("-cstatement_timeout=5s", "statement_timeout", "5s"),
    ("--work_mem=7MB", "work_mem", "7MB"),
    ("--enable-seqscan=off", "enable_seqscan", "off"),
    ("-c search_path=a,\\ b -c work_mem=9MB", "work_mem", "9MB"),
    ("-c application_name=from\\ options", "application_name", "from options"),
    ("-c TimeZone=Asia/Tokyo", "TimeZone", "Asia/Tokyo"),
]


@runner.cases(1, 2)
def test_startup_options(cores):
    """Settings given by `options` hold for their client, and for no other."""
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as plain:
        for options, name, value in OPTIONS:
            usual = runner.cluster().wire().value(f"show {name}")
            with proxy.client(options=options) as client:
                for _ in range(3):
                    assert client.value(f"show {name}") == value, options
                    assert plain.value(f"show {name}") == usual, options


def test_unreported_startup_parameters():
    """Startup parameters that the server does not report keep their clients' backends apart."""
    proxy = runner.proxy(max_connections=2)
    with proxy.client(statement_timeout="100") as short, proxy.client() as other:
        with proxy.client(search_path="pg_catalog", work_mem="3MB") as third:
            for _ in range(3):
                assert short.value("show statement_timeout") == "100ms"
                assert other.value("show statement_timeout") == "0"
                assert third.value("show search_path") == "pg_catalog"
                assert third.value("show work_mem") == "3MB"
                assert other.value("show work_mem") == "4MB"
            assert short.error_of("select pg_sleep(5)")["C"] == "57014"
            assert other.query("select pg_sleep(0.2)") == [[""]]


@runner.cases(1, 2)
def test_a_batch_without_its_sync_keeps_its_backend(cores):
    """Whether it is flushed or has failed: its client is answered, and the only backend is its own up to the Sync."""
    proxy = runner.proxy(cores=cores, max_connections=1)
    for begun, kinds in (
        (GOOD + FLUSH, "12TDC"),
        (BAD_PARSE, "E"),
        (BAD_BIND, "1E"),
        (parse("select 1 / (random() * 0)::int") + bind() + execute(), "12E"),
        (GOOD + BAD_BIND + GOOD, "12TDC1E"),
    ):
        with proxy.client() as client, proxy.client() as other:
            client.send(begun)
            found = []
            while len(found) < len(kinds):
                found.append(client.recv())
            assert wire.kinds(found) == kinds, found
            other.send(query("select 'waits'"))
            other.recv_quiet(0.2)
            client.send(GOOD + FLUSH)
            if "E" in kinds:
                client.recv_quiet(0.2)
            else:
                assert wire.rows(client.recv_until("C")) == [["good"]]
            client.send(SYNC + GOOD + SYNC)
            assert wire.kinds(client.recv_until("Z")) == "Z"
            assert wire.rows(client.recv_until("Z")) == [["good"]]
            assert other.result() == [["waits"]]


@runner.cases((1, 1), (2, 1), (1, 2), (2, 2))
def test_several_syncs_under_way_keep_the_backend(cores, size):
    """All of them are answered by one backend, which others get behind the last answer, not behind an earlier one."""
    with runner.fresh_proxy(cores=cores, max_connections=size, pool={"wait_notice": "10ms"}) as proxy:
        with runner.cluster().connect() as gate, proxy.client() as client, proxy.client() as other:
            for number in range(8):
                gate.query(f"select pg_advisory_lock({number})")
            text = "select {0}, pg_backend_pid() from pg_advisory_xact_lock({0}) /* under way */"
            client.send(*(extended(text.format(number)) + SYNC for number in range(8)))
            runner.wait_running("under way")
            if size == 1:
                other.send(query("select 'served'"))
                other.recv_until("N")
            found, others = [], set()
            for number in range(8):
                if size == 1:
                    other.recv_quiet(0.1)
                else:
                    others.add(other.value("select pg_backend_pid()"))
                gate.query(f"select pg_advisory_unlock({number})")
                found += wire.rows(client.recv_until("Z"))
            assert [row[0] for row in found] == [str(number) for number in range(8)], found
            pids = {row[1] for row in found}
            assert len(pids) == 1 and not pids & others, (pids, others)
            if size == 1:
                assert other.result() == [["served"]]


def test_equal_values_in_other_words_cause_nothing():
    """Clients that start with one value in several spellings share a backend without a SET between them."""
    runner.cluster().run("alter role bench set log_statement = 'all'")
    try:
        for name, values in {
            "TimeZone": ("Europe/Berlin", "europe/berlin", "EUROPE/BERLIN"),
            "DateStyle": ("ISO, DMY", "iso,dmy", "ISO, European"),
            "client_encoding": ("UTF8", "utf-8", "Utf8"),
            "IntervalStyle": ("iso_8601", "ISO_8601"),
        }.items():
            with runner.fresh_proxy(max_connections=1) as proxy, contextlib.ExitStack() as stack:
                clients = [stack.enter_context(proxy.client(**{name: value})) for value in values]
                for client in clients:
                    client.query("select 'learn'")
                before = runner.cluster().log_size()
                for client in clients * 3:
                    client.query("select 'go on'")
                said = runner.cluster().log_since(before)
                assert said.count("select 'go on'") == 3 * len(values), said
                assert len(re.findall("statement: ", said)) == 3 * len(values), f"{name}: {said}"
    finally:
        runner.cluster().run("alter role bench reset log_statement")


def test_first_reply_of_a_pipeline_is_not_held_back():
    """The first reply arrives while a later query of the same pipeline still runs."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as client:
        client.send(extended("select 'early'") + SYNC + extended("select pg_sleep(1.5)") + SYNC)
        began = time.monotonic()
        assert client.result() == [["early"]]
        assert time.monotonic() - began < 1.2, "the first reply came with the last"
        client.result()


if __name__ == "__main__":
    runner.main()
