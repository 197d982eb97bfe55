#!/usr/bin/python3
"""Named prepared statements of the protocol follow their clients from connection to connection."""

import random

from harness import libpq, runner, wire
from harness.proxy import pgbench
from harness.wire import SYNC, bind, close, describe, execute, parse, query

OWN = "select count(*) from pg_prepared_statements where name like 'helios\\_%'"


def run(client, name, values=()):
    """Executes a statement; its rows, or the SQLSTATE of its error."""
    client.send(bind(values, name) + execute() + SYNC)
    found = client.recv_until("Z")
    failed = wire.errors(found)
    return failed[0]["C"] if failed else wire.rows(found)


def prepare(client, name, sql, types=()):
    """Prepares a statement; None, or the fields of the error."""
    client.send(parse(sql, name, types) + SYNC)
    failed = wire.errors(client.recv_until("Z"))
    return failed[0] if failed else None


@runner.cases(1, 2)
def test_a_statement_survives_a_change_of_its_connection(cores):
    """With parameters, with types, described and not; the connection is everybody's in between."""
    proxy = runner.proxy(cores=cores, max_connections=2)
    with proxy.client() as one, proxy.client() as two, proxy.client() as three:
        assert prepare(one, "s", "select pg_backend_pid(), $1 + 1", [23]) is None
        pids = set()
        for turn in range(4):
            # The others take turns in holding one of the two connections.
            two.query("begin")
            three.query("begin")
            for holder, other in ((two, three), (three, two)):
                holder.query("commit")
                rows = run(one, "s", [turn])
                assert rows[0][1] == str(turn + 1), rows
                pids.add(rows[0][0])
                holder.query("begin")
                other.query("select 1")
            two.query("commit")
            three.query("commit")
            one.send(describe("S", "s") + SYNC)
            assert wire.kinds(one.recv_until("Z")) == "tTZ"
        assert len(pids) == 2, pids


@runner.cases(1, 2)
def test_clients_share_statements_and_names_do_not_mix(cores):
    """Many clients, few names, few texts, one or two connections: each gets what it prepared."""
    for count in (1, 2):
        with runner.fresh_proxy(cores=cores, max_connections=count) as proxy:
            turns = runner.scaled(100, 20)

            def work(number):
                chance = random.Random(number)
                meaning = {}
                with proxy.client() as client:
                    for _ in range(turns):
                        name = chance.choice(("a", "b", "c"))
                        text = chance.choice(("one", "two", "three", "four"))
                        if name not in meaning:
                            assert prepare(client, name, f"select '{text}', $1::text") is None
                            meaning[name] = text
                        elif chance.random() < 0.2:
                            client.send(close("S", name) + SYNC)
                            assert wire.kinds(client.recv_until("Z")) == "3Z"
                            del meaning[name]
                            assert run(client, name, ["x"]) == "26000"
                        else:
                            value = str(chance.random())
                            assert run(client, name, [value]) == [[meaning[name], value]]

            runner.in_threads([lambda n=n: work(n) for n in range(12)])
            with proxy.client() as client:
                assert int(client.value(OWN)) == 4


def test_counters_of_statements():
    """The same text under many names of many clients is parsed once on a connection, and all of it is counted."""
    with runner.fresh_proxy(max_connections=1) as proxy, proxy.client() as one, proxy.client() as two:
        for client in (one, two):
            for name in ("a", "b", "c"):
                assert prepare(client, name, "select $1::text") is None
                assert run(client, name, ["x"]) == [["x"]]
                assert run(client, name, ["y"]) == [["y"]]
        row = proxy.statistics()["total"]
        assert [row[name] for name in ("parses", "server parses", "binds")] == ["6", "1", "12"], row
        assert one.value(OWN) == "1"


