#!/usr/bin/env python3
"""Builds the proxy, starts it before a private PostgreSQL cluster (or an existing server), shows that it works, and
stays until Ctrl-C. Everything it starts or writes is gone afterwards, except for the build directory."""

import argparse
import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLIENTS = 64
SECONDS = 10
SERVER_CONNECTIONS = 10
PGBENCH_SCALE = 5
PREFERRED_PORT = 6432
OUR_NAME = f"quickstart {os.getpid()}"  # What PostgreSQL lists our own queries as.
PR_SET_PDEATHSIG = 1


class Failure(Exception):
    """Something went wrong that the message explains."""


def say(text):
    print(text, flush=True)


@dataclasses.dataclass
class Target:
    """A place where PostgreSQL's protocol is spoken, and as whom."""

    host: str
    port: int
    user: str
    database: str
    password: str

    def environment(self):
        """What libpq's programs need to go there; nothing of the caller's PG* settings is left."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return {**inherited, "PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": self.user,
                "PGDATABASE": self.database, "PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "10",
                "PGAPPNAME": OUR_NAME, "PGPASSFILE": os.devnull}


# --- small helpers --------------------------------------------------------------------------------------------------


def postgres_program(name):
    """Finds a program of PostgreSQL: Debian keeps the server's out of PATH."""
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}"),
                   key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0)
    program = str(found[-1]) if found else shutil.which(name)
    if not program:
        raise Failure(f"{name} of PostgreSQL not found: run tools/setup")
    return program


def is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def unprivileged_user():
    """PostgreSQL refuses to run as root. Returns the arguments of Popen that make it run as somebody else."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise Failure("run by root, but there is neither a user postgres nor nobody to run PostgreSQL")


def dies_with_us(number):
    """Has the kernel send a signal to the child when we are killed without a chance to clean up."""
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def tail(path, count=20):
    with contextlib.suppress(OSError):
        return "\n".join(f"    {line}" for line in path.read_text(errors="replace").splitlines()[-count:])
    return ""


def stop(process, signals):
    """Sends each signal in turn until the process has ended."""
    for number, seconds in signals:
        if process.poll() is not None:
            return
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)


def run_checked(command, what, **options):
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode:
        raise Failure(f"{what} failed:\n{done.stdout.strip()}")
    return done.stdout.strip()


def query(target, sql):
    return run_checked([postgres_program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql], "psql",
                       env=target.environment())


def wait_until_answered(target, process, log, what):
    deadline = time.monotonic() + 30
    while True:
        if process.poll() is not None:
            raise Failure(f"{what} ended with status {process.returncode}:\n{tail(log)}")
        try:
            return query(target, "SELECT 1")
        except Failure as failure:
            if time.monotonic() > deadline:
                raise Failure(f"{what} does not answer: {failure}\n{tail(log)}") from None
        time.sleep(0.1)


# --- build ----------------------------------------------------------------------------------------------------------


def is_optimised(build):
    options = json.loads(run_checked(["meson", "introspect", "--buildoptions", build], "meson introspect"))
    values = {option["name"]: option["value"] for option in options}
    return values.get("buildtype") == "release" and values.get("b_sanitize") == "none"


def build_proxy():
    """Returns the path of the program."""
    build = ROOT / "build"
    if not (build / "build.ninja").is_file():
        say("configuring build/")
        run_checked(["meson", "setup", build, "--buildtype=release"], "meson setup", cwd=ROOT)
    elif not is_optimised(build):
        say("configuring build/ as an optimised build")
        run_checked(["meson", "configure", build, "--buildtype=release", "-Db_sanitize=none"], "meson configure")
    say("building heliosproxy")
    command = ["meson", "compile", "-C", str(build), "heliosproxy"]
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode:
        raise Failure("the build failed")
    targets = json.loads(run_checked(["meson", "introspect", "--targets", build], "meson introspect"))
    return pathlib.Path(next(each["filename"][0] for each in targets if each["name"] == "heliosproxy"))


# --- a private cluster ----------------------------------------------------------------------------------------------


def make_cluster(stack, work):
    """Makes and starts a cluster of its own, with SCRAM passwords; returns the application's way in."""
    account = unprivileged_user()
    home = work / "postgresql"
    home.mkdir(mode=0o700)
    superuser = Target("127.0.0.1", free_port(), "postgres", "postgres", secrets.token_hex(16))
    password_file = home / "password"
    password_file.write_text(superuser.password + "\n")
    if account:
        for path in (home, password_file):
            os.chown(path, account["user"], account["group"])
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith("PG")},
                   "LC_ALL": "C.UTF-8", "HOME": str(home)}
    say("making a private PostgreSQL cluster")
    run_checked([postgres_program("initdb"), "-D", home / "data", "-U", "postgres", f"--pwfile={password_file}",
                 "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"], "initdb", cwd=home, env=environment,
                **account)
    password_file.unlink()
    log = home / "log"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            [postgres_program("postgres"), "-D", str(home / "data"), "-k", str(home), "-h", "127.0.0.1",
             "-p", str(superuser.port), "-c", "fsync=off", "-c", "password_encryption=scram-sha-256"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=home, env=environment,
            start_new_session=True, preexec_fn=dies_with_us(signal.SIGQUIT), **account)
    stack.callback(stop, server, [(signal.SIGINT, 20), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)])
    wait_until_answered(superuser, server, log, "PostgreSQL")
    application = dataclasses.replace(superuser, user="app", database="app", password=secrets.token_urlsafe(12))
    query(superuser, f"CREATE ROLE app LOGIN PASSWORD '{application.password}'")
    query(superuser, "CREATE DATABASE app OWNER app")
    run_checked([postgres_program("pgbench"), "-i", "-q", "-s", PGBENCH_SCALE], "pgbench -i",
                env=application.environment())
    say(f"PostgreSQL {query(application, 'SHOW server_version')} listens on 127.0.0.1:{application.port}")
    return application, server, log


