#!/usr/bin/python3
"""Time limits: queries and transactions that take too long, clients that are silent for too long."""

import time

from harness import libpq, runner, wire
from harness.wire import SYNC, extended, query


def check_told(client, code, text, seconds=20):
    """The client's connection ends, with this FATAL as its last word."""
    found, half = wire.split(client.recv_to_end(seconds))
    assert not half, half
    assert found and found[-1].kind == "E", found
    fields = found[-1].fields
    assert fields["S"] == fields["V"] == "FATAL", fields
    assert (fields["C"], fields["M"]) == (code, text), fields


def check_cancelled(got):
    """The server's own answer to a cancel request, and the client may go on."""
    assert [m.kind for m in got][-2:] == ["E", "Z"], got
    fields = got[-2].fields
    assert fields["V"] == "ERROR" and fields["C"] == "57014", fields
    assert fields["M"] == "canceling statement due to user request", fields


def proxy_with(cores=1, max_connections=1, user=None, **limits):
    if user is not None:
        limits = {"pool": limits, "user": user}
    else:
        limits = {"pool": limits}
    return runner.fresh_proxy(cores=cores, max_connections=max_connections, **limits)


@runner.cases(1, 2)
def test_query_timeout(cores):
    """A query that takes too long is cancelled; client, transaction and server connection go on."""
    with proxy_with(cores, query_timeout="500ms") as proxy:
        with proxy.client() as client:
            pid = client.value("select pg_backend_pid()")
            began = time.monotonic()
            client.send(query("select pg_sleep(30)"))
            check_cancelled(client.recv_until("Z"))
            client.send(extended("select pg_sleep(30)"), SYNC)
            check_cancelled(client.recv_until("Z"))
            assert time.monotonic() - began < 20
            client.query("begin")
            client.send(query("select pg_sleep(30)"))
            check_cancelled(client.recv_until("Z"))
            client.query("rollback")
            assert client.value("select pg_backend_pid()") == pid
            # Many short ones together are none that takes too long.
            for _ in range(5):
                client.send(query("select pg_sleep(0.2)") * 2)
                for _ in range(2):
                    assert client.result() == [[""]]


def test_query_timeout_in_session_mode():
    """The same for a client that has its backend for itself."""
    with proxy_with(mode="session", query_timeout="500ms") as proxy:
        with proxy.client() as client:
            client.query("set work_mem = '123kB'")
            client.send(query("select pg_sleep(30)"))
            check_cancelled(client.recv_until("Z"))
            time.sleep(1)
            assert client.value("show work_mem") == "123kB"


def test_query_timeout_of_libpq():
    """libpq sees an error of the query, and goes on."""
    with proxy_with(max_connections=2, query_timeout="500ms") as proxy:
        with proxy.libpq() as conn:
            try:
                conn.query("select pg_sleep(30)")
                raise AssertionError("the query was not cancelled")
            except libpq.Error as error:
                assert error.code == "57014", error
            assert conn.value("select 'next'") == "next"


@runner.timeout(90)
def test_query_timeout_of_a_silent_copy():
    """A COPY whose client is silent cannot be cancelled: both connections end."""
    runner.cluster().run("create table if not exists copied (x text)")
    runner.cluster().run("grant all on copied to public")
    with proxy_with(query_timeout="500ms") as proxy:
        with proxy.client() as client, proxy.client() as other:
            client.send(query("copy copied from stdin"))
            client.recv_until("G")
            check_told(client, "57014", "query timeout")
            assert other.value("select count(*) from copied") == "0"


@runner.cases((1, "transaction"), (2, "transaction"), (1, "session"))
def test_idle_transaction_timeout(cores, mode):
    """A client that is silent in a transaction is told, and its work rolled back; the backend lives on."""
    runner.cluster().run("drop table if exists idle_work")
    runner.cluster().run("create table idle_work (x int)")
    runner.cluster().run("grant all on idle_work to public")
    with proxy_with(cores, mode=mode, idle_transaction_timeout="500ms") as proxy:
        client = proxy.client()
        pid = client.value("select pg_backend_pid()")
        client.query("begin")
        client.query("insert into idle_work values (1)")
        # Neither does this count, nor what was before it.
        client.query("select pg_sleep(1)")
        check_told(client, "25P03", "idle transaction timeout")
        with proxy.client() as other:
            assert other.value("select count(*) from idle_work") == "0"
            assert other.value("select pg_backend_pid()") == pid
            time.sleep(1)
            assert other.value("select 'not in a transaction'") == "not in a transaction"


@runner.cases(1, 2)
def test_idle_transaction_timeout_if_waited_for(cores):
    """An idle transaction that nobody waits for goes on; then one ends for each that waits."""
    limits = {"idle_transaction_timeout": "300ms", "idle_transaction_timeout_when": "waited_for"}
    with proxy_with(cores, max_connections=2, **limits) as proxy:
        holders = [proxy.client() for _ in range(2)]
        for holder in holders:
            holder.query("begin")
        time.sleep(1)
        for holder in holders:
            assert holder.value("select 'still here'") == "still here"
        with proxy.client() as waiter:
            assert waiter.value("select 'mine'") == "mine"
            time.sleep(1)
            ended = 0
            for holder in holders:
                holder.send(query("select 'still here'"))
                got = holder.recv_until("ZE")
                ended += got[-1].kind == "E"
                if got[-1].kind == "E":
                    assert got[-1].fields["C"] == "25P03", got
            assert ended == 1, ended
        for holder in holders:
            holder.close()


@runner.cases("transaction", "session")
def test_transaction_timeout(mode):
    """A transaction that takes too long ends its session, whether something runs in it or not."""
    with proxy_with(mode=mode, transaction_timeout="700ms") as proxy:
        for running in (False, True):
            client = proxy.client()
            pid = client.value("select pg_backend_pid()")
            client.query("begin")
            for _ in range(3):
                client.query("select pg_sleep(0.1)")
            if running:
                client.send(query("select pg_sleep(30)"))
            check_told(client, "25P04", "transaction timeout")
            # What ran was cancelled: the backend serves the next.
            with proxy.client() as other:
                assert other.value("select pg_backend_pid()") == pid
                for _ in range(10):
                    other.query("select pg_sleep(0.1)")


@runner.cases("transaction", "session")
def test_client_idle_timeout(mode):
    """A client that asks nothing is told; one in a transaction, or at work, is not idle."""
    with proxy_with(max_connections=3, mode=mode, client_idle_timeout="500ms") as proxy:
        client, busy = proxy.client(), proxy.client()
        busy.query("begin")
        busy.query("select pg_sleep(1)")
        check_told(client, "57P05", "client_idle_timeout")
        time.sleep(1)
        busy.query("commit")
        check_told(busy, "57P05", "client_idle_timeout")


def test_limits_of_users():
    """A user's limits come before the pool's, in both directions."""
    user = [
        {"name": "alice", "auth": "trust", "client_idle_timeout": "0s"},
        {"name": "bob", "auth": "trust", "query_timeout": "300ms"},
        {"name": "bench", "auth": "trust"},
    ]
    with proxy_with(user=user, max_connections=3, client_idle_timeout="700ms") as proxy:
        alice, bench = (proxy.client(name) for name in ("alice", "bench"))
        bench.query("select pg_sleep(1)")
        bob = proxy.client("bob")
        bob.send(query("select pg_sleep(30)"))
        check_cancelled(bob.recv_until("Z"))
        check_told(bench, "57P05", "client_idle_timeout")
        assert alice.value("select 'still here'") == "still here"
        alice.close()


if __name__ == "__main__":
    runner.main()
