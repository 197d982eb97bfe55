#!/usr/bin/python3
"""Limits: how many server connections there are, and who gets them when, from 1 to 1,000 clients."""

import contextlib
import selectors
import threading
import time

from harness import proxy as proxy_module
from harness import runner, wire
from harness.cluster import LimitWatch
from harness.wire import query

PROTOCOLS = ("simple", "extended", "prepared")
# Thousands of transactions already.
QUICK = 1
LONG = runner.scaled(3, 1)


def bench_tables():
    cluster = runner.cluster()
    if not cluster.run("select 1 from pg_class where relname = 'pgbench_history'", "bench"):
        cluster.make_bench(3)
    cluster.run("truncate pgbench_history", "bench")
    cluster.run("update pgbench_accounts set abalance = 0 where abalance <> 0", "bench")
    cluster.run("update pgbench_tellers set tbalance = 0", "bench")
    cluster.run("update pgbench_branches set bbalance = 0", "bench")


def bench(proxy, *arguments, limit=10, seconds=QUICK):
    """pgbench under the eyes of a watch of the limit: its transactions."""
    cluster = runner.cluster()
    runner.eventually(lambda: len(cluster.backends()) <= limit, what="the last proxy's end")
    with LimitWatch(runner.cluster()) as watch:
        words = [str(a) for a in arguments] + ["-T", str(seconds)]
        _, text, count = proxy_module.pgbench(proxy, words)
    watch.check(limit)
    assert "number of failed transactions: 0" in text, text[-2000:]
    return count


@runner.cases(*[(p, cores) for p in PROTOCOLS for cores in (1, 2)])
@runner.timeout(120)
def test_pgbench_with_one_client(protocol, cores):
    """pgbench's transactions work through the proxy, one client at a time."""
    bench_tables()
    with runner.fresh_proxy(cores=cores) as proxy:
        count = bench(proxy, "-c", 1, "-M", protocol, limit=cores)
    assert runner.cluster().check_bank() == count


@runner.cases(*[(p, cores) for p in PROTOCOLS for cores in (1, 2)])
@runner.timeout(120)
def test_pgbench_with_64_clients(protocol, cores):
    """64 clients on ten connections: none too many, and the bank's books are right."""
    bench_tables()
    # pgbench prepares in a call that blocks its thread, also while other clients of that thread are in transactions:
    # with fewer connections than clients it waits for itself.
    limit = 70 if protocol == "prepared" else 10
    with runner.fresh_proxy(cores=cores, max_connections=limit) as proxy:
        count = bench(proxy, "-c", 64, "-j", 2, "-M", protocol, limit=limit)
    assert runner.cluster().check_bank() == count


@runner.timeout(120)
def test_session_mode_with_64_clients_in_two_cores():
    """In session mode 64 clients use 64 connections, -M prepared works, and none is left over."""
    bench_tables()
    with runner.fresh_proxy(mode="session", cores=2, max_connections=70) as proxy:
        count = bench(proxy, "-c", 64, "-j", 2, "-M", "prepared", limit=70)
    assert runner.cluster().check_bank() == count


@runner.timeout(120)
def test_statement_mode_with_64_clients_in_two_cores():
    """In statement mode single statements of 64 clients share ten connections."""
    bench_tables()
    with runner.fresh_proxy(mode="statement", cores=2) as proxy:
        for protocol in PROTOCOLS:
            bench(proxy, "-c", 64, "-j", 2, "-S", "-M", protocol)


@runner.cases(1, 2)
@runner.timeout(180)
def test_reconnecting_clients(cores):
    """64 clients that connect anew for every transaction leave no descriptor behind."""
    bench_tables()
    with runner.fresh_proxy(cores=cores) as proxy:
        proxy_module.pgbench(proxy, ["-c", "2", "-t", "5", "-S"])
        before = proxy.fds()
        count = bench(proxy, "-c", 64, "-j", 2, "-C", "-S")
        assert count > 0
        runner.eventually(lambda: proxy.fds() <= before + 10, what="all descriptors closed")


@runner.cases(("simple", 1), ("extended", 1), ("simple", 2), ("extended", 2))
@runner.timeout(240)
def test_1000_clients_on_10_backends(protocol, cores):
    """1,000 clients share ten connections: none too many, nobody fails."""
    bench_tables()
    clients = runner.scaled(1000, 100)
    with runner.fresh_proxy(cores=cores) as proxy:
        bench(proxy, "-c", clients, "-j", 2, "-S", "-M", protocol, seconds=LONG)
        count = bench(proxy, "-c", clients, "-j", 2, "-M", protocol, seconds=LONG)
    assert runner.cluster().check_bank() == count