def test_names_that_are_wrong():
    """Unknown and taken names are the server's errors, in its words; the connection lives on."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as client, proxy.client() as other:
        assert prepare(client, "s", "select 1") is None
        taken = prepare(client, "s", "select 2")
        assert (taken["C"], taken["M"]) == ("42P05", 'prepared statement "s" already exists')
        assert prepare(client, "s", "this is no SQL")["C"] == "42601"
        assert run(client, "s") == [["1"]]
        assert run(other, "s") == "26000"
        for way in (bind(name="t"), describe("S", "t")):
            client.send(way + SYNC)
            (failed,) = wire.errors(client.recv_until("Z"))
            expected = 'prepared statement "t" does not exist'
            assert (failed["C"], failed["M"]) == ("26000", expected)
        client.send(close("S", "t") + close("S", "s") + close("S", "s") + SYNC)
        assert wire.kinds(client.recv_until("Z")) == "333Z"
        assert run(client, "s") == "26000"
        assert client.value("select count(*) from pg_prepared_statements") == "1"


def test_names_of_any_length():
    """PostgreSQL looks at 63 bytes of a name."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as client:
        for size in (1, 62, 63, 64, 5000, 70000):
            name = "n" * size
            assert prepare(client, name, f"select {size}") is None or size > 63, size
            expected = str(size) if size <= 63 else "63"
            assert run(client, name) == [[expected]], size
        client.send(close("S", "n" * 200) + SYNC)
        client.recv_until("Z")
        assert run(client, "n" * 63) == "26000"


def test_a_parse_that_fails_leaves_no_trace():
    """Alone and in a pipeline, and whoever has prepared the same text: its name is free, and unknown."""
    proxy = runner.proxy(max_connections=1)
    bad = "select no_such_column from pg_class"
    with proxy.client() as one, proxy.client() as two:
        for _ in range(2):
            assert prepare(one, "s", bad)["C"] == "42703"
            assert prepare(two, "s", bad)["C"] == "42703"
            assert run(one, "s") == run(two, "s") == "26000"
            one.send(parse("select 'before'", "before"), parse(bad, "s"), parse("select 'after'", "after"), SYNC)
            one.send(bind(name="s"), SYNC, bind(name="before"), execute(), SYNC, bind(name="after"), SYNC)
            found = [one.recv_until("Z") for _ in range(4)]
            assert [[f["C"] for f in wire.errors(f)] for f in found] == [["42703"], ["26000"], [], ["26000"]], found
            assert wire.rows(found[2]) == [["before"]]
            assert prepare(one, "s", "select 'good'") is None
            assert run(one, "s") == [["good"]]
            assert run(two, "s") == "26000"
            one.send(close("S", "s"), close("S", "before"), SYNC)
            one.recv_until("Z")


