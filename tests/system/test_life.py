#!/usr/bin/python3
"""The life of the process: arguments, configuration errors, start, signals, limits of the system."""

import ctypes
import os
import platform
import re
import resource
import signal
import socket
import struct
import subprocess
import tempfile
import time

from harness import proxy as proxy_module
from harness import runner, wire
from harness.cluster import LimitWatch
from harness.proxy import run_once
from harness.wire import query


def write_config(directory, text):
    path = f"{directory}/heliosproxy.toml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def usual_toml():
    return proxy_module.to_toml(proxy_module.config(None, node={"port": 5432}))


# Arguments and configuration.


def test_version_and_help():
    """--version names the program and its version, --help every option; both exit with 0."""
    code, out, _ = run_once(["--version"])
    assert code == 0 and re.search(r"heliosproxy.* \d+\.\d+", out), out
    code, out, _ = run_once(["--help"])
    assert code == 0, code
    for option in ("--config", "--check-config", "--version", "--help"):
        assert option in out, out


def test_wrong_usage():
    """Wrong arguments exit with 2 and say what is wrong."""
    for arguments, word in (
        (["--no-such-option"], "--no-such-option"),
        (["--config"], "--config"),
        (["stray"], "stray"),
        (["--config", "/nonexistent/file.toml"], "/nonexistent/file.toml"),
        (["--check-config", "--config", "/nonexistent/file.toml"], "/nonexistent/file.toml"),
    ):
        code, out, err = run_once(arguments)
        assert code == 2, (arguments, code, out, err)
        assert word in err, (arguments, err)


def test_check_config():
    """--check-config accepts a good file without starting anything."""
    with tempfile.TemporaryDirectory(prefix="helios-") as directory:
        path = write_config(directory, usual_toml())
        code, out, err = run_once(["--check-config", "--config", path])
        assert code == 0, (out, err)


BAD_CONFIGS = {
    "no TOML": ("[proxy\nlisten = 1\n", ""),
    "unknown key": ('[proxy]\nlistn = ["127.0.0.1:1"]\n', "listen"),
    "unknown table": ("[prxy]\ncores = 1\n", "proxy"),
    "wrong type": ('[proxy]\ncores = "many"\n', "cores"),
    "out of range": ("[proxy]\nmax_clients = -1\n", "max_clients"),
    "no unit": ("[pool]\nidle_timeout = 30\n", "idle_timeout"),
    "unknown unit": ('[pool]\nidle_timeout = "30 parsecs"\n', "idle_timeout"),
    "unknown mode": ('[pool]\nmode = "sometimes"\n', "mode"),
    "limits crossed": ("[pool]\nmin_connections = 20\nmax_connections = 10\n", "min_connections"),
    "unknown node": ('[[database]]\nname = "a"\nnode = "nowhere"\n', "nowhere"),
    "bad address": ('[proxy]\nlisten = ["nonsense"]\n', "listen"),
    "unset variable": ('[proxy]\nlisten = ["${HELIOS_NOT_SET_ANYWHERE}"]\n', "HELIOS_NOT_SET"),
}


@runner.cases(*BAD_CONFIGS)
def test_bad_configuration(name):
    """A bad configuration exits with 2 and names the place, checked or started."""
    text, word = BAD_CONFIGS[name]
    with tempfile.TemporaryDirectory(prefix="helios-") as directory:
        path = write_config(directory, text)
        for arguments in (["--check-config", "--config", path], ["--config", path]):
            code, out, err = run_once(arguments)
            assert code == 2, (arguments, code, out, err)
            assert word in err and "heliosproxy.toml" in err, err


def test_environment_in_the_configuration():
    """Values come from the environment where the file says so."""
    configuration = proxy_module.config(runner.cluster())
    configuration["user"] = [{"name": "app", "password": "${HELIOS_TEST_SECRET}"}]
    os.environ["HELIOS_TEST_SECRET"] = "app-secret"
    try:
        with runner.fresh_proxy(configuration) as proxy, proxy.client("app") as client:
            assert client.value("select 1") == "1"
    finally:
        del os.environ["HELIOS_TEST_SECRET"]


# Start.