# --- the proxy ------------------------------------------------------------------------------------------------------


def toml(text):
    """A TOML string; a dollar is doubled because ours take ${NAME} from the environment."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f").replace("$", "$$")


def configuration_text(node, port):
    # The password of somebody's own server is not written to a file.
    login = 'password = "${HELIOS_QUICKSTART_PASSWORD}"' if node.password else 'auth = "trust"'
    return f"""# Written by tools/quickstart.
[proxy]
listen = ["127.0.0.1:{port}"]

[pool]
max_connections = {SERVER_CONNECTIONS}

[[node]]
name = "main"
host = {toml(node.host)}
port = {node.port}

[[database]]
name = {toml(node.database)}
node = "main"

[[user]]
name = {toml(node.user)}
{login}
"""


def start_proxy(stack, work, node, program):
    port = PREFERRED_PORT if is_free(PREFERRED_PORT) else free_port()
    configuration = work / "heliosproxy.toml"
    configuration.write_text(configuration_text(node, port))
    environment = {**os.environ, "HELIOS_QUICKSTART_PASSWORD": node.password}
    run_checked([program, "--config", configuration, "--check-config"], "the check of the configuration",
                env=environment)
    log = work / "heliosproxy.log"
    with open(log, "wb") as output:
        process = subprocess.Popen([str(program), "--config", str(configuration)], stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=output, env=environment, start_new_session=True,
                                   preexec_fn=dies_with_us(signal.SIGTERM))
    # The second signal cuts what the first one lets finish.
    stack.callback(stop, process, [(signal.SIGTERM, 5), (signal.SIGTERM, 5), (signal.SIGKILL, 5)])
    proxied = dataclasses.replace(node, host="127.0.0.1", port=port)
    wait_until_answered(proxied, process, log, "heliosproxy")
    say(f"heliosproxy (process {process.pid}) listens on 127.0.0.1:{port}")
    return proxied, process, log


# --- the proof ------------------------------------------------------------------------------------------------------


def cpu_seconds(pid):
    """CPU time of all threads, in the scheduler's nanoseconds; in ticks where the kernel does not tell those."""
    try:
        tasks = list(pathlib.Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, IndexError, ValueError):
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class ConnectionCounter:
    """Asks the node once a second how many connections the proxy has there; those of others are subtracted."""

    SQL = ("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = current_user "
           "AND datname = current_database() AND pid <> pg_backend_pid()")

    def __init__(self, node):
        """To be made before the proxy is started: what is there by then belongs to others, except what our own
        queries have not quite left yet."""
        self.node = node
        self.others = int(query(node, f"{self.SQL} AND application_name <> '{OUR_NAME}'"))
        self.now = self.most = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.done.is_set():
            with contextlib.suppress(Failure):
                self.now = max(0, int(query(self.node, self.SQL)) - self.others)
                self.most = max(self.most, self.now)
            self.done.wait(1)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def percentiles(directory, wanted):
    """Reads pgbench's logs (the third column is a transaction's microseconds); returns milliseconds."""
    latencies = sorted(int(line.split()[2]) for path in directory.glob("pgbench_log*")
                       for line in path.read_text().splitlines())
    if not latencies:
        return [float("nan") for _ in wanted]
    return [latencies[min(len(latencies) - 1, int(len(latencies) * part / 100))] / 1000 for part in wanted]


