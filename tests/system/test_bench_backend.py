#!/usr/bin/python3
"""The canned server (helios-bench backend), asked by raw clients, libpq, psql, pgbench, and through the proxy."""

import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

from harness import backend as backend_module
from harness import libpq, proxy as proxy_module, runner, wire
from harness.backend import Backend
from harness.wire import COPY_DONE, SYNC, bind, copy_data, execute, extended, parse, query

BIG_ROWS, BIG_ROW_SIZE = 10000, 94
TCP_INFO_DATA_SEGS_IN = 152  # Where struct tcp_info has it.


def pgbench(port, *options):
    """Runs pgbench; its output. Fails on any complaint."""
    done = subprocess.run(
        ["pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", "bench", *map(str, options), "bench"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for word in ("error", "warning", "failed:"):
        assert word not in done.stderr.lower(), done.stderr
    return done.stdout


def psql(port, *words, given=None):
    done = subprocess.run(
        ["psql", "-XAt", "-h", "127.0.0.1", "-p", str(port), "-U", "bench", "-d", "bench", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        input=given,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def proxy_before(backend, **keys):
    """A proxy whose node is the canned server."""
    port = {"port": backend.port}
    return runner.fresh_proxy(proxy_module.config(None, node=port, **keys))


@runner.cases(*[(mode, cores) for mode in ("simple", "extended", "prepared") for cores in (1, 2)])
def test_pgbench(mode, cores):
    """pgbench's own script runs in every mode, over all cores, and every query is counted."""
    with Backend("--cores", cores) as backend:
        out = pgbench(backend.port, "-S", "-M", mode, "-c", 8, "-t", 500)
        assert "number of transactions actually processed: 4000/4000" in out, out
        assert "number of failed transactions: 0 " in out, out
        connections, queries = backend.stop()
        assert connections >= 8 and queries >= 4000, (connections, queries)


def test_pgbench_writes():
    """pgbench's writing script and its initialisation find what they expect."""
    with Backend() as backend:
        pgbench(backend.port, "-c", 4, "-t", 50)
        done = subprocess.run(
            ["pgbench", "-h", "127.0.0.1", "-p", str(backend.port), "-U", "bench", "-i", "bench"],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0 and "done in" in done.stderr, done.stderr


@runner.cases("simple", "extended", "prepared")
def test_pgbench_through_the_proxy(mode):
    """pgbench with more clients than server connections finds no error behind the proxy."""
    most = 4
    with Backend() as backend, proxy_before(backend, max_connections=most) as proxy:
        out = pgbench(proxy.address[1], "-n", "-S", "-M", mode, "-c", 16, "-t", 100)
        assert "number of transactions actually processed: 1600/1600" in out, out


def test_two_listen_addresses_and_both_signals():
    """TCP and unix sockets serve at the same time; SIGINT ends like SIGTERM."""
    with tempfile.TemporaryDirectory() as directory:
        backend = Backend(listen=("127.0.0.1:0", f"unix:{directory}:5555"))
        try:
            assert backend.addresses[1] == f"unix:{directory}:5555", backend.addresses
            with backend.client() as tcp, wire.Conn(f"{directory}/.s.PGSQL.5555") as unix:
                unix.login("bench", "bench")
                assert tcp.value("select 1") == "1"
                assert unix.value("select 2") == "2"
        finally:
            totals = backend.stop(signal.SIGINT)
        assert totals == (2, 2), totals
        assert not os.path.exists(f"{directory}/.s.PGSQL.5555")


def test_quiet():
    """--quiet prints nothing at all."""
    port = runner.cluster_module.free_port()
    words = [backend_module.executable(), "backend", "--quiet", "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def is_up():
        try:
            wire.Conn(("127.0.0.1", port)).login("bench", "bench").close()
        except OSError:
            return False
        return True

    try:
        runner.eventually(is_up)
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, b""), (process.returncode, out)


def test_psql():
    """A client that knows nothing of us: results, errors, and COPY in both directions."""
    with Backend() as backend:
        assert psql(backend.port, "-c", "select 42") == "42\n"
        assert psql(backend.port, "-c", "show server_version").startswith("15.")
        lines = psql(backend.port, "-c", "copy t to stdout").splitlines()
        assert lines == ["x" * BIG_ROW_SIZE] * BIG_ROWS
        assert psql(backend.port, "-c", "copy t from stdin", given="a\nb\n") == "COPY 2\n"


def test_libpq_calls():
    """Parameters, prepared statements and a pipeline, each answer to its question."""
    with Backend() as backend, backend.libpq() as conn:
        assert conn.parameter("server_encoding") == "UTF8"
        assert conn.execute("select $1", [17]).rows == [["17"]]
        conn.prepare("s", "select abalance, aid from t where aid = $1")
        assert conn.execute_prepared("s", [5]).rows == [["5", "5"]]
        conn.enter_pipeline()
        for number in range(300):
            conn.send_prepared("s", [number])
        conn.pipeline_sync()
        for number in range(300):
            assert conn.get_result().rows == [[str(number)] * 2]
            assert conn.get_result() is None
        assert conn.get_result().status == libpq.PIPELINE_SYNC


def test_many_pipelined_queries():
    """Thousands of queries in one go are answered in order, whatever the sockets take at once."""
    with Backend() as backend, backend.client() as client:
        count = 20000
        data = b"".join(query(f"select {i}") for i in range(count))
        sender = threading.Thread(target=client.send, args=(data,))
        sender.start()
        for number in range(count):
            assert client.result() == [[str(number)]]
        sender.join(20)


@runner.cases("select big", "SELECT big from t", "/* big */ select 1", "select /* big */ a")
def test_big_results(sql):
    """Large results are asked for by a word or a comment, and are complete."""
    with Backend() as backend, backend.client() as client:
        assert client.query(sql) == [["x" * BIG_ROW_SIZE]] * BIG_ROWS
        assert client.value("select 3") == "3"


def test_rows_and_row_size():
    """The options make every result but a number's; COPY TO too."""
    with Backend("--rows", 7, "--row-size", 5000) as backend, backend.client() as client:
        assert client.query("select a") == [["x" * 5000]] * 7
        assert client.query("select 9") == [["9"]]
        client.send(query("copy t to stdout"))
        pieces = [m.body for m in client.recv_until("Z") if m.kind == "d"]
        assert pieces == [b"x" * 5000 + b"\n"] * 7


def test_big_results_wait_for_the_reader():
    """Readers that do not read cost their sockets' buffers and the marks, not the results."""
    with Backend() as backend:
        clients = [backend.client() for _ in range(100)]
        before = backend.peak_rss()
        for client in clients:
            client.send(query("select big") * 5)
        time.sleep(1)
        grown = backend.peak_rss() - before
        assert grown < 100 * 600 * 1024, grown
        for client in clients[:3]:
            for _ in range(5):
                assert len(client.result()) == BIG_ROWS
        for client in clients:
            client.close()


def test_delay():
    """Each answer waits; connections wait beside each other."""
    with Backend("--delay", "200ms") as backend:
        clients = [backend.client() for _ in range(10)]
        began = time.monotonic()
        for number, client in enumerate(clients):
            client.send(query(f"select {number}"))
        for number, client in enumerate(clients):
            assert client.result() == [[str(number)]]
        took = time.monotonic() - began
        assert 0.2 <= took < 1.5, took
        began = time.monotonic()
        clients[0].send(parse("select 1"), (bind() + execute()) * 3, SYNC)
        assert len(clients[0].result()) == 3
        assert time.monotonic() - began >= 0.6


def test_sleep():
    """pg_sleep takes its time and not much more."""
    with Backend() as backend, backend.client() as client:
        began = time.monotonic()
        assert client.query("select pg_sleep(0.3)") == [[""]]
        assert 0.3 <= time.monotonic() - began < 2


def segments_received(sock):
    """Segments with data that have come (tcpi_data_segs_in, Linux 4.6): how the bytes were cut on their way."""
    return struct.unpack_from("I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), TCP_INFO_DATA_SEGS_IN)[0]


def received(backend, sql):
    """The answer, and the number of segments in which it came."""
    with backend.client() as client:
        client.socket.settimeout(10)
        before = segments_received(client.socket)
        client.send(query(sql))
        answer = b""
        while not answer.endswith(b"Z\0\0\0\5I"):
            answer += client.socket.recv(65536)
        return answer, segments_received(client.socket) - before


def test_pieces():
    """Answers come whole without --piece, and byte for byte the same in pieces with it."""
    with Backend() as whole, Backend("--piece", 7) as cut:
        expected, segments = received(whole, "select 1; select a; select 1/0")
        assert segments == 1, segments
        found, segments = received(cut, "select 1; select a; select 1/0")
        assert found == expected
        # As many as may be on their way at first; then the kernel joins what waits.
        assert segments >= min(10, len(expected) // 7), segments
    with Backend("--piece", 5000) as cut, cut.client() as client:
        assert client.query("select big") == [["x" * BIG_ROW_SIZE]] * BIG_ROWS
        client.send(query("select 1"), wire.TERMINATE)
        assert b"SELECT 1\0" in client.recv_to_end()


@runner.cases(1, 2)
def test_cancel(cores):
    """A cancel request ends the query that runs, wherever it arrives, and nobody else's."""
    with Backend("--cores", cores) as backend:
        with backend.libpq() as one, backend.libpq() as two, backend.client() as raw:
            for _ in range(10):
                one.send_query("select pg_sleep(20)")
                two.send_query("select pg_sleep(0.2)")
                time.sleep(0.02)
                one.cancel()
                code = [r.status for r in one.results()]
                assert code == [libpq.FATAL_ERROR], code
                assert [r.status for r in two.results()] == [libpq.TUPLES_OK]
            raw.send(query("select pg_sleep(0.2)"))
            for key in (b"\0\0\0\0", raw.key + b"more"):
                with wire.Conn(("127.0.0.1", backend.port)) as other:
                    other.send(wire.cancel_request(raw.pid, key))
                    assert other.recv_to_end() == b""
            assert raw.result() == [[""]]


def test_keys_are_unique():
    """Every connection has a pid of its own, and of the length that its protocol has."""
    with Backend("--cores", 2) as backend:
        clients = [backend.client() for _ in range(50)]
        assert len({c.pid for c in clients}) == 50
        assert len({c.key for c in clients}) == 50
        with backend.client(version=wire.PROTOCOL_3_2) as newer:
            assert len(newer.key) > 4 == len(clients[0].key)
            newer.send(query("select pg_sleep(20)"))
            with wire.Conn(("127.0.0.1", backend.port)) as other:
                other.send(wire.cancel_request(newer.pid, newer.key))
                other.recv_to_end()
            assert wire.errors(newer.recv_until("Z"))[0]["C"] == "57014"


def test_cancel_through_the_proxy():
    """The proxy's cancel request finds the server connection that works for the client."""
    with Backend() as backend, proxy_before(backend) as proxy, proxy.client() as client:
        client.send(query("select pg_sleep(20)"))
        time.sleep(0.2)
        with wire.Conn(proxy.address) as other:
            other.send(wire.cancel_request(client.pid, client.key))
            other.recv_to_end()
        assert wire.errors(client.recv_until("Z"))[0]["C"] == "57014"
        assert client.value("select 5") == "5"


def test_copy_in():
    """Large COPY data in both protocols is swallowed and counted."""
    rows = b"".join(b"%d\tname\n" % i for i in range(50000))
    with Backend() as backend, backend.client() as client:
        for sql, messages in (("copy t from stdin", query), ("copy t from stdin", extended)):
            client.send(messages(sql), b"" if messages is query else SYNC)
            client.recv_until("G")
            for at in range(0, len(rows), 30000):
                client.send(copy_data(rows[at : at + 30000]))
            client.send(COPY_DONE, b"" if messages is query else SYNC)
            done = [m.text for m in client.recv_until("Z") if m.kind == "C"]
            assert done == ["COPY 50000"], done


def test_what_the_proxy_needs():
    """Through the proxy: parameters follow clients, failed blocks end, results and COPY pass whole."""
    with Backend("--cores", 2) as backend, proxy_before(backend, max_connections=2) as proxy:
        clients = [proxy.client(application_name=f"client {i}") for i in range(6)]
        for turn in range(5):
            for number, client in enumerate(clients):
                assert client.value("show application_name") == f"client {number}", turn
        one = clients[0]
        one.query("set timezone = 'Europe/Berlin'")
        assert one.parameters["TimeZone"] == "Europe/Berlin"
        assert clients[1].value("show timezone") != "Europe/Berlin"
        assert one.value("show timezone") == "Europe/Berlin"
        one.query("begin")
        assert one.error_of("select 1/0")["C"] == "22012"
        assert one.error_of("select 1")["C"] == "25P02"
        one.query("rollback")
        assert one.query("select big") == [["x" * BIG_ROW_SIZE]] * BIG_ROWS
        one.send(query("copy t from stdin"))
        one.recv_until("G")
        one.send(copy_data(b"x\n" * 1000), COPY_DONE)
        assert [m.text for m in one.recv_until("Z") if m.kind == "C"] == ["COPY 1000"]
        two = clients[1]
        two.send(*(extended("select $1", [i]) + SYNC for i in range(100)))
        for number in range(100):
            assert two.result() == [[str(number)]]


def test_connections_end():
    """Clients that say goodbye, vanish or break the protocol leave nothing that disturbs others."""
    with Backend("--connections", 5) as backend:
        for _ in range(20):
            backend.client().terminate()
            backend.client().reset()
            client = backend.client()
            client.send(query("select pg_sleep(20)"))
            client.close()
        client = wire.Conn(("127.0.0.1", backend.port))
        client.send(struct.pack("!I", 1))
        assert client.recv_last_error()["C"] == "08P01"
        kept = runner.eventually(lambda: five_clients(backend), what="room for five clients")
        extra = wire.Conn(("127.0.0.1", backend.port))
        extra.start("bench", "bench")
        assert extra.recv_last_error()["C"] == "53300"
        half = kept[0]
        half.send(query("select 8"))
        half.socket.shutdown(1)
        assert b"SELECT 1\0" in half.recv_to_end()
        assert kept[1].value("select 1") == "1"


def five_clients(backend):
    """None while others are still leaving."""
    kept = []
    try:
        for _ in range(5):
            kept.append(backend.client())
    except wire.ServerError:
        for client in kept:
            client.close()
        return None
    return kept


def test_wrong_options():
    """Each is refused with a sentence about it."""
    for words, expected in (
        (["--cpu", "5000"], "5000"),
        (["--cpu", "0;1"], "0;1"),
        (["--rows", "many"], "--rows"),
        (["--listn", "x"], "--listen"),
    ):
        code, _, errors = backend_module.run_once(words)
        assert code == 2 and expected in errors, (words, code, errors)
    for words, expected in (
        (["--listen", "nowhere"], "nowhere"),
        (["--connections", "1000000", "--listen", "127.0.0.1:0"], "--connections"),
    ):
        code, _, errors = backend_module.run_once(words)
        assert code == 1 and expected in errors, (words, code, errors)


def test_cpu_and_policy():
    """--cpu pins the cores, --batch sets their policy."""
    cpu = min(os.sched_getaffinity(0))
    with Backend("--cpu", cpu, "--batch", "--cores", 2) as backend:
        found = [int(t) for t in os.listdir(f"/proc/{backend.process.pid}/task")]
        pinned = [t for t in found if os.sched_getaffinity(t) == {cpu}]
        assert len(found) == 3 and len(pinned) >= 2, (found, pinned)
        assert {os.sched_getscheduler(t) for t in found} == {os.SCHED_BATCH}


if __name__ == "__main__":
    runner.main()