def test_address_in_use():
    """An address in use is named at start, with exit code 1, also when another proxy holds it."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        configuration = proxy_module.config(runner.cluster())
        configuration["proxy"]["listen"] = [f"127.0.0.1:{port}"]
        check_no_start(configuration, f"127.0.0.1:{port}")
    with runner.fresh_proxy(cores=2) as running:
        check_no_start(running.configuration, running.configuration["proxy"]["listen"][0])
        for _ in range(8):
            with running.client() as client:
                assert client.value("select 1") == "1"


def check_no_start(configuration, word, preexec=None, arguments=()):
    """The proxy must end by itself with exit code 1 and say `word`: its log."""
    proxy = proxy_module.Proxy(configuration, arguments, preexec, wait=False)
    try:
        code = proxy.wait(20)
        text = proxy.log()
        proxy.check_log()
    finally:
        proxy.kill()
    assert code == 1, f"exit code {code}: {text}"
    assert word in text, f"{word!r} is not in: {text}"
    return text


def is_refused(path):
    """Nobody listens on this unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
    return False


def test_unix_socket_in_use_and_stale():
    """A unix socket on which somebody answers is refused, a stale file is replaced."""
    with tempfile.TemporaryDirectory(prefix="helios-") as directory:
        configuration = proxy_module.config(runner.cluster())
        configuration["proxy"]["listen"].append("unix:" + directory)
        first = runner.fresh_proxy(configuration)
        path = first.socket_path
        second = proxy_module.config(runner.cluster())
        second["proxy"]["listen"].append("unix:" + directory)
        if os.path.basename(path).endswith(configuration["proxy"]["listen"][0].split(":")[1]):
            second["proxy"]["listen"][0] = configuration["proxy"]["listen"][0]
        check_no_start(second, "in use")
        first.signal(signal.SIGKILL)
        first.wait()
        first.kill()
        assert os.path.exists(path), "a killed process leaves its socket behind"
        # The kernel takes the killed process's ring apart in the background: its sockets still accept for a moment.
        runner.eventually(lambda: is_refused(path), what="the killed process's socket is gone")
        with runner.fresh_proxy(configuration) as proxy:
            with wire.Conn(proxy.socket_path) as conn:
                conn.login("bench", "app")
                assert conn.value("select 1") == "1"
        assert not os.path.exists(path), "a clean end removes the socket"


def test_too_few_descriptors():
    """A hard limit of descriptors too low for max_clients is told at start."""
    configuration = proxy_module.config(runner.cluster(), proxy={"max_clients": 1000})
    preexec = proxy_module.limit_descriptors(300)
    if os.geteuid() == 0:
        # Root may raise its own hard limit, unless it lacks the capability.
        if platform.machine() != "x86_64":
            raise runner.Skip("the numbers of the system calls are not known here")
        plain = preexec

        def preexec():  # pylint: disable=function-redefined
            plain()
            drop_capability_to_raise_limits()

    text = check_no_start(configuration, "300", preexec)
    assert "descriptor" in text and "max_clients" in text, text


def drop_capability_to_raise_limits():
    """Drops CAP_SYS_RESOURCE: from the bounding set, and for the process itself."""
    libc = ctypes.CDLL(None)
    cap_sys_resource, pr_capbset_drop = 24, 24
    libc.prctl(pr_capbset_drop, cap_sys_resource, 0, 0, 0)
    header = struct.pack("Ii", 0x20080522, 0)
    buffer = ctypes.create_string_buffer(24)
    libc.syscall(125, header, buffer)
    words = list(struct.unpack("6I", buffer.raw))
    for index in (0, 1, 2):
        words[index] &= ~(1 << cap_sys_resource)
    libc.syscall(126, header, struct.pack("6I", *words))