def show_progress(line, counter):
    match = re.match(r"progress: ([\d.]+) s, ([\d.]+) tps, lat ([\d.]+|NaN) ms", line)
    if not match:
        return False
    text = (f"  {float(match[1]):4.0f} of {SECONDS} s   {float(match[2]):9,.0f} TPS   latency {match[3]} ms   "
            f"{counter.now} server connections")
    print(f"\r\x1b[K{text}" if sys.stdout.isatty() else text, end="" if sys.stdout.isatty() else "\n", flush=True)
    return True


def run_pgbench(stack, directory, proxied, script, counter):
    """Runs ten seconds of pgbench with a live line; returns what it printed at the end."""
    process = subprocess.Popen(
        [postgres_program("pgbench"), "-n", *script, "-c", str(CLIENTS), "-j", str(min(2, os.cpu_count() or 1)),
         "-T", str(SECONDS), "-P", "1", "--log", "--sampling-rate=0.2"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=directory,
        env=proxied.environment(), start_new_session=True)
    stack.callback(stop, process, [(signal.SIGKILL, 5)])
    output = [line for line in process.stdout if not show_progress(line, counter)]
    if sys.stdout.isatty():
        print()
    if process.wait():
        raise Failure("pgbench failed:\n" + "".join(output[-20:]))
    return "".join(output)


def has_pgbench_tables(target):
    return query(target, "SELECT to_regclass('pgbench_accounts') IS NOT NULL "
                         "AND to_regclass('pgbench_branches') IS NOT NULL") == "t"


def prove(stack, work, proxied, proxy, counter):
    """A query and ten seconds of load through the proxy, and what they showed."""
    answer = query(proxied, "SELECT current_user || ' in ' || current_database() || ' on PostgreSQL ' || "
                            "current_setting('server_version')")
    say(f"a query through the proxy: {answer}")
    script = ["-S"]
    if not has_pgbench_tables(proxied):
        # Nothing is created in somebody's own database.
        (work / "select.sql").write_text("SELECT 1;\n")
        script = ["-f", str(work / "select.sql")]
    directory = work / "pgbench"
    directory.mkdir()
    say(f"{SECONDS} seconds of pgbench through the proxy ({'-S' if script[0] == '-S' else 'SELECT 1'}, {CLIENTS} clients)")
    with counter:
        before = cpu_seconds(proxy.pid)
        output = run_pgbench(stack, directory, proxied, script, counter)
        cpu = cpu_seconds(proxy.pid) - before
    show_table(output, counter, cpu, percentiles(directory, (50, 95, 99)))


def show_table(output, counter, cpu, latency):
    transactions = int(re.search(r"transactions actually processed: (\d+)", output)[1])
    failed = re.search(r"number of failed transactions: (\d+)", output)
    tps = float(re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)[1])
    if not transactions or failed and int(failed[1]):
        raise Failure(f"pgbench's transactions failed:\n{output}")
    rows = [
        ("clients", f"{CLIENTS}"),
        ("server connections", f"{counter.most} (limit {SERVER_CONNECTIONS})"),
        ("transactions", f"{transactions:,}"),
        ("TPS", f"{tps:,.0f}"),
        ("latency p50 / p95 / p99", " / ".join(f"{value:.2f}" for value in latency) + " ms"),
        ("CPU of the proxy", f"{cpu * 1e6 / transactions:.1f} µs per transaction"),
    ]
    say("")
    for name, value in rows:
        say(f"  {name:<26}{value}")
    say("")
    if counter.most > SERVER_CONNECTIONS:
        raise Failure("the proxy had more server connections than its limit")


