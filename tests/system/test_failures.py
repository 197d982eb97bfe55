#!/usr/bin/python3
"""Faults: nodes that are down, die or lie, clients that vanish, networks that cut, peers that do not read."""

import os
import random
import signal
import struct
import subprocess
import threading
import time

from harness import cluster as cluster_module
from harness import proxy as proxy_module
from harness import runner, wire
from harness.relay import Relay, deaf_port, silent_port
from harness.wire import SYNC, bind, copy_data, execute, extended, parse, query


def first_refusal(proxy, user="bench", database="app"):
    """The fields of the FATAL that a client gets at its login or its first query."""
    with proxy.open() as conn:
        try:
            conn.login(user, database, proxy_module.CLIENTS.get(user) or "")
            conn.send(query("select 1"))
            return conn.recv_last_error()
        except wire.ServerError as error:
            return error.fields


def scripted_proxy(server, **more):
    pool = {"acquire_timeout": "10s", "connect_timeout": "5s", **more.pop("pool", {})}
    port = server if isinstance(server, int) else server.port
    configuration = proxy_module.config(None, node={"port": port}, pool=pool, **more)
    return runner.fresh_proxy(configuration)


# Nodes that are down.


@runner.cases(1, 2)
def test_node_down(cores):
    """Clients of a node that is down get FATAL 08006 with its name; it serves them when it is back."""
    port = cluster_module.free_port()
    with scripted_proxy(port, cores=cores, pool={"acquire_timeout": "3s"}) as proxy:
        for _ in range(3):
            fields = first_refusal(proxy)
            assert fields["S"] == fields["V"] == "FATAL" and fields["C"] == "08006", fields
            assert "main" in fields["M"] or str(port) in fields["M"], fields

        def can_query():
            with proxy.open() as conn:
                try:
                    conn.login("bench", "app")
                    return conn.value("select 'back'") == "back"
                except (wire.ServerError, EOFError, ConnectionError):
                    return False

        with Relay(runner.cluster().address, port=port):
            runner.eventually(can_query, what="service after the node is back")


@runner.cases(1, 2)
def test_node_returns_without_traffic(cores):
    """The return of a node is seen while nobody asks; then the first client does not wait for it."""
    port = cluster_module.free_port()
    with scripted_proxy(port, cores=cores) as proxy:
        assert first_refusal(proxy)["C"] == "08006"
        runner.eventually(lambda: "is down" in proxy.log(), what="the node is seen to be down")
        with Relay(runner.cluster().address, port=port):
            runner.eventually(lambda: "answers again" in proxy.log(), what="the node is seen to be back")
            with proxy.client() as conn:
                assert conn.value("select 1") == "1"


def check_return_of_hung_node(cores, **pool):
    port = cluster_module.free_port()
    with scripted_proxy(port, pool={"connect_timeout": "600s", **pool}, cores=cores) as proxy:
        assert first_refusal(proxy)["C"] == "08006"
        with deaf_port(port) as accepted:
            runner.eventually(lambda: len(accepted) >= 3, what="the node that hangs is asked again")
        with Relay(runner.cluster().address, port=port):
            runner.eventually(lambda: "answers again" in proxy.log(), what="the node is seen to be back")
            with proxy.client() as conn:
                assert conn.value("select 1") == "1"
        for sock in accepted:
            sock.close()


@runner.cases(1, 2)
def test_node_that_hangs(cores):
    """Beside a connect that is accepted and never answered another one sees the node's return."""
    check_return_of_hung_node(cores)


@runner.cases(1, 2)
def test_node_that_hangs_pool_of_one(cores):
    """So does a pool that may have one connection only, and has it at the node that hangs."""
    check_return_of_hung_node(cores, max_connections=1)