def test_soft_descriptor_limit_is_raised():
    """A low soft limit of descriptors is raised by the program itself."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    preexec = proxy_module.limit_descriptors(64, hard)
    with runner.fresh_proxy(preexec=preexec, proxy={"max_clients": 500}) as proxy:
        clients = [proxy.client() for _ in range(150)]
        for client in clients:
            client.close()


@runner.timeout(60)
def test_descriptors_run_out():
    """When descriptors run out the process neither spins nor dies, and serves again later."""
    with runner.fresh_proxy(cores=1, proxy={"max_clients": 400}) as proxy:
        with proxy.client() as client:
            client.value("select 1")
            used = proxy.fds()
            try:
                hard = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)[1]
                resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (used + 10, hard))
            except PermissionError as error:
                raise runner.Skip("no right to limit the descriptors of the proxy") from error
            waiting = []
            for _ in range(40):
                waiting.append(proxy.open())
            time.sleep(0.3)
            before = proxy.cpu()
            time.sleep(2)
            spent = proxy.cpu() - before
            assert spent < 0.6, f"{spent} s of CPU in 2 s with nothing to do"
            assert client.value("select 'alive'") == "alive"
            for conn in waiting:
                conn.close()

            def can_login():
                try:
                    with wire.Conn(proxy.address, timeout=2) as conn:
                        conn.login("bench", "app")
                        return conn.value("select 1") == "1"
                except (OSError, EOFError, wire.ServerError):
                    return False

            runner.eventually(can_login, what="service after the descriptors came back")


# io_uring.


def refuse_io_uring(error):
    """A preexec after which io_uring_setup fails with `error`, as under a container's seccomp filter."""
    nr_io_uring_setup = 425
    load_nr = struct.pack("HBBI", 0x20, 0, 0, 0)
    if_setup = struct.pack("HBBI", 0x15, 0, 1, nr_io_uring_setup)
    fail = struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | error)
    allow = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
    program = ctypes.create_string_buffer(load_nr + if_setup + fail + allow, 32)

    class Filter(ctypes.Structure):
        _fields_ = [("count", ctypes.c_ushort), ("program", ctypes.c_void_p)]

    held = Filter(4, ctypes.cast(program, ctypes.c_void_p))

    def apply():
        libc = ctypes.CDLL(None, use_errno=True)
        pr_set_no_new_privs, pr_set_seccomp, filter_mode = 38, 22, 2
        if libc.prctl(pr_set_no_new_privs, 1, 0, 0, 0):
            os._exit(99)
        if libc.prctl(pr_set_seccomp, filter_mode, ctypes.byref(held), 0, 0):
            os._exit(98)

    apply.held = (held, program)
    return apply


@runner.cases(1, 38, 12)
def test_io_uring_refused(error):
    """When io_uring is refused the program ends with 1 and names the call, the error and the cures."""
    if platform.machine() not in ("x86_64", "aarch64"):
        raise runner.Skip("the number of the system call is not known here")
    configuration = proxy_module.config(runner.cluster())
    text = check_no_start(configuration, "io_uring", refuse_io_uring(error))
    names = {1: "EPERM", 38: "ENOSYS", 12: "ENOMEM"}
    assert names[error] in text or os.strerror(error) in text, text
    if error == 1:
        assert "kernel.io_uring_disabled" in text and "seccomp" in text, text


def test_features_are_told():
    """One line at start says which features of the ring are on."""
    with runner.fresh_proxy() as proxy:
        with proxy.client() as client:
            client.value("select 1")
        lines = [line for line in proxy.log().splitlines() if "io_uring" in line]
        assert lines, proxy.log()


@runner.cases(1, 2)
def test_with_the_features_of_6_1(cores):
    """With the features of kernel 6.1 only, everything works as before."""
    configuration = proxy_module.config(runner.cluster(), cores=cores, max_connections=3)
    with runner.fresh_proxy(configuration, ["--io-features-off", "kernel_6_1"]) as proxy:

        def work(number):
            with proxy.client() as client:
                for turn in range(20):
                    text = f"{number}.{turn}"
                    assert client.execute("select $1, repeat('k', 3000)", [text])[0][0] == text

        runner.in_threads([lambda n=n: work(n) for n in range(20)])


def test_unknown_feature_name():
    """An unknown name of a feature does not start the program."""
    configuration = proxy_module.config(runner.cluster())
    proxy = proxy_module.Proxy(
        configuration, ["--io-features-off", "no_such_feature"], wait=False
    )
    try:
        assert proxy.wait(20) in (1, 2)
        assert "no_such_feature" in proxy.log()
    finally:
        proxy.kill()


