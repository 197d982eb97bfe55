#!/usr/bin/python3
"""Cancel requests: they reach their own query, and nobody else's.

    ./test_cancel.py random --seconds 60     random cancels for longer
"""

import random
import re
import select
import struct
import threading
import time

from harness import libpq, runner, wire
from harness.backend import Backend
from harness.wire import query

SECONDS = float(runner.option("--seconds") or 8 * max(0.25, runner.load()))


@runner.cases(1, 2)
def test_cancel_by_libpq(cores):
    """PQcancel ends a running query, and the connection goes on."""
    proxy = runner.proxy(cores=cores, max_connections=2)
    for _ in range(4):
        with proxy.libpq() as conn:
            conn.send_query("select pg_sleep(30) /* own */")
            runner.wait_running("own")
            conn.cancel()
            (result,) = conn.results()
            assert result.code == "57014", result.error
            assert conn.value("select 1") == "1"


@runner.cases(1, 2)
def test_cancel_in_session_mode(cores):
    """A client in session mode is told the process id of its server process, and cancels with that."""
    proxy = runner.proxy(mode="session", cores=cores, max_connections=4)
    for number in range(4):
        with proxy.libpq() as conn, proxy.client() as client:
            assert int(conn.value("select pg_backend_pid()")) == conn.pid
            assert int(client.value("select pg_backend_pid()")) == client.pid
            conn.send_query(f"select pg_sleep(30) /* session {number} */")
            runner.wait_running(f"session {number}")
            proxy.cancel(client.pid, bytes(len(client.key)))
            runner.wait_running(f"session {number}")
            conn.cancel()
            (result,) = conn.results()
            assert result.code == "57014", result.error
            assert conn.value("select 1") == "1"


@runner.cases(1, 2)
def test_cancel_with_a_full_pool(cores):
    """A query can be cancelled while every backend is taken and others wait."""
    proxy = runner.proxy(cores=cores, max_connections=2)
    clients = [proxy.client() for _ in range(2)]
    for number, client in enumerate(clients):
        client.send(query(f"select pg_sleep(30) /* full{number} */"))
        runner.wait_running(f"full{number}")
    waiting = [proxy.client() for _ in range(4)]
    for client in waiting:
        client.send(query("select 'waited'"))
    for client in clients:
        proxy.cancel(client.pid, client.key)
        assert [f["C"] for f in wire.errors(client.recv_until("Z"))] == ["57014"]
    for client in waiting:
        assert client.result() == [["waited"]]
    for client in clients + waiting:
        client.close()


def cancelled(client):
    return [fields["C"] for fields in wire.errors(client.recv_until("Z"))] == ["57014"]


@runner.cases(1, 2)
@runner.timeout(120)
def test_cancel_at_twice_the_pool_size(cores):
    """All of twice as many clients as server connections are cancelled at once, those that wait too, and go on."""
    proxy = runner.proxy(cores=cores, max_connections=12)
    clients = [proxy.client() for _ in range(24)]
    active = "query like '%twice%' and state = 'active'"
    for _ in range(2):
        for number, client in enumerate(clients):
            client.send(query(f"select pg_sleep(30) /* twice {number} */"))
        runner.eventually(lambda: len(runner.cluster().backends(active)) == 12, what="a full pool")
        texts = runner.cluster().run(f"select query from pg_stat_activity where {active}", "postgres")
        running = {int(re.search(r"twice (\d+)", text)[1]) for (text,) in texts if "pg_sleep" in text}
        assert len(running) == 12, texts
        runner.in_threads([lambda c=c: proxy.cancel(c.pid, c.key) for c in clients])
        waited = [client for number, client in enumerate(clients) if number not in running]
        assert all(cancelled(client) for client in clients if client not in waited)
        # The request of one that has just got its connection may come to the server before the query does; it is lost
        # then, as it would be without a pooler.
        late = [client for client in waited if not select.select([client.socket], [], [], 3)[0]]
        for client in late:
            proxy.cancel(client.pid, client.key)
        assert all(cancelled(client) for client in waited)
        if late:
            print(f"    {len(late)} of {len(waited)} that waited were cancelled once more")
        for client in clients:
            assert client.value("select 1") == "1"
    for client in clients:
        client.close()