def test_parses_and_closes_in_one_batch():
    """Their replies come in their order, whether the server is asked or not."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as one, proxy.client() as two:
        assert prepare(two, "known", "select 'known'") is None
        for _ in range(3):
            one.send(parse("select 'known'", "a"), close("S", "a"), parse("select 'new'", "b"), close("S", "none"))
            one.send(parse("select 'known'", "a"), bind(name="a"), execute(), close("S", "b"), close("S", "a"))
            one.send(describe("S", "a"), parse("select 'skipped'", "c"), SYNC)
            found = one.recv_until("Z")
            assert wire.kinds(found) == "131312DC33EZ", found
            assert wire.rows(found) == [["known"]] and wire.errors(found)[0]["C"] == "26000", found


@runner.cases(1, 2)
def test_errors_in_a_pipeline(cores):
    """What an error makes the server skip has not happened: for each place of the error."""
    proxy = runner.proxy(cores=cores, max_connections=1)
    parts = [
        ("a", parse("select 'a'", "a")),
        ("b", parse("select 'b'", "b")),
        ("c", parse("select 'c'", "c")),
    ]
    with proxy.client() as client, proxy.client() as other:
        assert prepare(other, "known", "select 'b'") is None
        for place in range(len(parts) + 1):
            for bad in (parse("no SQL", "bad"), bind(name="nobody"), parse("select 1/0", "z")):
                failing = bad + (bind(name="z") + execute() if bad.find(b"1/0") > 0 else b"")
                before, after = parts[:place], parts[place:]
                client.send(
                    b"".join(p for _, p in before) + failing + b"".join(p for _, p in after) + SYNC
                )
                found = client.recv_until("Z")
                assert len(wire.errors(found)) == 1, found
                assert wire.kinds(found).count("1") >= len(before)
                for name, _ in before:
                    assert run(client, name) == [[name]], (place, name)
                for name, _ in after:
                    assert run(client, name) == "26000", (place, name)
                names = [name for name, _ in before] + ["z"]
                client.send(*[close("S", name) for name in names], SYNC)
                client.recv_until("Z")
        assert run(other, "known") == [["b"]]


@runner.cases(1, 2)
def test_eviction(cores):
    """Three statements on each connection at most, one batch apart; all go on to work."""
    with runner.fresh_proxy(cores=cores, max_connections=1, pool={"max_prepared_statements": 3}) as proxy:
        with proxy.client() as client:
            names = [f"s{i}" for i in range(8)]
            for name in names:
                assert prepare(client, name, f"select '{name}'") is None
                assert int(client.value(OWN)) <= 3
            for _ in range(2):
                for name in names:
                    assert run(client, name) == [[name]]
                    assert int(client.value(OWN)) == 3
            client.send(*[bind(name=name) + execute() for name in names], SYNC)
            assert wire.rows(client.recv_until("Z")) == [[name] for name in names]
            # With an error in the middle.
            assert prepare(client, "bad", "select 1/0") is None
            batch = [bind(name=name) + execute() for name in names]
            client.send(*batch[:4], bind(name="bad") + execute(), *batch[4:], SYNC)
            found = client.recv_until("Z")
            assert wire.rows(found) == [[name] for name in names[:4]]
            assert [f["C"] for f in wire.errors(found)] == ["22012"]
            for name in names:
                assert run(client, name) == [[name]]
            assert int(client.value(OWN)) == 3


def test_sizes():
    """Texts and values of half a buffer, one, four; whole, in pieces, byte by byte."""
    proxy = runner.proxy(max_connections=2)
    with proxy.client() as client, proxy.client() as other:
        for number, size in enumerate((32768, 65500, 65536, 65541, 262144, 900000)):
            text = "s" * size
            client.send(parse(f"select '{text}', $1::text", f"s{number}") + SYNC)
            assert wire.kinds(client.recv_until("Z")) == "1Z"
            for value in ("v" * size, "v"):
                other.query("begin")
                assert run(client, f"s{number}", [value]) == [[text, value]]
                other.query("commit")
                assert run(client, f"s{number}", [value]) == [[text, value]]
        whole = (
            parse("select $1::text || 'x'", "p")
            + bind(["v"], "p")
            + describe("S", "p")
            + execute()
            + close("S", "p")
            + SYNC
        )
        for size in (1, 2, 3, 7, 50):
            client.send_in_pieces(whole, size)
            found = client.recv_until("Z")
            assert wire.kinds(found) == "12tTDC3Z" and wire.rows(found) == [["vx"]], found


def test_messages_that_fill_buffers_exactly():
    """Many in a row of just half a buffer, and one more or less, a whole one, and all in one batch: nothing stalls."""
    size = 4096
    buffers = {"client_buffer_size": "4KiB", "backend_buffer_size": "4KiB"}
    with runner.fresh_proxy(max_connections=1, proxy=buffers) as proxy:
        with proxy.client() as client, proxy.client(application_name="other") as other:
            for wanted in (size // 2, size, 2 * size):
                for more in (-1, 0, 1):
                    # Of the Bind, with everything around its value.
                    value = "v" * (wanted + more - len(bind([""], "s")))
                    text = f"select $1::text, '{'t' * (wanted + more - len(parse('', 's')) - 20)}'"
                    assert len(bind([value], "s")) == wanted + more
                    one = bind([value], "s") + execute()
                    client.send(parse(text, "s") + one * 20 + SYNC + (one + SYNC) * 20 + close("S", "s") + SYNC)
                    assert len(wire.rows(client.recv_until("Z"))) == 20
                    for _ in range(20):
                        assert wire.rows(client.recv_until("Z"))[0][0] == value
                    assert wire.kinds(client.recv_until("Z")) == "3Z"
                    assert other.value("show application_name") == "other"


def test_a_large_parse_behind_settings():
    """What a client has set goes ahead of its first message on a connection, however large that is."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client(application_name="one") as one, proxy.client(application_name="two") as two:
        for size in (100, 60_000, 70_000, 600_000, 2_000_000):
            for client, own in ((one, "one"), (two, "two"), (one, "one")):
                text = f"select current_setting('application_name'), length('{'l' * size}')"
                assert prepare(client, "s", text) is None
                assert run(client, "s") == [[own, str(size)]]
                client.send(close("S", "s") + SYNC)
                client.recv_until("Z")