def test_threads():
    """There is one thread for each core and few others."""
    for cores in (1, 2):
        with runner.fresh_proxy(cores=cores) as proxy:
            assert cores <= proxy.threads() <= cores + 4, proxy.threads()


def test_idle_costs_nothing():
    """An idle proxy with connected clients uses next to no CPU."""
    with runner.fresh_proxy(cores=2) as proxy:
        clients = [proxy.client() for _ in range(50)]
        for client in clients:
            client.query("select 1")
        before = proxy.cpu()
        time.sleep(2)
        spent = proxy.cpu() - before
        assert spent < 0.3, f"{spent} s of CPU in 2 idle seconds"


# End.


@runner.cases((signal.SIGTERM, 1), (signal.SIGTERM, 2), (signal.SIGINT, 1))
def test_signal_finishes_transactions(number, cores):
    """SIGTERM lets running transactions end, refuses new clients, and exits with 0."""
    with runner.fresh_proxy(cores=cores, max_connections=4) as proxy:
        busy, running, idle = proxy.client(), proxy.client(), proxy.client()
        idle.query("select 1")
        busy.query("begin")
        running.send(query("select pg_sleep(1), 'done'"))
        runner.eventually(lambda: runner.cluster().backends("query like '%pg_sleep(1)%'"))
        proxy.signal(number)
        fields = idle.recv_last_error(10)
        assert fields["C"] == "57P01" and fields["S"] == "FATAL", fields
        check_refuses(proxy)
        assert busy.value("select 'still in it'") == "still in it"
        assert running.result() == [["", "done"]]
        assert proxy.process.poll() is None, "ended with a transaction open"
        busy.query("commit")
        proxy.finish(proxy.wait(20))


def check_refuses(proxy):
    """New clients are refused: by the connect, by an end of file, or by FATAL 57P01 or 57P03."""
    try:
        with proxy.open() as conn:
            conn.login("bench", "app")
        raise AssertionError("a new client got in")
    except wire.ServerError as error:
        assert error.code in ("57P01", "57P03"), error
    except (OSError, EOFError):
        pass


def test_signal_ends_waiters():
    """Clients that wait for a backend when SIGTERM comes are told 57P01, or still served."""
    with runner.fresh_proxy(max_connections=1) as proxy:
        holder, waiter = proxy.client(), proxy.client()
        holder.query("begin")
        waiter.send(query("select 'served'"))
        time.sleep(0.1)
        proxy.signal(signal.SIGTERM)
        time.sleep(0.1)
        holder.query("commit")
        found, rest = wire.split(waiter.recv_to_end(10))
        assert not rest and found, found
        assert wire.rows(found) == [["served"]] or found[-1].fields["C"] == "57P01", found
        proxy.finish(proxy.wait(20))


@runner.cases((signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT))
def test_second_signal(first, second):
    """A second signal stops at once, with transactions open; they are rolled back."""
    runner.cluster().run("create table if not exists cut_short (x int)")
    runner.cluster().run("grant all on cut_short to public")
    with runner.fresh_proxy(cores=2, max_connections=2) as proxy:
        busy, sleeping = proxy.client(), proxy.client()
        busy.query("begin; insert into cut_short values (1)")
        sleeping.send(query("select pg_sleep(60)"))
        runner.eventually(lambda: runner.cluster().backends("query like '%pg_sleep(60)%'"))
        proxy.signal(first)
        time.sleep(0.3)
        assert proxy.process.poll() is None
        began = time.monotonic()
        proxy.signal(second)
        proxy.finish(proxy.wait(10))
        assert time.monotonic() - began < 5
        for client in (busy, sleeping):
            found, _ = wire.split(client.recv_to_end(5))
            assert all(f["C"] == "57P01" for f in wire.errors(found)), found
        assert runner.cluster().value("select count(*) from cut_short") == "0"


def test_drain_timeout():
    """Transactions that do not end within drain_timeout are cut, and the exit is clean."""
    with runner.fresh_proxy(max_connections=2, proxy={"drain_timeout": "1s"}) as proxy:
        busy = proxy.client()
        busy.query("begin")
        proxy.signal(signal.SIGTERM)
        fields = busy.recv_last_error(15)
        assert fields["C"] == "57P01", fields
        proxy.finish(proxy.wait(15))