@runner.cases(1, 2)
def test_cancel_in_a_burst(cores):
    """Hundreds of requests for one query, at all cores, cancel that one; its connection, and others, go on."""
    proxy = runner.proxy(cores=cores, max_connections=3)
    with proxy.client() as client, proxy.client() as other:
        for _ in range(3):
            client.send(query("select pg_sleep(30) /* burst */"))
            runner.wait_running("burst")
            askers = [proxy.open() for _ in range(300)]
            for asker in askers:
                asker.send(wire.cancel_request(client.pid, client.key))
            assert other.value("select 1") == "1"
            for asker in askers:
                assert asker.recv_to_end() == b""
                asker.close()
            assert [f["C"] for f in wire.errors(client.recv_until("Z"))] == ["57014"]
            assert client.query("select pg_sleep(0.2)") == [[""]]


def test_cancel_by_a_long_key():
    """A client of protocol 3.2 has a key of 32 bytes, of which no part serves."""
    proxy = runner.proxy(max_connections=1)
    with proxy.open() as client:
        client.login("bench", "app", version=(3 << 16) | 2)
        assert len(client.key) == 32, client.key
        client.send(query("select pg_sleep(0.5) /* long key */"))
        runner.wait_running("long key")
        for key in (client.key[:4], client.key[:31], client.key + b"x", bytes(32)):
            proxy.cancel(client.pid, key)
        assert client.result() == [[""]]
        client.send(query("select pg_sleep(30) /* long key */"))
        runner.wait_running("long key")
        proxy.cancel(client.pid, client.key)
        assert [f["C"] for f in wire.errors(client.recv_until("Z"))] == ["57014"]


@runner.cases(1, 2)
def test_cancel_of_a_client_that_waits(cores):
    """A cancel request ends a wait at once, at whatever core it comes in, and the connection goes on."""
    pool = {"wait_notice": "10ms"}
    with runner.fresh_proxy(cores=cores, max_connections=1, pool=pool) as proxy:
        with proxy.client() as holder, proxy.client() as waiter:
            holder.query("begin")
            server = holder.value("select pg_backend_pid()")
            for sent, answer in [
                (query("select 'never'"), "EZ"),
                (wire.extended("select 'never'") + wire.message("S"), "EZ"),
                (query("select 'never'") + query("select 'nor this'"), "EZ"),
            ]:
                waiter.send(sent)
                waiter.recv_until("N")
                proxy.cancel(waiter.pid, waiter.key)
                messages = waiter.recv_until("Z")
                assert "".join(m.kind for m in messages) == answer, messages
                (fields,) = wire.errors(messages)
                assert fields["C"] == "57014" and fields["S"] == "ERROR", fields
                assert fields["M"] == "canceling statement due to user request", fields
            # The last query of the last flight waits on its own.
            waiter.recv_until("N")
            holder.query("select 1")
            holder.query("commit")
            assert waiter.result() == [["nor this"]]
            assert waiter.value("select pg_backend_pid()") == server


def test_cancel_with_a_wrong_key():
    """A cancel request with a wrong key or number does nothing."""
    proxy = runner.proxy(max_connections=2)
    with proxy.client() as client:
        client.send(query("select pg_sleep(0.7) /* wrong */"))
        runner.wait_running("wrong")
        other_key = bytes(b ^ 1 for b in client.key)
        proxy.cancel(client.pid, other_key)
        proxy.cancel(client.pid ^ 1, client.key)
        proxy.cancel(0, b"\0" * 4)
        assert client.result() == [[""]]


def test_cancel_of_an_idle_client():
    """A cancel request for an idle client does nothing, then or later."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as client, proxy.client() as other:
        client.query("select 1")
        other.send(query("select pg_sleep(0.5) /* innocent */"))
        runner.wait_running("innocent")
        proxy.cancel(client.pid, client.key)
        assert other.result() == [[""]]
        proxy.cancel(client.pid, client.key)
        assert client.query("select pg_sleep(0.3)") == [[""]]


def test_cancel_of_an_idle_client_in_a_transaction():
    """A cancel request between the queries of a transaction leaves the transaction alone."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as client:
        client.query("begin")
        proxy.cancel(client.pid, client.key)
        time.sleep(0.2)
        client.query("select 1")
        client.query("commit")


@runner.cases(1, 2)
def test_cancel_at_a_node_of_several_addresses(cores):
    """A request goes to the address whose server runs the query: the first may be dead, or another server."""
    port = runner.cluster().port
    with runner.fresh_proxy(cores=cores, node={"host": "127.0.0.2, 127.0.0.1"}) as proxy, proxy.client() as client:
        client.query("begin; savepoint here")

        def check(marker):
            client.send(query(f"select pg_sleep(30) /* {marker} */"))
            runner.wait_running(marker)
            proxy.cancel(client.pid, client.key)
            assert cancelled(client)
            client.query("rollback to here")

        check("dead first")
        with Backend(listen=(f"127.0.0.2:{port}",)) as other:
            check("other first")
            client.query("commit")
            client.terminate()
            connections, _ = other.stop()
        assert connections == 0, connections