def test_a_statement_larger_than_the_limit_pins():
    """It works all the same, and frees its connection when it is closed."""
    with runner.fresh_proxy(max_connections=1, pool={"max_prepared_statement_size": "64KiB"}) as proxy:
        with proxy.client() as client, proxy.client() as other:
            text = "t" * 100_000
            assert prepare(client, "big", f"select '{text}'") is None
            assert prepare(client, "small", "select 'small'") is None
            assert run(client, "big") == [[text]]
            assert run(client, "small") == [["small"]]
            other.send(query("select 'waits'"))
            other.recv_quiet(0.2)
            client.send(close("S", "big") + SYNC)
            client.recv_until("Z")
            assert other.result() == [["waits"]]
            assert run(client, "small") == [["small"]]
            assert run(client, "big") == "26000"


@runner.cases(1, 2)
def test_discard_all(cores):
    """DISCARD ALL takes the statements of its client; what is pipelined behind it survives."""
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as one, proxy.client() as two:
        for command in ("discard all", "deallocate all", "DEALLOCATE PREPARE ALL"):
            assert prepare(one, "s", "select 'old'") is None
            assert prepare(two, "s", "select 'mine'") is None
            one.query(command)
            assert run(one, "s") == "26000"
            assert run(two, "s") == [["mine"]]
            assert prepare(one, "s", "select 'old'") is None
            one.send(query(command), parse("select 'mine'", "s"), bind(name="s"), execute(), SYNC)
            assert wire.kinds(one.recv_until("Z")) == "CZ"
            assert wire.rows(one.recv_until("Z")) == [["mine"]]
            assert run(one, "s") == [["mine"]]
            one.send(close("S", "s") + SYNC)
            one.recv_until("Z")
            # In one batch of the extended protocol.
            assert prepare(one, "s", "select 'old'") is None
            one.send(parse(command) + bind() + execute())
            one.send(parse("select 'new'", "s") + bind(name="s") + execute() + SYNC)
            found = one.recv_until("Z")
            assert not wire.errors(found), found
            assert wire.rows(found) == [["new"]], found
            assert run(one, "s") == [["new"]]
            one.send(close("S", "s") + SYNC)
            one.recv_until("Z")
            two.send(close("S", "s") + SYNC)
            two.recv_until("Z")


def test_deallocate_in_sql():
    """DEALLOCATE drops statements of the protocol, as drivers do it; unknown names are errors."""
    proxy = runner.proxy(max_connections=1)
    with proxy.libpq() as one, proxy.libpq() as two:
        for conn in (one, two):
            conn.prepare("_driver_1", "select 'a' || $1::text")
        one.query("DEALLOCATE _driver_1")
        assert two.execute_prepared("_driver_1", ["x"]).rows == [["ax"]]
        for _ in range(2):
            try:
                one.execute_prepared("_driver_1", ["x"])
                assert False, "it is there"
            except libpq.Error as error:
                assert error.code == "26000", error
            try:
                one.query("DEALLOCATE _driver_1")
                assert False, "it is there"
            except libpq.Error as error:
                assert error.code == "26000", error
        one.prepare("_driver_1", "select 'b' || $1::text")
        assert one.execute_prepared("_driver_1", ["x"]).rows == [["bx"]]