@runner.cases(1, 2)
@runner.timeout(240)
def test_1000_reconnecting_clients(cores):
    """1,000 clients that connect anew for every transaction share ten connections."""
    bench_tables()
    clients = runner.scaled(1000, 100)
    with runner.fresh_proxy(cores=cores) as proxy:
        bench(proxy, "-c", clients, "-j", 2, "-C", "-S", seconds=LONG)


@runner.cases(1, 2)
@runner.timeout(120)
def test_limits_of_node_database_and_user(cores):
    """The totals of node, database and user hold together with the limit of each pool."""
    database = [
        {"name": "app", "node": "main", "max_connections": 3},
        {"name": "other", "node": "main", "max_connections": 5, "max_connections_total": 6},
    ]
    user = [
        {"name": "bench", "auth": "trust"},
        {"name": "alice", "auth": "trust"},
        {"name": "bob", "auth": "trust", "max_connections": 1},
    ]
    node = {"max_connections": 8}

    def work(proxy, name, database_name):
        with proxy.client(name, database_name) as client:
            for _ in range(runner.scaled(50, 10)):
                client.query("select pg_sleep(0.003)")

    with runner.fresh_proxy(cores=cores, node=node, database=database, user=user) as proxy:
        watches = {
            8: "true",
            3: "usename = 'bench' and datname = 'app'",
            5: "usename = 'alice' and datname = 'other'",
            6: "datname = 'other'",
            1: "usename = 'bob' and datname = 'app'",
        }
        running = {n: LimitWatch(runner.cluster(), c, 0.02) for n, c in watches.items()}
        for watch in running.values():
            watch.__enter__()
        # One pool's idle connections make room for the next pool, then all pools at once.
        pairs = [(u, d) for u in ("bench", "alice", "bob") for d in ("app", "other")]
        for pair in pairs:
            runner.in_threads([lambda p=pair: work(proxy, *p) for _ in range(6)])
        runner.in_threads([lambda p=p: work(proxy, *p) for p in pairs * 6])
        for limit, watch in running.items():
            watch.__exit__()
            watch.check(limit)


@runner.cases(1, 2)
def test_pools_share_a_full_node_by_weight(cores):
    """A pool that is always busy gives a second one its part of a full node: three of four by its weight."""
    user = [
        {"name": "alice", "auth": "trust"},
        {"name": "bob", "auth": "trust", "weight": 3},
    ]
    cluster = runner.cluster()
    stop = threading.Event()
    counts = {"alice": [], "bob": []}

    def work(proxy, name):
        with proxy.client(name) as client:
            count = 0
            while count == 0 or not stop.is_set():
                client.query("select pg_sleep(0.005)")
                count += 1
            counts[name].append(count)

    def held():
        rows = cluster.run(
            "select usename || ' ' || count(*) from pg_stat_activity"
            " where usename in ('alice', 'bob') group by usename order by usename"
        )
        return [row[0] for row in rows]

    with runner.fresh_proxy(cores=cores, node={"max_connections": 4}, user=user) as proxy:
        alice = [threading.Thread(target=work, args=(proxy, "alice")) for _ in range(8)]
        bob = [threading.Thread(target=work, args=(proxy, "bob")) for _ in range(8)]
        try:
            for thread in alice:
                thread.start()
            runner.eventually(lambda: held() == ["alice 4"], what="one pool has all")
            for thread in bob:
                thread.start()
            runner.eventually(lambda: held() == ["alice 1", "bob 3"], what="both have their part")
        finally:
            stop.set()
            for thread in alice + bob:
                thread.join()
    assert min(counts["alice"] + counts["bob"]) > 0, counts


@runner.cases(1, 2)
def test_idle_connections_make_room(cores):
    """On a full node a pool that needs connections costs another its idle ones beyond the minimum, one for each; on one
    core those that were idle for longest."""
    cluster = runner.cluster()
    database = [{"name": "app", "node": "main", "min_connections": 2}, {"name": "other", "node": "main"}]

    def pids():
        return {int(pid) for pid, _ in cluster.backends("datname = 'app'")}

    def begin(proxy, stack, database_name):
        client = stack.enter_context(proxy.client(database=database_name))
        client.query("begin")
        return client, int(client.value("select pg_backend_pid()"))

    with runner.fresh_proxy(cores=cores, node={"max_connections": 4}, database=database) as proxy:
        with contextlib.ExitStack() as stack, LimitWatch(cluster) as watch:
            owners = [begin(proxy, stack, "app") for _ in range(4)]
            for client, _ in owners:
                client.query("commit")
                time.sleep(0.05)
            order = [pid for _, pid in owners]
            askers = []
            for count in (1, 2):
                askers.append(begin(proxy, stack, "other")[0])
                runner.eventually(lambda n=count: len(pids()) == 4 - n, what="room")
                assert cores > 1 or pids() == set(order[count:]), (pids(), order)
            kept = pids()
            waiting = stack.enter_context(proxy.client(database="other"))
            waiting.send(query("select 'served'"))
            time.sleep(1)
            assert pids() == kept, (pids(), kept)
            for client, _ in owners:
                assert int(client.value("select pg_backend_pid()")) in kept
            askers[0].query("commit")
            assert waiting.result() == [["served"]]
            assert pids() == kept, (pids(), kept)
        watch.check(4)


