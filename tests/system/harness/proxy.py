"""Starts heliosproxy with a configuration of a test, watches it, and stops it."""

import glob
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time

from . import libpq, wire
from .cluster import die_with_parent, free_port

# What a log must never hold.
BAD_LOG = re.compile(
    r"assertion|Assertion|Sanitizer|runtime error:|terminate called|double free|corrupted"
)
LEAKS = re.compile(r"leaks: (.*)")

# Users of the proxy in `config`: name -> password; None is trust.
CLIENTS = {"app": "app-secret", "bench": None, "alice": None, "bob": None}


def executable():
    path = os.environ.get("HELIOSPROXY", "")
    if not path or not os.path.exists(path):
        raise RuntimeError(f"HELIOSPROXY does not name the program: {path!r}")
    return path


def io_features_off():
    """Features to mask in every run: the tests repeat on what an older kernel has."""
    return os.environ.get("HELIOS_TEST_IO_FEATURES_OFF", "")


# TOML.


def _toml_value(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def to_toml(config):
    """A dict of tables and of lists of tables as TOML."""
    lines = []
    for name, content in config.items():
        tables = content if isinstance(content, list) else [content]
        head = f"[[{name}]]" if isinstance(content, list) else f"[{name}]"
        for table in tables:
            lines.append(head)
            lines += [f"{key} = {_toml_value(value)}" for key, value in table.items()]
            lines.append("")
    return "\n".join(lines)


def config(
    cluster=None,
    *,
    mode="transaction",
    cores=1,
    max_connections=10,
    proxy=None,
    pool=None,
    node=None,
    database=None,
    user=None,
):
    """The configuration of most tests. Each argument lays keys over a table, or replaces a list."""
    port = free_port()
    node_table = {"name": "main", "host": "127.0.0.1"}
    if cluster is not None:
        node_table["port"] = cluster.port
    users = []
    for name, password in CLIENTS.items():
        users.append(
            {"name": name, "auth": "trust"}
            if password is None
            else {"name": name, "password": password}
        )
    proxy_table = {"listen": [f"127.0.0.1:{port}"], "cores": cores, "log_level": "info"}
    pool_table = {
        "mode": mode,
        "min_connections": 0,
        "max_connections": max_connections,
        "acquire_timeout": "60s",
    }
    return {
        "proxy": {**proxy_table, **(proxy or {})},
        "pool": {**pool_table, **(pool or {})},
        "node": [{**node_table, **(node or {})}],
        "database": database or [{"name": "*", "node": "main"}],
        "user": user or users,
    }


def run_once(arguments, timeout=30, **more):
    """Runs the program to its end: (exit code, output, error output)."""
    done = subprocess.run(
        [executable(), *arguments],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        **more,
    )
    return done.returncode, done.stdout, done.stderr


class Proxy:
    """A running heliosproxy. `stop()` proves a clean end."""

    def __init__(self, configuration, arguments=(), preexec=None, wait=True, environment=None):
        self.configuration = configuration
        self.directory = tempfile.mkdtemp(prefix="helios-proxy-")
        os.chmod(self.directory, 0o755)
        self.config_path = f"{self.directory}/heliosproxy.toml"
        self.log_path = f"{self.directory}/log"
        self.stopped = False
        with open(self.config_path, "w", encoding="utf-8") as file:
            file.write(to_toml(configuration))
        os.chmod(self.config_path, 0o600)
        self.log_seen = 0
        command = [executable(), "--config", self.config_path, *arguments]
        if io_features_off() and "--io-features-off" not in arguments:
            command += ["--io-features-off", io_features_off()]

        def before_exec():
            die_with_parent()
            if preexec:
                preexec()

        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=before_exec,
                env={**os.environ, **(environment or {})},
            )
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.kill()
                raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.stopped:
            return
        if kind is None:
            self.stop()
        else:
            self.show_log()
            self.kill()

    @property
    def pid(self):
        return self.process.pid

    @property
    def address(self):
        """Where the proxy listens by TCP."""
        for text in self.configuration["proxy"]["listen"]:
            if not text.startswith("unix:"):
                host, _, port = text.rpartition(":")
                return (host, int(port))
        raise RuntimeError("no TCP address")

    @property
    def socket_path(self):
        """The unix socket, whatever number its name ends with."""
        for text in self.configuration["proxy"]["listen"]:
            if text.startswith("unix:"):
                found = glob.glob(text[5:] + "/.s.PGSQL.*[0-9]")
                assert found, f"no socket in {text}"
                return found[0]
        raise RuntimeError("no unix socket")

    # Life.

    def log_level(self):
        return self.configuration.get("proxy", {}).get("log_level", "info")

    def wait_ready(self, seconds=30):
        deadline = time.monotonic() + seconds
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"heliosproxy ended with {self.process.returncode}:\n" + self.log())
            try:
                wire.Conn(self.address, timeout=5).close()
                # A killed predecessor's socket may still accept here: our own word counts, where it is logged.
                if "ready:" in self.log() or self.log_level() not in ("info", "debug"):
                    return
                raise OSError("not ready yet")
            except OSError:
                if time.monotonic() > deadline:
                    raise RuntimeError("heliosproxy does not listen:\n" + self.log()) from None
                time.sleep(0.02)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=30):
        """Waits for the end: the exit code."""
        return self.process.wait(seconds)

    def stop(self, seconds=30):
        """SIGTERM; fails unless the end is clean."""
        if self.stopped:
            return
        self.signal(signal.SIGTERM)
        try:
            code = self.wait(seconds)
        except subprocess.TimeoutExpired:
            self.show_log()
            self.kill()
            raise AssertionError(f"heliosproxy does not stop within {seconds} s") from None
        self.finish(code)

    def finish(self, code, expected=0):
        """For a process that has ended: checks its exit code and log, removes its directory."""
        try:
            self.check_log()
            assert code == expected, f"exit code {code}, expected {expected}"
            for leaks in LEAKS.findall(self.log()):
                assert leaks.strip() == "none", f"leaks: {leaks}"
        except AssertionError:
            self.show_log()
            raise
        finally:
            self.stopped = True
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self):
        """Ends it by force, no questions asked."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.stopped = True
        shutil.rmtree(self.directory, ignore_errors=True)

    def check(self):
        """Fails if the process has died or complained."""
        if self.stopped:
            return
        code = self.process.poll()
        assert code is None, f"heliosproxy died with {code}"
        self.check_log()

    # The log.

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def check_log(self):
        found = BAD_LOG.search(self.log())
        assert not found, "the log holds: " + self.log()[max(0, found.start() - 200) :][:2000]

    def forget_log(self):
        """What the log holds now is of no interest to the next `show_log`."""
        self.log_seen = len(self.log())

    def tables(self):
        """Every complete table of the log: {name of the row: {column: cell}}; the rows of nodes are (node, name)."""
        found, names = [], None
        log = self.log()
        for line in log[: log.rfind("\n") + 1].splitlines():  # The last one may be on its way.
            text = line.partition("statistics: ")[2]
            cells = re.split(r" {2,}", text)
            if re.match(r"\d+ pools? on ", text):
                rows, names = {}, None
            elif text and names is None:
                names = cells
            elif text:
                assert len(cells) == len(names), line
                row = dict(zip(names, cells))
                rows[("node", row["node"]) if row["pool"] == "node" else row["pool"]] = row
                if row["pool"] == "total":
                    found.append(rows)
        return found

    def statistics(self, seconds=20):
        """Asks for a table and returns it."""
        before = len(self.tables())
        self.signal(signal.SIGUSR1)
        deadline = time.monotonic() + seconds
        while len(self.tables()) == before:
            assert time.monotonic() < deadline, "no table in the log"
            time.sleep(0.02)
        return self.tables()[before]

    def show_log(self, lines=25):
        """Prints the end of what came into the log since `forget_log`; nothing if nothing came."""
        recent = self.log()[self.log_seen :].splitlines()[-lines:]
        if recent:
            print(f"    --- log of the proxy at port {self.address[1]}, process {self.pid}")
        for line in recent:
            if "(trust)" not in line:
                print("    " + line[:400])

    # What the kernel says.

    def _status(self, name):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1])
        raise KeyError(name)

    def is_sanitized(self):
        """Memory figures mean nothing under a sanitizer."""
        with open(f"/proc/{self.pid}/maps", encoding="utf-8") as file:
            text = file.read()
        if "libasan" in text or "libtsan" in text:
            return True
        with open(executable(), "rb") as file:
            program = file.read()
        return b"__asan_init" in program or b"__tsan_init" in program

    def rss(self):
        """Resident bytes now."""
        return self._status("VmRSS") * 1024

    def peak_rss(self):
        return self._status("VmHWM") * 1024

    def check_memory(self, limit=64 << 20):
        """Fails when the process has ever been larger than `limit` bytes."""
        if not self.is_sanitized():
            peak = self.peak_rss()
            assert peak < limit, f"{peak >> 20} MiB resident, the limit is {limit >> 20}"

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return self._status("Threads")

    def cpu(self):
        """Seconds of CPU, user and system."""
        with open(f"/proc/{self.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # Clients.

    def open(self, **more):
        """A raw connection, not logged in."""
        return wire.Conn(self.address, **more)

    def cancel(self, pid, key):
        """Sends a cancel request and waits until the proxy has closed the connection."""
        with self.open() as conn:
            conn.send(wire.cancel_request(pid, key))
            assert conn.recv_to_end() == b"", "a cancel request is never answered"

    def client(self, user="bench", database="app", receive_buffer=0, **parameters):
        """A raw connection, logged in."""
        conn = wire.Conn(self.address, receive_buffer=receive_buffer)
        try:
            return conn.login(user, database, CLIENTS.get(user) or "", **parameters)
        except BaseException:
            conn.close()
            raise

    def dsn(self, database="app", user="app", **more):
        host, port = self.address
        words = {"host": host, "port": port, "dbname": database, "user": user}
        words.update({"password": CLIENTS.get(user) or "none", "sslmode": "disable"})
        words.update({"gssencmode": "disable", **more})
        return " ".join(
            "{}='{}'".format(name, str(value).replace("\\", "\\\\").replace("'", "\\'"))
            for name, value in words.items()
        )

    def libpq(self, database="app", user="app", **more):
        return libpq.Conn(self.dsn(database, user, **more))

    def bench_arguments(self, database="bench", user="bench"):
        host, port = self.address
        return ["-h", host, "-p", str(port), "-U", user, database]


def limit_descriptors(soft, hard=None):
    """A preexec that limits the descriptors of the proxy."""

    def set_limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard or soft))

    return set_limit


def pgbench(peer, arguments, timeout=300, check=True):
    """Runs pgbench on `peer` (a Proxy or Cluster): (exit code, output, transactions)."""
    command = ["pgbench", "-n", *arguments, *peer.bench_arguments()]
    environment = {**os.environ, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable"}
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    found = re.search(r"actually processed: (\d+)", done.stdout)
    count = int(found.group(1)) if found else 0
    text = done.stdout + done.stderr
    if check:
        assert done.returncode == 0, f"pgbench: exit code {done.returncode}\n{text[-3000:]}"
        assert "aborted" not in text, text[-3000:]
        assert count > 0, text[-3000:]
    return done.returncode, text, count