@runner.cases(1, 2)
def test_after_a_table_was_changed(cores):
    """A statement whose result has changed is prepared anew, unseen by its clients, but in a transaction block."""
    cluster = runner.cluster()
    proxy = runner.proxy(cores=cores, max_connections=1)
    with proxy.client() as one, proxy.client() as two:
        cluster.run("drop table if exists changing")
        cluster.run("create table changing (x int)")
        cluster.run("insert into changing values (1)")
        cluster.run("grant all on changing to public")
        assert prepare(one, "s", "select * from changing") is None
        assert prepare(two, "t", "select * from changing") is None
        assert run(one, "s") == [["1"]]
        cluster.run("alter table changing add y int default 2")
        assert run(one, "s") == [["1", "2"]]
        assert run(two, "t") == [["1", "2"]]
        cluster.run("alter table changing drop y")
        two.query("begin")
        assert run(two, "t") == "0A000"
        two.query("rollback")
        assert run(two, "t") == [["1"]]
        assert run(one, "s") == [["1"]]
        # A client that prepares behind the change never hears of it, described or not.
        cluster.run("alter table changing add z int default 3")
        two.send(parse("select * from changing", "u") + bind(name="u") + describe("P") + execute() + SYNC)
        found = two.recv_until("Z")
        assert wire.kinds(found) == "12TDCZ" and wire.rows(found) == [["1", "3"]]