@runner.cases(1, 2)
def test_waiters_time_out(cores):
    """A client that waits longer than acquire_timeout is told so; the others go on."""
    with runner.fresh_proxy(
        cores=cores, max_connections=1, pool={"acquire_timeout": "700ms"}
    ) as proxy:
        with proxy.client() as holder:
            waiters = [proxy.client() for _ in range(6)]
            holder.query("begin")
            for client in waiters:
                client.send(query("select 1"))
            for client in waiters:
                fields = client.recv_last_error()
                assert fields["C"] == "53300" and fields["S"] == fields["V"] == "FATAL", fields
                assert "query_wait_timeout" in fields["M"], fields
            assert holder.value("select 'still'") == "still"
            holder.query("commit")
            with proxy.client() as client:
                assert client.value("select 'next'") == "next"


@runner.cases(1, 2)
def test_login_needs_no_backend(cores):
    """Once a pool has met its server, clients log in while every backend is taken."""
    with runner.fresh_proxy(cores=cores, max_connections=1) as proxy:
        with proxy.client() as holder:
            holder.query("begin")
            clients = [proxy.client() for _ in range(10)]
            holder.query("commit")
            for client in clients:
                assert client.value("select 1") == "1"
                client.close()


@runner.cases(1, 2)
def test_waiter_that_leaves(cores):
    """A waiter that goes away gives its place up at once, and its query is never run."""
    runner.cluster().run("drop table if exists visits")
    runner.cluster().run("create table visits (x int)")
    runner.cluster().run("grant all on visits to public")
    with runner.fresh_proxy(cores=cores, max_connections=1) as proxy:
        with proxy.client() as holder, proxy.client() as patient:
            leavers = {end: proxy.client() for end in ("close", "reset", "terminate")}
            holder.query("begin")
            before = proxy.fds() - len(leavers)
            for end, gone in leavers.items():
                gone.send(query("insert into visits values (1)"))
                time.sleep(0.05)
                if end == "terminate":
                    gone.send(wire.TERMINATE)
                    gone.close()
                else:
                    getattr(gone, end)()
            patient.send(query("select count(*) from visits"))
            runner.eventually(lambda: proxy.fds() <= before, what="the waiters' descriptors closed")
            holder.query("commit")
            assert patient.result() == [["0"]]


@runner.timeout(90)
def test_oldest_waiter_first():
    """Waiters are served in the order in which they came."""
    with runner.fresh_proxy(cores=1, max_connections=1) as proxy:
        with proxy.client() as holder:
            clients = [proxy.client() for _ in range(40)]
            holder.query("begin")
            for number, client in enumerate(clients):
                client.send(query(f"select {number}, clock_timestamp()"))
                time.sleep(0.003)
            time.sleep(0.1)
            holder.query("commit")
            served = []
            for client in clients:
                ((number, when),) = client.result()
                served.append((when, int(number)))
            order = [number for _, number in sorted(served)]
            assert order == list(range(40)), order
            for client in clients:
                client.close()


@runner.timeout(90)
def test_oldest_waiter_first_over_two_cores():
    """Waiters on two cores are served oldest first, but for those that came at about the same time."""
    # A smaller pool would live on one core.
    with runner.fresh_proxy(cores=2, max_connections=3) as proxy:
        with proxy.client() as holder, proxy.client() as second, proxy.client() as third:
            clients = [proxy.client() for _ in range(40)]
            for one in (holder, second, third):
                one.query("begin")
            for number, client in enumerate(clients):
                client.send(query(f"select {number}, clock_timestamp()"))
                time.sleep(0.02)
            time.sleep(0.2)
            holder.query("commit")
            served = []
            for client in clients:
                ((number, when),) = client.result()
                served.append((when, int(number)))
            order = [number for _, number in sorted(served)]
            late = [abs(place - number) for place, number in enumerate(order)]
            assert max(late) <= 3, order
            for client in clients:
                client.close()