def test_clients_wait_for_a_node():
    """fail_fast = false: what is asked while the node is away is answered when it is back."""
    port = cluster_module.free_port()
    pool = {"acquire_timeout": "60s"}
    configuration = proxy_module.config(None, node={"port": port, "fail_fast": False}, pool=pool)
    with runner.fresh_proxy(configuration) as proxy:
        logins = [proxy.open() for _ in range(5)]
        for conn in logins:
            conn.send(wire.startup({"user": "bench", "database": "app"}))
        runner.eventually(lambda: "is down" in proxy.log(), what="the node is seen to be down")
        with Relay(runner.cluster().address, port=port):
            for conn in logins:
                conn.finish_login("bench")
                assert conn.value("select 1") == "1"
                conn.close()


def test_second_host():
    """A node of several hosts: the first that answers serves, and clients notice nothing."""
    node = {"host": "127.0.0.2,127.0.0.1", "port": runner.cluster().port}
    with runner.fresh_proxy(proxy_module.config(None, node=node)) as proxy:
        with proxy.client() as conn:
            assert conn.value("select 1") == "1"
        assert "is down" not in proxy.log()


def test_unknown_socket_directory():
    """A node behind a socket directory that does not exist gives FATAL 08006."""
    configuration = proxy_module.config(
        None, node={"host": "/nonexistent/directory"}, pool={"acquire_timeout": "3s"}
    )
    with runner.fresh_proxy(configuration) as proxy:
        assert first_refusal(proxy)["C"] == "08006"


def test_node_that_drops_packets():
    """A node that does not answer connects ends in connect_timeout; other nodes are served meanwhile."""
    configuration = proxy_module.config(runner.cluster(), pool={"connect_timeout": "1s"})
    configuration["node"].append({"name": "silent", "host": "127.0.0.1", "port": 1})
    configuration["database"].insert(0, {"name": "lost", "node": "silent"})
    with silent_port() as port:
        configuration["node"][1]["port"] = port
        with runner.fresh_proxy(configuration) as proxy:
            with proxy.client() as client, proxy.open() as conn:
                conn.start("bench", "lost")
                for number in range(100):
                    assert client.value(f"select {number}") == str(number)
                found, _ = wire.split(conn.recv_to_end(30))
                assert found[-1].kind == "E" and found[-1].fields["C"] == "08006", found


# A reply that is cut.


def answer(conn):
    conn.send(
        wire.row_description("x"), wire.data_row("ok"), wire.command_complete("SELECT 1"), wire.ready()
    )


SIMPLE_REPLY = (
    wire.row_description("number", "text")
    + wire.data_row("1", "first row")
    + wire.data_row("2", "second row")
    + wire.command_complete("SELECT 2")
    + wire.ready()
)
EXTENDED_REPLY = (
    wire.message("1") + wire.message("2") + SIMPLE_REPLY
)


def recv_cut(client):
    """What comes up to the next ReadyForQuery, or to the end."""
    data = b""
    try:
        while True:
            data += client.recv_bytes(1)
            found, half = wire.split(data)
            if not half and found and found[-1].kind == "Z":
                return data
    except (EOFError, ConnectionError):
        return data


def check_cut(proxy, request, reply, cut):
    """One client whose reply ends at byte `cut`: it sees a prefix, then a clean error or the end."""
    with proxy.client() as client:
        client.send(request)
        data = recv_cut(client)
        common = len(os.path.commonprefix([data, reply[:cut]]))
        rest = data[common:]
        # An error may begin with bytes that the reply has at the same place: step back to a boundary.
        found, half = wire.split(data)
        if cut == len(reply):
            assert data == reply, data
            assert client.value("select 'ok'") == "ok"
            return
        if len(found) > 1 and found[-2].kind == "E":
            assert not half and found[-1].kind == "Z", data
            fields = found[-2].fields
            assert fields["C"] in ("08006", "57P01") and fields["S"] == "ERROR", fields
            head = b"".join(wire.message(m.kind, m.body) for m in found[:-2])
            assert reply.startswith(head), (head, reply)
        else:
            assert not rest, f"cut at {cut}: {rest!r} is none of the reply's bytes"
            assert half or cut == 0, f"cut at {cut}, a message boundary: no error came"


