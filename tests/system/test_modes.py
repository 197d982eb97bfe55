#!/usr/bin/python3
"""What the three pool modes promise: session keeps, transaction shares, statement refuses blocks."""

import random
import threading
import time

from harness import runner, wire
from harness.wire import SYNC, bind, execute, extended, parse, query

REFUSAL = "transaction blocks not allowed in statement pooling mode"


def first_error(client):
    """The fields of the first error before a ReadyForQuery or the end; empty if none comes."""
    try:
        while True:
            got = client.recv()
            if got.kind == "E":
                return got.fields
            if got.kind == "Z":
                return {}
    except EOFError:
        return {}


@runner.cases(1, 2)
def test_session_keeps_its_state(cores):
    """In session mode one backend serves a client from its first query to its end."""
    proxy = runner.proxy(mode="session", cores=cores, max_connections=3)
    with proxy.client() as one, proxy.client() as two:
        pids = [c.value("select pg_backend_pid()") for c in (one, two)]
        assert pids[0] != pids[1]
        one.query("set work_mem = '5MB'")
        one.query("create temporary table mine (x int)")
        one.query("listen news")
        one.query("select pg_advisory_lock(77)")
        for _ in range(5):
            assert one.value("select pg_backend_pid()") == pids[0]
            assert two.value("select pg_backend_pid()") == pids[1]
        assert one.value("show work_mem") == "5MB"
        assert one.query("select * from mine") == []
        two.query("notify news, 'hello'")
        one.send(query("select 1"))
        assert "A" in [m.kind for m in one.recv_until("Z")], "no notification"


@runner.cases(1, 2)
def test_session_is_reset_for_the_next_client(cores):
    """Nothing of a session is seen by the next one on the same backend."""
    with runner.fresh_proxy(mode="session", cores=cores, max_connections=1) as proxy:
        for turn in range(5):
            with proxy.client() as client:
                assert client.value("show work_mem") == "4MB", turn
                assert client.value("select to_regclass('mine')") is None
                assert client.value("select count(*) from pg_prepared_statements") == "0"
                locks = "select count(*) from pg_locks where locktype = 'advisory'"
                assert client.value(locks) == "0"
                client.query("set work_mem = '6MB'; set search_path = pg_catalog")
                client.query("create temporary table mine (x int)")
                client.query("prepare p as select 1; listen news; select pg_advisory_lock(78)")
                if turn % 2:
                    client.terminate()


def test_session_in_a_transaction_leaves_nothing():
    """A session that ends inside a transaction has it rolled back before the next one comes."""
    runner.cluster().run("create table if not exists left_open (x int)")
    runner.cluster().run("grant all on left_open to public")
    with runner.fresh_proxy(mode="session", max_connections=1) as proxy:
        for end in ("terminate", "close", "reset"):
            client = proxy.client()
            client.query("begin; insert into left_open values (1)")
            getattr(client, end)()
            with proxy.client() as second:
                assert second.value("select count(*) from left_open") == "0"
                assert second.value("select pg_current_xact_id_if_assigned()") is None


@runner.cases(1, 2)
def test_session_waits_for_a_session(cores):
    """With one backend the second session waits for the end of the first."""
    with runner.fresh_proxy(mode="session", cores=cores, max_connections=1) as proxy:
        with proxy.client() as first:
            first.query("select 1")
            answers = []

            def second():
                with proxy.client() as client:
                    answers.append(client.value("select 'second'"))

            def leave():
                time.sleep(0.4)
                assert not answers, "the second session did not wait"
                assert first.value("select 'still'") == "still"
                first.terminate()

            runner.in_threads([second, leave])
            assert answers == ["second"]


@runner.cases(1, 2)
def test_transaction_shares_a_backend(cores):
    """In transaction mode many idle clients share one backend."""
    proxy = runner.proxy(cores=cores, max_connections=1)
    clients = [proxy.client() for _ in range(30)]
    pids = {c.value("select pg_backend_pid()") for _ in range(3) for c in clients}
    assert len(pids) == 1, pids
    for client in clients:
        client.close()


@runner.cases(1, 2)
def test_transaction_holds_its_backend(cores):
    """A transaction keeps its backend to its end; another client's query waits for that."""
    proxy = runner.proxy(cores=cores, max_connections=1)
    for last in ("commit", "rollback", "bad"):
        with proxy.client() as one, proxy.client() as two:
            one.query("begin")
            pid = one.value("select pg_backend_pid()")
            two.send(query("select 'mine'"))
            two.recv_quiet(0.2)
            assert one.value("select pg_backend_pid()") == pid
            if last == "bad":
                one.error_of("no query at all")
                two.recv_quiet(0.2)
                one.query("rollback")
            else:
                one.query(last)
            assert two.result() == [["mine"]]