def test_failed_transactions():
    """In a failed transaction nothing can be prepared but its end."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as one, proxy.client() as two:
        assert prepare(two, "a", "select 1") is None
        one.query("begin")
        one.error_of("no SQL")
        assert prepare(one, "s", "select 1")["C"] == "25P02"
        assert prepare(one, "t", "rollback") is None
        one.send(bind(name="t") + execute() + SYNC)
        assert one.recv_until("Z")[-1].body == b"I"
        assert run(one, "s") == "26000"
        assert run(two, "a") == [["1"]]


def test_statement_mode():
    """Statements follow in statement mode too."""
    with runner.fresh_proxy(mode="statement", max_connections=1) as proxy:
        with proxy.client() as one, proxy.client() as two:
            assert prepare(one, "s", "select 'one'") is None
            assert prepare(two, "s", "select 'two'") is None
            for _ in range(5):
                assert run(one, "s") == [["one"]]
                assert run(two, "s") == [["two"]]


@runner.cases(1, 2)
@runner.timeout(120)
def test_pipelines_at_random(cores):
    """Clients on two connections pipeline batches of all kinds; each knows what must come back."""
    with runner.fresh_proxy(cores=cores, max_connections=2, pool={"max_prepared_statements": 4}) as proxy:

        def work(number):
            chance = random.Random(number)
            meaning = {}
            with proxy.client() as client:
                for _ in range(runner.scaled(60, 10)):
                    data, expected = b"", []
                    for _ in range(chance.randrange(1, 4)):
                        kinds, failed = "", False
                        for _ in range(chance.randrange(1, 6)):
                            name = chance.choice("abcdef")
                            text = chance.choice("uvwxyz")
                            what = chance.randrange(6)
                            kind = "E"
                            if what == 0:
                                data += parse(f"select '{text}'", name)
                                if name not in meaning:
                                    kind = "1"
                            elif what == 1:
                                data += close("S", name)
                                kind = "3"
                            elif what == 2:
                                data += parse("no SQL", name)
                            else:
                                data += bind(name=name) + execute()
                                if name in meaning:
                                    kind = "2DC"
                            if failed:
                                continue
                            if kind == "1":
                                meaning[name] = text
                            elif kind == "3":
                                meaning.pop(name, None)
                            elif kind == "2DC":
                                kind = f"2{meaning[name]}C"
                            kinds += kind
                            failed = kind == "E"
                        data += SYNC
                        expected.append(kinds + "Z")
                    if chance.random() < 0.3:
                        client.send_in_pieces(data, chance.choice((5, 17, 100)))
                    else:
                        client.send(data)
                    for kinds in expected:
                        found = client.recv_until("Z")
                        got = "".join(m.row[0] if m.kind == "D" else m.kind for m in found)
                        assert got == kinds, (kinds, got)

        runner.in_threads([lambda n=n: work(n) for n in range(8)])


@runner.cases(1, 2)
@runner.timeout(120)
def test_pgbench_prepared_on_few_connections(cores):
    """32 clients of pgbench -M prepared share three connections."""
    if not runner.cluster().run("select 1 from pg_class where relname = 'pgbench_accounts'", "bench"):
        runner.cluster().make_bench(3)
    with runner.fresh_proxy(cores=cores, max_connections=3) as proxy:
        count = runner.scaled(50, 10)
        words = ["-S", "-M", "prepared", "-c", 32, "-j", 2, "-t", count]
        assert pgbench(proxy, [str(word) for word in words])[2] == 32 * count


@runner.timeout(120)
def test_pgbench_prepares_while_it_holds_transactions():
    """One thread with more transactions than connections: its PQprepare blocks, so it needs no connection."""
    if not runner.cluster().run("select 1 from pg_class where relname = 'pgbench_accounts'", "bench"):
        runner.cluster().make_bench(3)
    with runner.fresh_proxy(max_connections=3) as proxy:
        count = runner.scaled(50, 10)
        words = ["-n", "-M", "prepared", "-c", 12, "-j", 1, "-t", count]
        assert pgbench(proxy, [str(word) for word in words])[2] == 12 * count


@runner.cases(1, 2)
def test_a_text_is_parsed_as_its_client_would_have_it(cores):
    """Literals and names mean what they mean to whoever prepares, though the texts are the same."""
    cluster = runner.cluster()
    for schema, column in (("tenant_a", "int"), ("tenant_b", "text")):
        cluster.run(f"drop schema if exists {schema} cascade")
        cluster.run(f"create schema {schema} create table seen (x {column})")
        cluster.run(f"grant usage on schema {schema} to public; grant select on {schema}.seen to public")
        cluster.run(f"insert into {schema}.seen values ('7')")
    proxy = runner.proxy(cores=cores, max_connections=1)
    month = "select extract(month from '01/02/2026'::date)::int"
    hour = "select extract(hour from '2026-06-01 12:00'::timestamptz at time zone 'UTC')::int"
    cases = (
        ("datestyle = mdy", "datestyle = dmy", month, "1", "2"),
        ("timezone = 'UTC'", "timezone = 'Asia/Tokyo'", hour, "12", "3"),
        ("search_path = tenant_a", "search_path = tenant_b", "select pg_typeof(x)::text from seen", "integer", "text"),
        ("client_encoding = 'UTF8'", "client_encoding = 'LATIN1'", "select length('\u00e9')", "1", "2"),
        ("array_nulls = on", "array_nulls = off", "select ('{NULL}'::text[])[1] is null", "t", "f"),
        ("standard_conforming_strings = on", "standard_conforming_strings = off", r"select length('\\')", "2", "1"),
    )
    for first, second, text, here, there in cases:
        with proxy.client() as one, proxy.client() as two:
            one.query("set " + first)
            two.query("set " + second)
            for client in (one, two):
                assert prepare(client, "s", text) is None, text
            for _ in range(2):
                assert run(one, "s")[0][0] == here, (text, run(one, "s"))
                assert run(two, "s")[0][0] == there, (text, run(two, "s"))
            # In a transaction that has it another way for itself alone.
            two.query("begin; set local " + first)
            assert prepare(two, "t", text) is None
            assert run(two, "t")[0][0] == here, text
            two.query("commit")
            assert run(one, "s")[0][0] == here, text


@runner.cases(1, 2)
def test_prepare_in_sql_follows(cores):
    """PREPARE, EXECUTE and DEALLOCATE over many connections; two clients with the same name."""
    proxy = runner.proxy(cores=cores, max_connections=2)
    with proxy.client() as one, proxy.client() as two, proxy.client() as three:
        one.query("prepare s (int) as select $1 + 1, 'one', pg_backend_pid()")
        two.query("PREPARE \"s\" AS select 'two; or three' ;")
        pids = set()
        for turn in range(6):
            three.query("begin")
            assert two.query("execute s") == [["two; or three"]]
            rows = one.query(f"execute s({turn})")
            assert rows[0][:2] == [str(turn + 1), "one"], rows
            pids.add(rows[0][2])
            assert three.error_of("execute s")["C"] == "26000"
            three.query("rollback")
            # Now on the connection that it had.
            pids.add(one.query("execute s(1)")[0][2])
        assert len(pids) == 2, pids
        # Its own statements are all that a client is shown of SQL.
        mine = "select string_agg(name, ' ') from pg_prepared_statements where from_sql"
        assert one.value(mine) == "s" and three.value(mine) is None
        one.query("deallocate s")
        assert one.error_of("execute s(1)")["C"] == "26000"
        two.query("discard all")
        assert two.error_of("execute s")["C"] == "26000"


def test_prepare_in_sql_and_the_protocol():
    """A statement of PREPARE is bound and closed by messages of the protocol."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as one, proxy.client() as two:
        one.query("prepare s (int) as select $1 * 2")
        two.query("select 1")
        assert run(one, "s", [21]) == [["42"]]
        assert prepare(one, "s", "select 1")["C"] == "42P05"
        one.send(describe("S", "s") + SYNC)
        assert wire.kinds(one.recv_until("Z")) == "tTZ"
        one.send(close("S", "s") + SYNC)
        assert wire.kinds(one.recv_until("Z")) == "3Z"
        assert run(one, "s", [21]) == "26000"
        # In one batch, and by a function.
        one.send(parse("prepare t as select 't'") + bind() + execute() + SYNC)
        assert wire.kinds(one.recv_until("Z")) == "12CZ"
        one.query("do $$ begin execute 'prepare u as select 1'; end $$")
        two.query("select 1")
        assert one.value("execute t") == "t" and one.value("execute u") == "1"
        # What cannot be prepared again is not there; everything else is.
        cluster = runner.cluster()
        cluster.run("drop table if exists short_lived")
        cluster.run("create table short_lived (x int)")
        cluster.run("grant select on short_lived to public")
        one.query("prepare v as select * from short_lived")
        two.query("select 1")
        cluster.run("drop table short_lived")
        assert one.error_of("execute v")["C"] == "26000"
        assert one.value("execute t") == "t"