@runner.cases(("simple", 1), ("simple", 2), ("extended", 1))
@runner.timeout(180)
def test_reply_cut_at_every_byte(protocol, cores):
    """A reply cut at any byte gives its client a clean prefix, and the next client a good reply."""
    reply = SIMPLE_REPLY if protocol == "simple" else EXTENDED_REPLY
    request = query("select cut") if protocol == "simple" else extended("select cut") + SYNC
    cut = [0]

    def on_query(conn, got):
        if got.kind == "Q" and "ok" in got.text:
            answer(conn)
        elif got.kind == "Q" or got.kind == "S":
            conn.send(reply[: cut[0]])
            if cut[0] < len(reply):
                raise EOFError

    def script(conn):
        if conn.read_startup():
            conn.welcome()
            conn.serve_queries(on_query)

    with wire.ScriptedServer(script) as server:
        with scripted_proxy(server, cores=cores, max_connections=2) as proxy:
            with proxy.client() as bystander:
                for cut[0] in range(len(reply) + 1):
                    check_cut(proxy, request, reply, cut[0])
                    assert bystander.value("select 'ok'") == "ok", cut[0]
        server.check()


@runner.timeout(120)
def test_reply_in_single_bytes():
    """A reply that arrives byte by byte is delivered whole."""

    def on_query(conn, _):
        for byte in SIMPLE_REPLY:
            conn.socket.sendall(bytes([byte]))

    def script(conn):
        if conn.read_startup():
            conn.welcome()
            conn.serve_queries(on_query)

    with wire.ScriptedServer(script) as server, scripted_proxy(server) as proxy:
        with proxy.client() as client:
            for _ in range(20):
                client.send(query("select 1"))
                assert client.recv_bytes(len(SIMPLE_REPLY)) == SIMPLE_REPLY
        server.check()