def test_cancel_after_the_client_has_gone():
    """The key of a client that has left is worth nothing."""
    proxy = runner.proxy(max_connections=1)
    gone = proxy.client()
    gone.query("select 1")
    gone.terminate()
    with proxy.client() as client:
        client.send(query("select pg_sleep(0.5) /* later */"))
        runner.wait_running("later")
        proxy.cancel(gone.pid, gone.key)
        assert client.result() == [[""]]


def test_malformed_cancel_requests():
    """Cancel requests of a wrong length are dropped without harm."""
    proxy = runner.proxy(max_connections=1)
    whole = wire.cancel_request(1, b"\1\2\3\4")
    bad = [
        struct.pack("!II", 8, wire.CANCEL_REQUEST),
        struct.pack("!III", 12, wire.CANCEL_REQUEST, 1),
        wire.cancel_request(1, b"k" * 300),
        whole + b"more behind it",
        whole[:10],
    ]
    for data in bad:
        with proxy.open() as conn:
            conn.send(data)
            if data == whole[:10]:
                continue
            try:
                found, _ = wire.split(conn.recv_to_end(5))
                assert all(m.kind == "E" for m in found), found
            except ConnectionError:
                pass
    with proxy.client() as client:
        assert client.value("select 1") == "1"


def test_cancel_arrives_in_pieces():
    """A cancel request that arrives byte by byte works."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as client, proxy.open() as conn:
        client.send(query("select pg_sleep(30) /* pieces */"))
        runner.wait_running("pieces")
        conn.send_in_pieces(wire.cancel_request(client.pid, client.key), 1, 0.005)
        assert [f["C"] for f in wire.errors(client.recv_until("Z"))] == ["57014"]


@runner.cases(1, 2)
@runner.timeout(180 + int(SECONDS))
def test_random_cancels_hit_nobody_else(cores):
    """Under many short queries and random cancels only the cancelled client ever sees 57014."""
    proxy = runner.proxy(cores=cores, max_connections=4)
    stop = threading.Event()
    targets = [proxy.client() for _ in range(6)]
    innocents = [proxy.client() for _ in range(6)]
    counts = {"cancelled": 0, "run": 0}

    def run_target(client):
        while not stop.is_set():
            try:
                client.query("select pg_sleep(0.002)")
            except wire.ServerError as error:
                assert error.code == "57014", error
                counts["cancelled"] += 1

    def run_innocent(client):
        while not stop.is_set():
            assert client.query("select pg_sleep(0.001)") == [[""]]
            counts["run"] += 1

    def cancel():
        chance = random.Random(1)
        try:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                target = chance.choice(targets)
                with proxy.open() as conn:
                    conn.send(wire.cancel_request(target.pid, target.key))
                    if chance.random() < 0.7:
                        conn.recv_to_end()
        finally:
            stop.set()

    work = [lambda c=c: run_target(c) for c in targets]
    work += [lambda c=c: run_innocent(c) for c in innocents]
    runner.in_threads(work + [cancel], 120 + SECONDS)
    assert counts["cancelled"] > 0 and counts["run"] > 0, counts
    for client in targets + innocents:
        client.close()


def test_cancel_keys_differ():
    """Every client gets a key of its own, which is not the server's."""
    proxy = runner.proxy(max_connections=1)
    clients = [proxy.client() for _ in range(50)]
    keys = {(c.pid, c.key) for c in clients}
    assert len(keys) == 50 and all(len(c.key) == 4 for c in clients)
    server_pid = int(clients[0].value("select pg_backend_pid()"))
    assert sum(c.pid == server_pid for c in clients) == 0
    for client in clients:
        client.close()


def test_cancel_of_a_libpq_pipeline():
    """A cancelled pipeline ends with its Sync, and the connection goes on."""
    proxy = runner.proxy(max_connections=1)
    with proxy.libpq() as conn:
        conn.enter_pipeline()
        conn.send_params("select pg_sleep(30) /* pipe */")
        conn.send_params("select 2")
        conn.pipeline_sync()
        runner.wait_running("pipe")
        conn.cancel()
        statuses = []
        while libpq.PIPELINE_SYNC not in statuses:
            result = conn.get_result()
            if result is not None:
                statuses.append(result.status)
        wanted = [libpq.FATAL_ERROR, libpq.PIPELINE_ABORTED, libpq.PIPELINE_SYNC]
        assert statuses == wanted, statuses


if __name__ == "__main__":
    runner.main()