@runner.cases(1, 2)
def test_commands_in_sql_of_statements_of_the_protocol(cores):
    """EXECUTE runs what Parse has made, PREPARE finds its name taken; over many connections and two clients."""
    proxy = runner.proxy(cores=cores, max_connections=2)
    with proxy.client() as one, proxy.client() as two, proxy.client() as three:
        assert prepare(one, "s", "select $1::int + 1, pg_backend_pid()") is None
        assert prepare(two, "s", "select 'two'") is None
        pids = set()
        for turn in range(6):
            three.query("begin")
            rows = one.query(f"execute s ({turn})")
            assert rows[0][0] == str(turn + 1), rows
            pids.add(rows[0][1])
            assert two.query("EXECUTE \"s\"; ") == [["two"]]
            assert three.error_of("execute s")["C"] == "26000"
            three.query("rollback")
            pids.add(one.query("execute s (1)")[0][1])
        assert len(pids) == 2, pids
        assert one.error_of("prepare s as select 1")["C"] == "42P05"
        assert one.error_of("execute s")["C"] == "42601"  # A parameter is missing.
        numbers = ",".join(["1"] * 300)
        assert prepare(one, "l", "select $1::int[]") is None
        assert one.query(f"execute l (array[{numbers}])")[0][0] == "{" + numbers + "}"
        one.query("begin")
        assert one.query("execute s (3)")[0][0] == "4"
        one.error_of("select 1 / 0")
        assert one.error_of("execute s (3)")["C"] == "25P02"
        one.query("rollback")
        one.query("deallocate s")
        assert one.error_of("execute s (1)")["C"] == "26000"
        one.query("prepare s as select 'now of SQL'")
        assert one.query("execute s") == [["now of SQL"]]
        assert two.query("execute s") == [["two"]]