@runner.cases(1, 2)
@runner.timeout(120)
def test_clients_alternate_and_never_mix(cores):
    """Clients in turns on one backend see their own rows, settings and transactions only."""
    runner.cluster().run("drop table if exists ledger")
    runner.cluster().run("create table ledger (tag text, n int)")
    runner.cluster().run("grant all on ledger to public")
    proxy = runner.proxy(cores=cores, max_connections=1)
    turns = runner.scaled(150, 20)

    def work(tag):
        chance = random.Random(tag)
        with proxy.client(application_name=tag) as client:
            for turn in range(turns):
                client.query("begin")
                client.query(f"insert into ledger values ('{tag}', {turn})")
                filler = "z" * chance.randrange(20000)
                assert client.execute("select $1 || $2", [tag, filler]) == [[tag + filler]]
                assert client.value("show application_name") == tag
                client.query("commit" if turn % 2 else "rollback")
                own = client.value(f"select count(*) from ledger where tag = '{tag}'")
                assert int(own) == (turn + 1) // 2, (tag, turn, own)

    runner.in_threads([lambda t=t: work(t) for t in ("one", "two", "three", "four", "five")])


@runner.cases(1, 2)
def test_open_transaction_of_a_lost_client(cores):
    """A transaction left open by a client that goes never reaches another client."""
    runner.cluster().run("create table if not exists lost (x int)")
    runner.cluster().run("grant all on lost to public")
    proxy = runner.proxy(cores=cores, max_connections=1)
    for end in ("terminate", "close", "reset"):
        for failed in (False, True):
            one = proxy.client()
            one.query("begin; insert into lost values (1)")
            if failed:
                one.error_of("bad")
            getattr(one, end)()
            with proxy.client() as two:
                two.send(query("select count(*) from lost"))
                found = two.recv_until("Z")
                assert wire.rows(found) == [["0"]] and found[-1].body == b"I", (end, found)


@runner.cases(1, 2)
def test_statement_mode_refuses_blocks(cores):
    """In statement mode a transaction block ends in a clear error, and harms nobody else."""
    proxy = runner.proxy(mode="statement", cores=cores, max_connections=1)
    ways = {
        "simple": query("begin"),
        "extended": extended("begin") + SYNC,
        "with others": query("begin; select 1"),
        "start": query("start transaction isolation level serializable"),
        "prepared": parse("begin", "b") + bind(name="b") + execute() + SYNC,
    }
    for name, way in ways.items():
        with proxy.client() as client, proxy.client() as other:
            client.send(way)
            fields = first_error(client)
            assert fields.get("C") == "0A000" and REFUSAL in fields["M"], (name, fields)
            assert other.value("select 'unharmed'") == "unharmed", name
            other.send(query("select 1"))
            assert other.recv_until("Z")[-1].body == b"I", name


@runner.cases(1, 2)
def test_statement_mode_shares_after_each_statement(cores):
    """In statement mode clients take turns statement by statement."""
    proxy = runner.proxy(mode="statement", cores=cores, max_connections=1)

    def work(tag):
        with proxy.client(application_name=tag) as client:
            for turn in range(runner.scaled(100, 10)):
                assert client.value("show application_name") == tag
                assert client.execute("select $1::int", [turn]) == [[str(turn)]]
                assert client.query("select 1; select 2") == [["1"], ["2"]]

    runner.in_threads([lambda t=t: work(t) for t in ("one", "two", "three")])


def test_modes_by_database_and_user():
    """A database or a user may have a mode of its own; the user's wins."""
    database = [
        {"name": "app", "node": "main"},
        {"name": "other", "node": "main", "mode": "session"},
    ]
    user = [
        {"name": "bench", "auth": "trust"},
        {"name": "alice", "auth": "trust", "mode": "statement"},
    ]
    with runner.fresh_proxy(max_connections=2, database=database, user=user) as proxy:
        with proxy.client("bench", "app") as client:
            client.query("begin")
            client.query("commit")
        with proxy.client("bench", "other") as client:
            client.query("set work_mem = '5MB'")
            assert client.value("show work_mem") == "5MB"
        with proxy.client("alice", "other") as client:
            client.send(query("begin"))
            assert REFUSAL in first_error(client)["M"]


def test_pools_are_apart():
    """Users and databases never share a backend."""
    proxy = runner.proxy(max_connections=1)
    seen = {}
    clients = [proxy.client(u, d) for u in ("bench", "alice", "bob") for d in ("app", "other")]
    for client in clients:
        (row,) = client.query("select current_user, current_database(), pg_backend_pid()")
        seen[(row[0], row[1])] = row[2]
    assert len(seen) == 6 and len(set(seen.values())) == 6, seen
    for client in clients:
        client.close()


@runner.cases(1, 2)
@runner.timeout(120)
def test_many_clients_at_once_get_their_own_replies(cores):
    """Forty clients that pipeline at random over three backends each read their own replies."""
    proxy = runner.proxy(cores=cores, max_connections=3)
    stop = threading.Event()

    def work(number):
        chance = random.Random(number)
        with proxy.client() as client:
            for turn in range(runner.scaled(40, 8)):
                if stop.is_set():
                    return
                tags = [f"{number}.{turn}.{i}" for i in range(chance.randrange(1, 8))]
                for tag in tags:
                    size = chance.choice((0, 10, 1000, 40000))
                    if chance.random() < 0.5:
                        client.send(query(f"select '{tag}', repeat('q', {size})"))
                    else:
                        client.send(extended(f"select $1::text, repeat('q', {size})", [tag]), SYNC)
                for tag in tags:
                    got = client.result()
                    assert got[0][0] == tag, f"{tag} expected, {got[0][0]} came"

    try:
        runner.in_threads([lambda n=n: work(n) for n in range(40)])
    finally:
        stop.set()


if __name__ == "__main__":
    runner.main()