@runner.timeout(90)
@runner.cases(1, 3)
def test_waiters_of_two_cores_are_served_by_one_backend(connections):
    """With one backend free over two cores every client is served, wherever it waits or has moved to."""
    with runner.fresh_proxy(cores=2, max_connections=connections) as proxy:
        with LimitWatch(runner.cluster()) as watch, contextlib.ExitStack() as stack:
            for _ in range(connections - 1):
                stack.enter_context(proxy.client()).query("begin")
            clients = [proxy.client() for _ in range(40)]
            for _ in range(runner.scaled(20, 4)):
                for client in clients:
                    client.send(query("select 1"))
                for client in clients:
                    assert client.result() == [["1"]]
        watch.check(connections)
        for client in clients:
            client.close()


@runner.timeout(120)
def test_endless_pipeline_shares_its_backend():
    """A client that pipelines without end gives the only backend back like everyone else."""
    with runner.fresh_proxy(cores=1, max_connections=1) as proxy:
        greedy = proxy.client()
        stop = threading.Event()
        sent = [0]

        def feed():
            while not stop.is_set():
                greedy.send(query("select 'greedy'") * 50)
                sent[0] += 50

        def drain():
            seen = 0
            while not stop.is_set() or seen < sent[0]:
                seen += greedy.recv().kind == "Z"

        def others():
            try:
                with proxy.client() as client:
                    for number in range(runner.scaled(40, 10)):
                        assert client.value(f"select {number}") == str(number)
            finally:
                stop.set()

        runner.in_threads([feed, drain, others], 60)


# Without memory for waiting clients, and without buffers lost to those that do not read.


def serve_all(clients, wanted):
    """Reads from all clients until each has had `wanted` ReadyForQuery; errors fail."""
    selector = selectors.DefaultSelector()
    for client in clients:
        client.socket.setblocking(False)
        selector.register(client.socket, selectors.EVENT_READ, client)
        client.left = wanted
        client.pending = bytearray()
    open_clients = len(clients)
    deadline = time.monotonic() + 120
    while open_clients:
        assert time.monotonic() < deadline, f"{open_clients} clients were not served"
        for key, _ in selector.select(1):
            client = key.data
            data = client.socket.recv(65536)
            assert data, "a client was closed"
            client.pending += data
            found, rest = wire.split(client.pending)
            client.pending = bytearray(rest)
            for got in found:
                assert got.kind != "E", got.fields
                client.left -= got.kind == "Z"
            if client.left == 0:
                selector.unregister(client.socket)
                open_clients -= 1
    selector.close()


@runner.cases((1, 1), (2, 1), (2, 3))
@runner.timeout(300)
def test_starvation(cores, backends):
    """Eight buffers, 1,000 clients with a query each, 500 that never read: everyone is served."""
    talkers, mutes = runner.scaled(1000, 100), runner.scaled(500, 50)
    settings = {"client_buffers": 8, "backend_buffers": 8}
    with runner.fresh_proxy(
        cores=cores, max_connections=backends, proxy=settings, pool={"acquire_timeout": "100s"}
    ) as proxy:
        silent = [proxy.client(receive_buffer=4096) for _ in range(mutes)]
        clients = [proxy.client() for _ in range(talkers)]
        holder = [proxy.client() for _ in range(backends)]
        for client in holder:
            client.query("begin")
        for number, client in enumerate(silent):
            if number % 2:
                client.send(query("select repeat('m', 30000)"))
            else:
                client.send(query("select repeat('m', 1000)") * 15)
        for client in clients:
            client.send(query("select repeat('t', 2000)") + query("select 2"))
        for client in holder:
            client.query("commit")
        serve_all(clients, 2)
        with proxy.client() as client:
            assert client.value("select 'after'") == "after"
        serve_all(silent[1::2], 1)
        serve_all(silent[0::2], 15)
        for client in silent + clients + holder:
            client.close()
        proxy.check_memory(128 << 20)


@runner.timeout(180)
def test_memory_of_idle_clients():
    """2,000 idle clients cost little memory each, and everything goes back."""
    count = runner.scaled(2000, 100)
    with runner.fresh_proxy(cores=1) as proxy:
        first = proxy.client()
        first.query("select 1")
        before, descriptors = proxy.rss(), proxy.fds()
        clients = [proxy.client() for _ in range(count)]
        for client in clients[::10]:
            client.query("select 1")
        if not proxy.is_sanitized():
            each = (proxy.rss() - before) / count
            print(f"        {each / 1024:.1f} KiB for each idle client")
            assert each < 16 << 10, f"{each} bytes for each client"
        for client in clients:
            client.close()
        runner.eventually(lambda: proxy.fds() <= descriptors + 10, what="all descriptors closed")
        assert first.value("select 1") == "1"


if __name__ == "__main__":
    runner.main()