def run_unnamed(sql):
    return parse(sql), bind(), describe(), execute()


# Commands in SQL that name statements of the protocol, in this order, each with the answers that it gets.
COMMANDS_IN_SQL = (
    (1, [parse("select 1", "s1"), SYNC]),
    (1, [*run_unnamed("deallocate s1"), parse("select 2", "s1"), bind([], "s1"), execute(), SYNC]),
    (1, [*run_unnamed("deallocate s1"), bind([], "s1"), execute(), SYNC]),
    (1, [parse("select 3", "s1"), SYNC]),
    (1, [parse("deallocate s1"), bind(), parse("select 2", "s1"), SYNC]),
    (1, [*run_unnamed("deallocate s1"), parse("select no.such"), SYNC]),
    (1, [parse("select 4", "s1"), SYNC]),
    (2, [query("deallocate s1"), parse("select 5", "s1"), bind([], "s1"), execute(), SYNC]),
    (2, [query("deallocate s1; select 1/0"), parse("select 6", "s1"), bind([], "s1"), execute(), SYNC]),
    (2, [query("select 1"), *run_unnamed("deallocate s1"), SYNC]),
    (1, [parse("select 7", "s1"), parse("select 8", "s2"), SYNC]),
    (1, [*run_unnamed("execute s1"), SYNC]),
    (1, [parse("execute s1", "c"), describe("S", "c"), bind([], "c"), execute(), close("S", "c"), SYNC]),
    (1, [query("explain (costs off) execute s1")]),
    (1, [query("create temp table made as execute s1; select count(*) from made; drop table made")]),
    (1, [query("select 1; execute s1; execute s2")]),
    (1, [query("deallocate s1; deallocate s2")]),
    (1, [bind([], "s2"), execute(), SYNC]),
    (1, [parse("select 9", "s1"), SYNC]),
    (1, [query("deallocate all; prepare s1 as select 10; execute s1")]),
    (2, [query("deallocate s1"), query("execute s1")]),
    (1, [query("begin; prepare s3 as select 11")]),
    (1, [parse("select 12", "s3"), SYNC]),
    (2, [query("rollback"), query("execute s3")]),
)


def test_commands_in_sql_are_answered_as_by_postgresql():
    """EXECUTE, DEALLOCATE and PREPARE find the client's statements wherever a text names them, by either protocol."""
    # Two: PREPARE in a text with other statements keeps one of them.
    with runner.fresh_proxy(max_connections=2) as proxy:
        with proxy.client() as client, proxy.client() as other, runner.cluster().wire() as direct:
            for count, messages in COMMANDS_IN_SQL:
                answers = []
                for conn in (direct, client):
                    conn.send(*messages)
                    found = [message for _ in range(count) for message in conn.recv_until("Z")]
                    answers.append([(message.kind, message.body) for message in found])
                assert answers[0] == answers[1], messages
                if answers[1][-1][1] == b"I":
                    assert other.error_of("execute s1")["C"] == "26000"


def test_execute_of_what_has_become_impossible():
    """The table of a statement is gone: EXECUTE finds none, and the connection lives on."""
    proxy = runner.proxy(max_connections=1)
    cluster = runner.cluster()
    cluster.run("create table gone_soon (x int); grant select on gone_soon to public")
    with proxy.client() as client:
        assert prepare(client, "s", "select x from gone_soon") is None
        assert client.query("execute s") == []
        cluster.run("drop table gone_soon")
        assert client.error_of("execute s")["C"] == "26000"
        assert client.value("select 1") == "1"


if __name__ == "__main__":
    runner.main()