@runner.timeout(90)
def test_signal_under_load():
    """SIGTERM under a load of queries ends cleanly, within the time of its transactions."""
    for cores in (1, 2):
        with runner.fresh_proxy(cores=cores, max_connections=3) as proxy:
            words = ["pgbench", "-n", "-c", "30", "-T", "30", "-f", "/dev/stdin"]
            with subprocess.Popen(
                [*words, *proxy.bench_arguments("app")],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable"},
            ) as load:
                load.stdin.write(b"begin;\nselect 1;\nselect pg_sleep(0.005);\ncommit;\n")
                load.stdin.close()
                runner.eventually(lambda: runner.cluster().backends("query like '%0.005%'"))
                time.sleep(0.5)
                proxy.signal(signal.SIGTERM)
                proxy.finish(proxy.wait(20))
                load.wait(20)


def test_signal_during_logins():
    """SIGTERM while clients stand in every stage of a login ends cleanly."""
    with runner.fresh_proxy() as proxy:
        packet = wire.startup({"user": "app", "database": "app"})
        conns = [proxy.open() for _ in range(4)]
        conns[1].send(packet[:10])
        conns[2].send(packet)
        conns[2].recv()
        conns[3].send(packet)
        conns[3].recv()
        conns[3].send(wire.sasl_initial(wire.ScramClient("x").first()))
        proxy.signal(signal.SIGTERM)
        proxy.finish(proxy.wait(20))


def no_server_connections():
    """Waits until the server has let go what earlier proxies, some of them killed, had."""
    runner.cluster().kill_idle()
    runner.eventually(lambda: not runner.cluster().backends(), what="a server without clients")


def test_stop_gives_the_server_connections_back():
    """After the end of the proxy the server lists none of its connections."""
    no_server_connections()
    with runner.fresh_proxy(cores=2, max_connections=5) as proxy:
        clients = [proxy.client() for _ in range(5)]
        for client in clients:
            client.query("begin")
        for client in clients:
            client.query("commit")
    runner.eventually(lambda: not runner.cluster().backends(), what="no server connection left")


def test_idle_backends_are_closed():
    """Idle server connections beyond min_connections are closed after idle_timeout."""
    no_server_connections()
    pool = {"min_connections": 1, "idle_timeout": "1s"}
    database = [{"name": "app", "node": "main"}]
    with runner.fresh_proxy(max_connections=5, pool=pool, database=database) as proxy:
        clients = [proxy.client() for _ in range(5)]
        for client in clients:
            client.query("begin")
        assert len(runner.cluster().backends()) == 5
        for client in clients:
            client.query("commit")
        runner.eventually(lambda: len(runner.cluster().backends()) == 1, what="one connection left")
        assert clients[0].value("select 1") == "1"


@runner.cases(1, 2)
def test_minimum_is_kept_over_all_cores(cores):
    """min_connections are open soon after the first client, and again after a loss."""
    no_server_connections()
    database = [{"name": "app", "node": "main"}]
    pool = {"min_connections": 4, "idle_timeout": "1s"}
    with runner.fresh_proxy(cores=cores, pool=pool, database=database) as proxy:
        with proxy.client() as client:

            def pids():
                return {row[0] for row in runner.cluster().backends()}

            runner.eventually(lambda: len(pids()) == 4, what="four server connections")
            before = pids()
            runner.cluster().kill_idle()
            runner.eventually(
                lambda: len(pids()) == 4 and not pids() & before, what="four new server connections"
            )
            assert client.value("select 1") == "1"
        runner.eventually(lambda: not runner.cluster().backends(), what="none without clients")


@runner.cases("transaction", "session")
def test_connect_query(mode):
    """What connect_query sets is what every client finds, also behind DISCARD ALL."""
    pool = {"connect_query": "set statement_timeout = '7s'; set timezone = 'Asia/Tokyo'; select 1"}
    with runner.fresh_proxy(mode=mode, cores=2, max_connections=1, pool=pool) as proxy:
        for _ in range(3):
            with proxy.client() as client:
                assert client.parameters["TimeZone"] == "Asia/Tokyo", client.parameters
                assert client.value("show statement_timeout") == "7s"
                assert client.value("show timezone") == "Asia/Tokyo"
                client.query("set timezone = 'UTC'")
                client.query("prepare left_behind as select 1")