NONSENSE = {
    "length below four": b"D\0\0\0\3",
    "negative length": b"D\xff\xff\xff\xff",
    "unknown kind": wire.message("@", b"what"),
    "ready without a request": wire.ready() * 3 + wire.row_description("x"),
    "ready with an unknown status": wire.message("Z", b"?"),
    "ready without a status": wire.message("Z"),
    "long ready": wire.message("Z", b"IIII"),
    "authentication in the middle": wire.AUTHENTICATION_OK,
    "parse complete for a simple query": wire.message("1"),
    "error without fields": wire.message("E"),
    "unended parameter status": wire.message("S", b"half"),
    "zero bytes": b"\0" * 64,
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@runner.cases(*NONSENSE)
def test_node_that_sends_nonsense(name):
    """Nonsense from a node ends its connection, never the proxy, and never reaches another client."""

    def on_query(conn, got):
        if "ok" in got.text:
            answer(conn)
        else:
            conn.send(NONSENSE[name])
            conn.socket.settimeout(0.5)
            conn.socket.recv(100)

    def script(conn):
        if conn.read_startup():
            conn.welcome()
            conn.serve_queries(on_query)

    with wire.ScriptedServer(script) as server, scripted_proxy(server, max_connections=1) as proxy:
        for _ in range(3):
            with proxy.client() as client:
                client.send(query("select nonsense"))
                try:
                    while client.recv(3).kind not in "ZE":
                        pass
                except (EOFError, ConnectionError, wire.ProtocolError, TimeoutError, ValueError):
                    pass
            with proxy.client() as following:
                assert following.value("select 'ok'") == "ok"


def test_unasked_messages_of_an_idle_node():
    """What a node sends to an idle connection reaches no client; an error closes it quietly."""
    conns = []

    def script(conn):
        if conn.read_startup():
            conns.append(conn)
            conn.welcome()
            conn.serve_queries(lambda c, got: answer(c))

    unasked = [
        wire.parameter_status("TimeZone", "Mars/North"),
        wire.message("N", b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0"),
        wire.message("A", struct.pack("!I", 1) + b"channel\0payload\0"),
        wire.error_response("57P01", "terminating connection", "FATAL"),
        wire.data_row("stray"),
        wire.ready(),
    ]
    with wire.ScriptedServer(script) as server, scripted_proxy(server, max_connections=1) as proxy:
        for data in unasked:
            with proxy.client() as client:
                assert client.value("select 1") == "ok"
                conns[-1].send(data)
                time.sleep(0.05)
                with proxy.client() as following:
                    following.send(query("select 2"))
                    found = following.recv_until("Z")
                    assert wire.rows(found) == [["ok"]] and wire.kinds(found) == "TDCZ", found
        server.check()


# Lost backends.


@runner.cases(("idle", 1), ("idle", 2), ("query", 1), ("transaction", 1), ("query", 2))
def test_terminated_backend(state, cores):
    """A terminated backend fails its own client with 57P01 or 08006, and no other."""
    proxy = runner.proxy(cores=cores, max_connections=2)
    with proxy.client() as victim, proxy.client() as other:
        if state != "idle":
            victim.query("begin")
        pid = victim.value("select pg_backend_pid()")
        if state == "query":
            victim.send(query("select pg_sleep(30)"))
            runner.eventually(
                lambda: runner.cluster().backends(f"pid = {pid} and query like '%sleep%'")
            )
        runner.cluster().run(f"select pg_terminate_backend({pid}, 5000)")
        if state == "idle":
            assert victim.value("select 'unharmed'") == "unharmed"
        else:
            if state == "transaction":
                victim.send(query("select 1"))
            (fields,) = wire.errors(victim.recv_until("Z"))
            assert fields["C"] in ("57P01", "08006") and fields["S"] == "ERROR", fields
            victim.query("rollback")
            assert victim.value("select 'unharmed'") == "unharmed"
        assert other.value("select 'other'") == "other"


@runner.cases(1, 2)
def test_lost_backend_in_a_batch(cores):
    """A backend that dies in the middle of a pipeline: all that it had to answer gets an error."""
    proxy = runner.proxy(cores=cores, max_connections=1)
    for _ in range(3):
        with proxy.client() as victim:
            victim.send((extended("select 1") + SYNC) * 5)
            victim.send(extended("select pg_terminate_backend(pg_backend_pid())") + SYNC)
            victim.send((extended("select 2") + SYNC) * 5)
            found = []
            for _ in range(11):
                found += victim.recv_until("Z")
            codes = {fields["C"] for fields in wire.errors(found)}
            assert codes and codes <= {"57P01", "08006"}, found
            assert victim.value("select 'own'") == "own"
        with proxy.client() as following:
            assert following.value("select 'next'") == "next"


# Faults under load.


class Load:
    """pgbench again and again in several processes, against the proxy or a relay before it."""

    def __init__(self, address, count=4, clients=4, protocols=("simple", "extended")):
        self.address = address
        self.processes = set()
        self.lock = threading.Lock()
        self.stop_event = threading.Event()
        self.finished = 0
        self.transactions = 0
        self.threads = [
            threading.Thread(
                target=self._run, args=(clients, protocols[i % len(protocols)]), daemon=True
            )
            for i in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, clients, protocol):
        host, port = self.address
        command = ["pgbench", "-n", "-c", str(clients), "-T", "2", "-M", protocol]
        command += ["-h", host, "-p", str(port), "-U", "bench", "bench"]
        environment = {**os.environ, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable"}
        while not self.stop_event.is_set():
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                text=True,
            ) as process:
                with self.lock:
                    self.processes.add(process)
                out, _ = process.communicate()
                with self.lock:
                    self.processes.discard(process)
            for line in out.splitlines():
                if "actually processed:" in line:
                    self.transactions += int(line.split(":")[1].split("/")[0])
            self.finished += 1
            if process.returncode:
                time.sleep(0.1)

    def kill_one(self):
        with self.lock:
            if self.processes:
                random.choice(list(self.processes)).kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop_event.set()
        for thread in self.threads:
            thread.join(15)
        with self.lock:
            for process in self.processes:
                process.kill()


def bank():
    cluster = runner.cluster()
    if not cluster.run("select 1 from pg_class where relname = 'pgbench_history'", "bench"):
        cluster.make_bench(2)
    return cluster


def check_after_fault(proxy, settled_fds=None):
    """The proxy serves as before, the server's connections are within the limit, the books right."""
    cluster = runner.cluster()
    with proxy.client("bench", "bench") as client:
        for number in range(20):
            assert client.value(f"select {number}") == str(number)
    _, _, count = proxy_module.pgbench(proxy, ["-c", "8", "-T", "1"])
    assert count > 0
    assert len(cluster.backends("datname = 'bench'")) <= 6
    assert cluster.check_bank() > 0
    if settled_fds is not None:
        runner.eventually(lambda: proxy.fds() <= settled_fds + 25, what="descriptors closed")


def survive(fault, cores, seconds=4, before_proxy=False, behind_proxy=False, pause=0.05):
    """Runs a load, calls `fault(load, relay)` again and again meanwhile, then checks everything."""
    cluster = bank()
    seconds *= max(0.4, runner.load())
    node_relay = Relay(cluster.address) if behind_proxy else None
    node = {"port": node_relay.port} if node_relay else None
    with runner.fresh_proxy(cores=cores, max_connections=6, node=node) as proxy:
        base = proxy.fds()
        client_relay = Relay(proxy.address) if before_proxy else None
        with Load(client_relay.address if client_relay else proxy.address) as load:
            with cluster_module.LimitWatch(cluster, "datname = 'bench'") as watch:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    fault(load, client_relay or node_relay)
                    time.sleep(random.uniform(0, 2 * pause))
                    proxy.check()
            if not behind_proxy:
                watch.check(6)
        if client_relay:
            client_relay.stop()
        check_after_fault(proxy, base)
        assert load.finished > 0
    if node_relay:
        node_relay.stop()


@runner.cases(1, 2)
@runner.timeout(120)
def test_terminations_under_load(cores):
    """pg_terminate_backend of random backends under load fails their clients only; books are right."""

    def fault(*_):
        runner.cluster().run(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'bench'"
            " and backend_type = 'client backend' order by random() limit 1"
        )

    survive(fault, cores)


@runner.cases(1, 2)
@runner.timeout(120)
def test_clients_cut_under_load(cores):
    """Client connections cut at random under load leave no backend, descriptor or half booking."""
    survive(lambda load, relay: relay.cut_one(), cores, before_proxy=True)


@runner.cases(1, 2)
@runner.timeout(120)
def test_servers_cut_under_load(cores):
    """Server connections cut at random under load fail their clients only."""
    survive(lambda load, relay: relay.cut_one(), cores, behind_proxy=True)


@runner.cases(1, 2)
@runner.timeout(120)
def test_clients_killed_under_load(cores):
    """Clients killed by SIGKILL at random under load leave nothing behind."""
    survive(lambda load, relay: load.kill_one(), cores, pause=0.2)


@runner.cases(1, 2)
@runner.timeout(150)
def test_backend_killed_under_load(cores):
    """kill -9 of a backend, which restarts all of PostgreSQL, is survived; books are right."""
    cluster = bank()
    with runner.fresh_proxy(cores=cores, max_connections=6) as proxy:
        with Load(proxy.address) as load:
            runner.eventually(lambda: cluster.backends("usename = 'bench'"))
            for _ in range(2):
                time.sleep(1)
                pids = cluster.backends("usename = 'bench'")
                if pids:
                    os.kill(int(pids[0][0]), signal.SIGKILL)
                time.sleep(0.5)
                cluster.wait_ready()
            time.sleep(1)
        wait_served(proxy)
        check_after_fault(proxy)
        assert load.finished > 0


@runner.cases(1, 2)
@runner.timeout(150)
def test_fast_restart_under_load(cores):
    """A fast restart of the server under load fails what runs; then everything goes on."""
    cluster = bank()
    with runner.fresh_proxy(cores=cores, max_connections=6) as proxy:
        with Load(proxy.address), proxy.client("bench", "bench") as idle:
            assert idle.value("select 1") == "1"
            time.sleep(1)
            cluster.restart()
            wait_served(proxy)
            assert idle.value("select 'survived'") == "survived"
            time.sleep(1)
        check_after_fault(proxy)


def wait_served(proxy):
    def is_served():
        with proxy.open() as conn:
            try:
                conn.login("bench", "bench")
                return conn.value("select 'up'") == "up"
            except (wire.ServerError, EOFError, ConnectionError):
                return False

    runner.eventually(is_served, 40, "service after the restart")


# Clients that die, lie or do not read.


def states():
    """Name -> function that brings a client into a state."""
    copying = "copy (select repeat('x', 1000) from generate_series(1, 20000)) to stdout"
    return {
        "idle": lambda c: None,
        "half a header": lambda c: c.send(b"Q\0"),
        "half a query": lambda c: c.send(query("select 'half of it'")[:12]),
        "half a large query": lambda c: c.send(query("select '" + "h" * 300000 + "'")[:200000]),
        "query running": lambda c: c.send(query("select pg_sleep(0.3)")),
        "batch without sync": lambda c: c.send(extended("select 1")),
        "failed batch without sync": lambda c: c.send(parse("bad") + bind() + execute()),
        "flushed batch": lambda c: (c.send(extended("select 1"), wire.FLUSH), c.recv_until("C")),
        "in a transaction": lambda c: c.query("begin"),
        "in a failed transaction": lambda c: (c.query("begin"), c.error_of("bad")),
        "pipeline running": lambda c: c.send((extended("select pg_sleep(0.02)") + SYNC) * 10),
        "large reply": lambda c: c.send(query("select repeat('r', 1000) from generate_series(1, 9999)")),
        "copy in": lambda c: (c.send(query("copy dying from stdin")), c.recv_until("G")),
        "half a copy row": lambda c: (
            c.send(query("copy dying from stdin")),
            c.recv_until("G"),
            c.send(copy_data(b"row" * 1000)[:99]),
        ),
        "copy out": lambda c: (c.send(query(copying)), c.recv_until("d")),
        "named statement": lambda c: (c.send(parse("select 1", "n"), SYNC), c.recv_until("Z")),
    }


def check_bystander(bystander, what):
    """Another client finds nothing of a broken client's work, in a backend that is idle."""
    bystander.send(query("select count(*) from dying"))
    try:
        found = bystander.recv_until("Z")
    except (TimeoutError, EOFError, ConnectionError) as error:
        raise AssertionError(f"another client is not served after: {what}: {error}") from error
    assert wire.rows(found) == [["0"]], (what, found)
    assert found[-1].body == b"I", what


def dying_table():
    runner.cluster().run("create table if not exists dying (x text)")
    runner.cluster().run("grant all on dying to public")


@runner.cases(1, 2)
@runner.timeout(120)
def test_client_dies_in_every_state(cores):
    """A client may end in any state and any way: the only backend, or a new one, serves the next."""
    dying_table()
    with runner.fresh_proxy(cores=cores, max_connections=1) as proxy:
        with proxy.client() as bystander:
            bystander.value("select 1")
            base = proxy.fds()
            for name, bring in states().items():
                for end in ("close", "reset", "terminate"):
                    client = proxy.client()
                    bring(client)
                    if end == "terminate":
                        client.send(wire.TERMINATE)
                        client.close()
                    else:
                        getattr(client, end)()
                    check_bystander(bystander, f"{name}, then {end}")
            runner.eventually(lambda: proxy.fds() <= base + 2, what="all descriptors closed")


@runner.cases(1, 2)
@runner.timeout(60)
def test_lost_client_costs_no_backend(cores):
    """What a client leaves is cancelled and rolled back; its server process serves the next one."""
    dying_table()
    ways = {n: w for n, w in states().items() if not n.startswith(("half", "copy in"))}
    insert = extended("insert into dying values ('left')")
    ways["query running"] = lambda c: c.send(query("select pg_sleep(50)"))
    ways["insert without sync"] = lambda c: (c.send(insert, wire.FLUSH), c.recv_until("C"))
    ways["insert, and a query that runs"] = lambda c: (
        c.query("begin; insert into dying values ('left')"),
        c.send(query("select pg_sleep(50)")),
    )
    ways["insert, and a batch that runs"] = lambda c: c.send(insert, extended("select pg_sleep(50)"))
    with runner.fresh_proxy(cores=cores, max_connections=1) as proxy:
        with proxy.client() as bystander:
            pid = bystander.value("select pg_backend_pid()")
            for name, bring in ways.items():
                for end in ("close", "reset"):
                    client = proxy.client()
                    bring(client)
                    getattr(client, end)()
                    check_bystander(bystander, f"{name}, then {end}")
                    assert bystander.value("select pg_backend_pid()") == pid, (name, end)


MALFORMED = {
    "length 0": b"Q\0\0\0\0",
    "length 3": b"Q\0\0\0\3",
    "length 2 GB": b"Q\x7f\xff\xff\xff",
    "negative length": b"Q\x80\0\0\0",
    "unknown kind": wire.message("@", b"what"),
    "kind zero": b"\0" * 20,
    "server's message": wire.row_description("x"),
    "password late": wire.message("p", b"secret\0"),
    "long sync": wire.message("S", b"x" * 100),
    "long flush": wire.message("H", b"x" * 100),
    "tls": b"\x16\x03\x01\x02\0\1\0\1\xfc\3\3" + b"r" * 32,
}


@runner.cases(1, 2)
@runner.timeout(180)
def test_malformed_messages_in_every_state(cores):
    """Messages that break the protocol end their client, in any state, and harm no other."""
    dying_table()
    with runner.fresh_proxy(cores=cores, max_connections=1) as proxy:
        with proxy.client() as bystander:
            for state, bring in states().items():
                if state.startswith("half"):
                    continue
                for name, data in MALFORMED.items():
                    client = proxy.client()
                    bring(client)
                    client.send(data)
                    if name == "length 2 GB" or name.startswith("long "):
                        # Not broken yet, or something the server answers: only nobody may be harmed.
                        client.close()
                    else:
                        check_broken(client, state, name)
                    check_bystander(bystander, f"{state}, then {name}")


def check_broken(client, state, name):
    """The client is closed, after FATAL 08P01 when it stands at a message boundary."""
    try:
        data = client.recv_to_end()
    except TimeoutError:
        raise AssertionError(f"{name} in state '{state}': the client is not closed") from None
    found, _ = wire.split(data)
    fatal = [f for f in wire.errors(found) if f["S"] == "FATAL"]
    assert all(f["C"] == "08P01" for f in fatal), (state, name, fatal)
    if state in ("idle", "in a transaction"):
        assert fatal, f"{name} in state '{state}': no error"


@runner.timeout(120)
def test_malformed_bodies():
    """Well framed messages with broken bodies are answered by the server, or end their client."""
    bodies = {
        "query without zero": wire.message("Q", b"select 1"),
        "empty query body": wire.message("Q"),
        "query with two zeros": wire.message("Q", b"select 1\0select 2\0"),
        "parse without zero": wire.message("P", b"name"),
        "parse without types": wire.message("P", b"\0select 1\0"),
        "bind without anything": wire.message("B"),
        "bind with too many values": wire.message("B", b"\0\0\0\0\xff\xff"),
        "describe nothing": wire.message("D"),
        "describe an unknown kind": wire.message("D", b"X\0"),
        "close nothing": wire.message("C"),
        "execute nothing": wire.message("E"),
        "call nothing": wire.message("F"),
        "copy fail without zero": wire.message("f", b"x"),
    }
    with runner.fresh_proxy(max_connections=1) as proxy:
        with proxy.client() as bystander:
            for name, data in bodies.items():
                client = proxy.client()
                client.send(data, SYNC, query("select 'own'"))
                check_answered(client, name)
                client.close()
                assert bystander.value("select 'fine'") == "fine", name


def check_answered(client, name):
    """The client gets the answer to its last query, or FATAL and the end of its connection."""
    found = []
    try:
        while ["own"] not in wire.rows(found):
            found.append(client.recv())
    except EOFError:
        assert [f["S"] for f in wire.errors(found)][-1:] == ["FATAL"], (name, found)
    except TimeoutError:
        raise AssertionError(f"{name}: neither an answer nor the end: {found}") from None


@runner.timeout(120)
def test_random_bytes():
    """Clients that send random bytes, before and after the login, harm nobody."""
    chance = random.Random(7)
    with runner.fresh_proxy(max_connections=2) as proxy:
        with proxy.client() as bystander:
            for turn in range(runner.scaled(150, 30)):
                conn = proxy.client() if turn % 2 else proxy.open()
                data = chance.randbytes(chance.randrange(1, 3000))
                if turn % 4 == 3:
                    kind = chance.choice("QPBDECSHFdcfXp@")
                    data = wire.message(kind, data)
                try:
                    conn.send(data)
                    conn.send(SYNC)
                except OSError:
                    pass
                conn.close()
                assert bystander.value(f"select {turn}") == str(turn)


@runner.cases(1, 2)
@runner.timeout(120)
def test_clients_that_stop_reading(cores):
    """Clients that stop reading large results cost little memory, and others are served."""
    with runner.fresh_proxy(cores=cores, max_connections=8) as proxy:
        silent = [proxy.client(receive_buffer=4096) for _ in range(6)]
        with proxy.client() as other:
            for client in silent:
                client.send(query("select repeat('s', 1000) from generate_series(1, 50000)"))
            for number in range(200):
                assert other.value(f"select {number}") == str(number)
            before = proxy.rss()
            time.sleep(0.5)
            # No more than each core's set of receive buffers, 256 of 64 KiB, and some: not the 300 MB of results.
            assert proxy.is_sanitized() or proxy.rss() - before < (16 * cores + 4) << 20
            cpu = proxy.cpu()
            time.sleep(1)
            assert proxy.cpu() - cpu < 0.3, "waiting for slow readers costs CPU"
            for client in silent[:3]:
                assert len(client.result()) == 50000
            for client in silent[3:]:
                client.reset()
            assert other.value("select 'after'") == "after"
        # Each core's receive buffers may all be full before their sockets are stopped, and are copied when they are
        # needed for others.
        proxy.check_memory((16 + 48 * cores) << 20)
        runner.eventually(
            lambda: not runner.cluster().backends("state = 'active' and pid <> pg_backend_pid()")
        )


@runner.timeout(60)
def test_client_that_sends_but_never_reads():
    """A client that pipelines and never reads is held back; memory stays flat."""
    with runner.fresh_proxy(max_connections=2) as proxy:
        client = proxy.client(receive_buffer=4096)
        client.socket.setblocking(False)
        piece = query("select repeat('p', 5000)") * 20
        end = time.monotonic() + 4
        while time.monotonic() < end:
            try:
                client.socket.send(piece)
            except BlockingIOError:
                time.sleep(0.01)
        with proxy.client() as other:
            assert other.value("select 'other'") == "other"
        proxy.check_memory()
        client.close()


if __name__ == "__main__":
    runner.main()