# --- the whole ------------------------------------------------------------------------------------------------------


def connection_string(proxied, is_private):
    user, database = (urllib.parse.quote(part, safe="") for part in (proxied.user, proxied.database))
    password = f":{proxied.password}" if is_private else ""
    return f"postgresql://{user}{password}@{proxied.host}:{proxied.port}/{database}"


def stay(proxied, watched, is_private):
    say(f"connect with:  psql '{connection_string(proxied, is_private)}'")
    say("Ctrl-C stops everything and removes it")
    try:
        while True:
            for what, process, log in watched:
                if process.poll() is not None:
                    raise Failure(f"{what} ended with status {process.returncode}:\n{tail(log)}")
            time.sleep(0.5)
    except SystemExit as end:
        if end.code != 128 + signal.SIGINT:  # Ctrl-C is how it is meant to end.
            raise


def parse_node(text):
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="tools/quickstart", description="HeliosProxy before a private PostgreSQL, in one command.")
    parser.add_argument("--check", action="store_true", help="end after the proof")
    parser.add_argument("--node", type=parse_node, metavar="HOST:PORT",
                        help="put the proxy before this server instead (password from PGPASSWORD)")
    parser.add_argument("--user", help="with --node: log in as this user")
    parser.add_argument("--database", help="with --node: the database")
    arguments = parser.parse_args()
    if bool(arguments.node) != bool(arguments.user) or bool(arguments.node) != bool(arguments.database):
        parser.error("--node, --user and --database belong together")
    return arguments


def quickstart(stack, arguments):
    program = build_proxy()
    work = pathlib.Path(tempfile.mkdtemp(prefix="heliosproxy-quickstart-"))
    stack.callback(shutil.rmtree, work, ignore_errors=True)
    work.chmod(0o711)  # PostgreSQL's user passes through; everything inside is closed to others.
    os.umask(0o077)
    watched = []
    if arguments.node:
        node = Target(*arguments.node, arguments.user, arguments.database, os.environ.get("PGPASSWORD", ""))
        query(node, "SELECT 1")
    else:
        node, server, log = make_cluster(stack, work)
        watched.append(("PostgreSQL", server, log))
    counter = ConnectionCounter(node)
    proxied, proxy, log = start_proxy(stack, work, node, program)
    watched.append(("heliosproxy", proxy, log))
    prove(stack, work, proxied, proxy, counter)
    if not arguments.check:
        stay(proxied, watched, is_private=not arguments.node)


def end_on_signal(number, _frame):
    # Once is enough: the cleaning up that follows is not to be interrupted.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main():
    arguments = parse_arguments()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_on_signal)
    status = 0
    with contextlib.ExitStack() as stack:
        try:
            quickstart(stack, arguments)
        except Failure as failure:
            print(f"quickstart: {failure}", file=sys.stderr)
            status = 1
        except SystemExit as end:
            status = end.code
        say("stopping")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    return status


if __name__ == "__main__":
    sys.exit(main())
