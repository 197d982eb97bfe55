"""A private PostgreSQL cluster in a temporary directory, with the users and databases of the tests."""

import ctypes
import errno
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from . import libpq, wire

PR_SET_PDEATHSIG = 1

# Users of the node: name -> (method in pg_hba.conf, password).
USERS = {
    "app": ("scram-sha-256", "app-secret"),
    "bench": ("trust", "bench-secret"),
    "alice": ("trust", "alice-secret"),
    "bob": ("trust", "bob-secret"),
    "node_password": ("password", "plain text"),
    "node_md5": ("md5", "md5 secret"),
    "node_scram": ("scram-sha-256", "scram secret"),
}
DATABASES = ("app", "other", "bench")


def find_binaries():
    """The directory of initdb and postgres, or None."""
    base = "/usr/lib/postgresql"
    versions = sorted(os.listdir(base), key=float) if os.path.isdir(base) else []
    for version in reversed(versions):
        path = f"{base}/{version}/bin"
        if os.path.exists(f"{path}/initdb") and os.path.exists(f"{path}/postgres"):
            return path
    found = shutil.which("initdb")
    return os.path.dirname(os.path.realpath(found)) if found else None


def free_port():
    """A port that nobody uses now. Below those that the kernel gives to outgoing connections, and by chance, so that
    test programs which run side by side do not meet."""
    while True:
        port = random.randrange(15_000, 32_000)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise


def die_with_parent():
    """For a child: ends when the thread that made it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)


def unprivileged_user():
    """PostgreSQL refuses to run as root: who runs it then, else None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    raise RuntimeError("no unprivileged user to run PostgreSQL as")


# What a publisher needs, besides lines in pg_hba.conf and roles that may.
REPLICATION_SETTINGS = {"wal_level": "logical", "max_wal_senders": 20, "max_replication_slots": 20}