@runner.cases(
    ("select no_such_column", "42703", "no_such_column"),
    ("begin", "25001", "leaves a transaction open"),
    ("copy pg_class from stdin", "", "connect_query"),
    ("select pg_sleep(30)", "08006", "longer than connect_timeout"),
)
def test_connect_query_fails(text, code, word):
    """A connect_query that fails is told to the client, with the server's code, and named."""
    pool = {"connect_query": text, "connect_timeout": "1s"}
    with runner.fresh_proxy(pool=pool) as proxy:
        for _ in range(2):
            with proxy.open() as conn:
                try:
                    conn.login("bench", "app")
                    raise AssertionError("the client got in")
                except wire.ServerError as error:
                    assert error.code == code or not code, error
                    assert "connect_query" in error.text and word in error.text, error
        runner.eventually(lambda: not runner.cluster().backends(), what="no server connection left")


@runner.cases(1, 2)
def test_connects_are_capped(cores):
    """With one connect at a time every client of every pool is served."""
    with runner.fresh_proxy(cores=cores, max_connections=8, node={"connecting_max": 1}) as proxy:

        def work(number):
            with proxy.client(("app", "alice", "bob")[number % 3]) as client:
                client.query("begin")
                assert client.value(f"select {number}") == str(number)
                time.sleep(0.2)
                client.query("commit")

        runner.in_threads([lambda n=n: work(n) for n in range(24)])


def test_old_backends_are_replaced():
    """A server connection older than max_lifetime is replaced between two transactions."""
    with runner.fresh_proxy(max_connections=1, pool={"max_lifetime": "1s"}) as proxy:
        with proxy.client() as client:
            pids = set()
            end = time.monotonic() + 4
            while time.monotonic() < end:
                client.query("begin")
                pid = client.value("select pg_backend_pid()")
                assert client.value("select pg_backend_pid()") == pid
                client.query("commit")
                pids.add(pid)
                time.sleep(0.02)
            assert 2 <= len(pids) <= 6, pids


def server_pids(condition="true"):
    return {row[0] for row in runner.cluster().backends(condition)}


# A successor is made up to a tenth of the lifetime ahead, as the pool is looked at once a second.
LIFETIME = 12


def test_a_successor_is_ready_before_the_old_one_ends():
    """Where there is room the next server connection is there while the old one is still in use."""
    no_server_connections()
    pool = {"max_lifetime": f"{LIFETIME}s"}
    with runner.fresh_proxy(max_connections=2, pool=pool) as proxy, proxy.client() as client:
        client.query("begin")
        old = client.value("select pg_backend_pid()")
        runner.eventually(
            lambda: len(server_pids()) == 2, LIFETIME + 20, what="a successor beside the old one"
        )
        (new,) = server_pids() - {old}
        assert client.value("select pg_backend_pid()") == old
        client.query("commit")
        runner.eventually(lambda: server_pids() == {new}, what="the successor alone")
        assert client.value("select pg_backend_pid()") == new


def test_at_the_limit_the_old_one_ends_first():
    """In a full pool the old server connection is closed once it is idle; then comes its successor."""
    no_server_connections()
    pool = {"max_lifetime": f"{LIFETIME}s"}
    with runner.fresh_proxy(max_connections=1, pool=pool) as proxy, proxy.client() as client:
        with LimitWatch(runner.cluster()) as watch:
            client.query("begin")
            old = client.value("select pg_backend_pid()")
            is_old = f"pid = {old} and now() - backend_start > '{LIFETIME}s'"
            runner.eventually(
                lambda: server_pids(is_old), LIFETIME + 20, what="the end of its lifetime"
            )
            assert client.value("select pg_backend_pid()") == old
            client.query("commit")
            # Nobody asks for it.
            runner.eventually(
                lambda: len(server_pids()) == 1 and old not in server_pids(), what="a successor"
            )
            (new,) = server_pids()
            assert client.value("select pg_backend_pid()") == new
        watch.check(1)


if __name__ == "__main__":
    runner.main()