class Cluster:
    """`replication`: it can be replicated, as the user app. `settings`: of postgresql.conf."""

    def __init__(self, replication=False, **settings):
        self.binaries = find_binaries()
        self.user = unprivileged_user()
        self.directory = tempfile.mkdtemp(prefix="helios-cluster-")
        self.data = f"{self.directory}/data"
        self.sockets = f"{self.directory}/sockets"
        self.log_path = f"{self.directory}/postgres.log"
        self.port = free_port()
        self.replication = replication
        self.settings = {**(REPLICATION_SETTINGS if replication else {}), **settings}
        self.process = None
        self._bench_scale = 0
        try:
            self._make()
        except BaseException:
            self.stop()
            raise

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    @property
    def socket_path(self):
        return f"{self.sockets}/.s.PGSQL.{self.port}"

    def _as_user(self):
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def _make(self):
        os.mkdir(self.sockets)
        os.chmod(self.directory, 0o755)
        os.chmod(self.sockets, 0o777)
        if self.user is not None:
            for path in (self.directory, self.sockets):
                os.chown(path, self.user.pw_uid, self.user.pw_gid)
        command = [f"{self.binaries}/initdb", "-D", self.data, "-U", "postgres", "-A", "trust"]
        command += ["-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.directory,
            env={**os.environ, "TZ": "UTC"},
            **self._as_user(),
        )
        self._write_settings()
        self.start()
        self._make_users()

    def _write_settings(self):
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.sockets,
            "max_connections": 150,
            "superuser_reserved_connections": 10,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "128MB",
            "max_wal_size": "4GB",
            "wal_level": "minimal",
            "max_wal_senders": 0,
            "timezone": "UTC",
            "password_encryption": "scram-sha-256",
            "log_line_prefix": "%m [%p] %u ",
            "autovacuum": "off",
            # Or a large table is read from where the last who read it happened to be.
            "synchronize_seqscans": "off",
            # Or what VACUUM can see decides whether a cursor is updatable.
            "enable_sort": "off",
            **self.settings,
        }
        with open(f"{self.data}/postgresql.conf", "a", encoding="utf-8") as file:
            for name, value in settings.items():
                file.write(f"{name} = '{value}'\n")
        lines = ["local all postgres trust", "host all postgres 127.0.0.1/32 trust"]
        for name, (method, _) in USERS.items():
            lines += [f"local all {name} {method}", f"host all {name} 127.0.0.1/32 {method}"]
        lines += ["local all all trust", "host all all 127.0.0.1/32 trust"]
        if self.replication:
            lines += ["host replication app 127.0.0.1/32 scram-sha-256"]
        with open(f"{self.data}/pg_hba.conf", "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def _make_users(self):
        with self.connect("postgres") as conn:
            for name, (method, password) in USERS.items():
                kind = "md5" if method == "md5" else "scram-sha-256"
                conn.query(f"set password_encryption = '{kind}'")
                conn.query(f"create role {name} login password '{password}'")
            if self.replication:
                conn.query("alter role app replication")
            for name in DATABASES:
                conn.query(f"create database {name}")
                conn.query(f"alter database {name} owner to bench")
        for name in DATABASES:
            self.run("grant all on schema public to public", name)

    def start(self):
        """Starts the server and waits until it takes queries. From the main thread only."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [f"{self.binaries}/postgres", "-D", self.data],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                preexec_fn=die_with_parent,
                **self._as_user(),
            )
        self.wait_ready()

    def wait_ready(self, seconds=60):
        """Waits until the server takes queries, as after a crash of a backend."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.run("select 1", "postgres")
                return
            except (libpq.Error, TimeoutError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("PostgreSQL does not start:\n" + self.log_tail()) from None
                time.sleep(0.05)

    def halt(self, how=signal.SIGINT):
        """Stops the server: SIGINT fast, SIGQUIT at once, SIGTERM when the clients have gone."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)

    def restart(self):
        self.halt(signal.SIGINT)
        self.start()

    def stop(self):
        """Stops the server and removes the directory."""
        self.halt(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self, lines=30):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as file:
                return "".join(file.readlines()[-lines:])
        except OSError:
            return ""

    def log_size(self):
        return os.path.getsize(self.log_path)

    def log_since(self, size):
        """What came into the log since it had this size."""
        with open(self.log_path, "rb") as file:
            file.seek(size)
            return file.read().decode(errors="replace")

    def dsn(self, database="app", user="postgres", **more):
        words = {"host": self.sockets, "port": self.port, "dbname": database, "user": user, **more}
        return " ".join(f"{name}='{value}'" for name, value in words.items())

    def connect(self, database="app", user="postgres", **more):
        """A libpq connection straight to the server, through its unix socket."""
        return libpq.Conn(self.dsn(database, user, **more))

    def wire(self, user="bench", database="app"):
        """A raw connection straight to the server, logged in."""
        return wire.Conn(self.address).login(user, database, USERS.get(user, ("", ""))[1])

    def run(self, sql, database="app"):
        """Rows of one statement run by the superuser."""
        with self.connect(database) as conn:
            return conn.query(sql).rows

    def value(self, sql, database="app"):
        return self.run(sql, database)[0][0]

    def backends(self, condition="true"):
        """Rows (pid, state) of the client connections that the server lists, postgres left out."""
        return self.run(
            "select pid, state from pg_stat_activity where backend_type = 'client backend'"
            f" and usename is distinct from 'postgres' and {condition}",
            "postgres",
        )

    def kill_idle(self):
        """Closes every connection of the proxy, as an administrator would."""
        self.run(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where backend_type = 'client backend' and usename <> 'postgres'",
            "postgres",
        )

    def make_bench(self, scale=1):
        """Fresh pgbench tables in the database bench."""
        run = subprocess.run(
            ["pgbench", "-i", "-q", "-s", str(scale), *self.bench_arguments()],
            check=False,
            capture_output=True,
            text=True,
        )
        if run.returncode:
            raise RuntimeError("pgbench -i failed: " + run.stderr)
        self._bench_scale = scale

    def bench_arguments(self):
        return ["-h", self.sockets, "-p", str(self.port), "-U", "bench", "bench"]

    def check_bank(self):
        """Fails unless the balances of pgbench's tables agree with its history. The history's size."""
        sums = self.run(
            "select (select sum(abalance) from pgbench_accounts),"
            " (select sum(tbalance) from pgbench_tellers),"
            " (select sum(bbalance) from pgbench_branches),"
            " (select coalesce(sum(delta), 0) from pgbench_history)",
            "bench",
        )[0]
        assert len(set(sums)) == 1, f"accounts, tellers, branches, history: {sums}"
        return int(self.value("select count(*) from pgbench_history", "bench"))


class LimitWatch:
    """A thread that looks again and again how many connections of the proxy the server lists.

    The server does not list them in one instant: one that ended and its successor may both be in
    one list. So only connections that are in two lists, one right behind the other, count.
    """

    def __init__(self, cluster, condition="true", pause=0.005):
        self.most = 0
        self.looks = 0
        self._conn = cluster.connect("postgres")
        self._sql = (
            "select pid, backend_start from pg_stat_activity"
            " where backend_type = 'client backend'"
            f" and usename is distinct from 'postgres' and {condition}"
        )
        self._pause = pause
        self._stop = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(20)
        self._conn.close()

    def _run(self):
        try:
            while not self._stop.is_set():
                seen = self._look()
                if len(seen) > self.most:
                    self.most = max(self.most, len(seen & self._look()))
                self.looks += 1
                self._stop.wait(self._pause)
        except Exception as error:  # pylint: disable=broad-except
            self._failure = error

    def _look(self):
        return {tuple(row) for row in self._conn.query(self._sql).rows}

    def check(self, limit):
        if self._failure:
            raise self._failure
        assert self.looks > 0, "nobody looked"
        assert self.most <= limit, f"{self.most} server connections, the limit is {limit}"
