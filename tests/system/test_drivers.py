#!/usr/bin/python3
"""What applications do with the drivers of several languages, with more clients than server connections.

Each driver has a program in drivers/ that goes through a list of checks and says which went well. A driver that is not
installed is skipped; `tools/setup --with-drivers --with-go` installs all of them.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

from harness import runner
from harness.cluster import die_with_parent

PROGRAMS = pathlib.Path(__file__).resolve().parent / "drivers"
# Debian's own, which has Debian's drivers.
PYTHON = "/usr/bin/python3"
JDBC = "/usr/share/java/postgresql.jar"
GO_PATH = "/usr/share/gocode"

CLIENTS = 6
CONNECTIONS = 2

# Driver -> what its program must have checked.
DRIVERS = {
    "libpq": "simple parameters prepared binary pipeline copy errors settings notify cancel reconnect",
    "psycopg2": "simple parameters prepared batch cursors copy errors settings notices notify cancel reconnect",
    "psycopg3": "simple parameters binary prepared batch cursors copy pipeline errors notices notify cancel reconnect",
    "asyncpg": "simple parameters prepared batch cursors copy errors notify cancel pool reconnect",
    "pg": "simple parameters prepared binary batch copy errors notices notify cancel reconnect",
    "postgres": "simple parameters prepared batch pipelined cursors copy errors notify cancel reconnect",
    "jdbc": "simple parameters prepared batch cursors copy errors keys settings notify cancel reconnect",
    "pq": "simple parameters prepared batch copy errors notify cancel reconnect",
    "pgx": "simple parameters prepared batch copy errors notify cancel reconnect",
}
# Checks that want another package of Node.js: Debian has it not.
EXTRA_PACKAGES = {("pg", "copy"): "pg-copy-streams"}
PYTHON_MODULES = {"psycopg2": "psycopg2", "psycopg3": "psycopg", "asyncpg": "asyncpg"}
GO_PACKAGES = {"pq": "github.com/lib/pq", "pgx": "github.com/jackc/pgx"}


def need(condition, what):
    if not condition:
        raise runner.Skip(f"{what} is not installed")


def succeeds(command, **more):
    return subprocess.run(command, check=False, capture_output=True, timeout=60, **more).returncode == 0


def node_environment():
    """Where Node finds packages: those of tools/setup, then Debian's."""
    return {**os.environ, "NODE_PATH": f"{PROGRAMS}/node_modules:/usr/share/nodejs"}


def is_node_package(name):
    return succeeds(["node", "-e", f"require('{name}')"], env=node_environment())


def checks_of(driver):
    """What its program checks here."""
    names = DRIVERS[driver].split()
    return [n for n in names if (driver, n) not in EXTRA_PACKAGES or is_node_package(EXTRA_PACKAGES[driver, n])]


def build_go(driver, directory):
    """Builds a program with Debian's packages only. The command that runs it."""
    environment = {**os.environ, "GOPATH": GO_PATH, "GO111MODULE": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    environment["GOCACHE"] = f"{tempfile.gettempdir()}/helios-go-cache.{os.geteuid()}"
    target = f"{directory}/{driver}"
    command = ["go", "build", "-o", target, str(PROGRAMS / driver / "main.go")]
    built = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=300, env=environment, cwd=directory
    )
    assert built.returncode == 0, built.stderr
    return [target]


def command_of(driver, directory):
    """The command that runs a driver's program. Skip if the driver is not there."""
    if driver == "libpq":
        return [PYTHON, str(PROGRAMS / "libpq_driver.py")]
    if driver in PYTHON_MODULES:
        need(succeeds([PYTHON, "-c", f"import {PYTHON_MODULES[driver]}"]), driver)
        return [PYTHON, str(PROGRAMS / f"{driver}_driver.py")]
    if driver in ("pg", "postgres"):
        need(shutil.which("node"), "Node.js")
        need(is_node_package(driver), f"the package {driver} of Node.js")
        return ["node", str(PROGRAMS / f"{driver}_driver.js")]
    if driver == "jdbc":
        need(shutil.which("javac"), "a JDK")
        need(os.path.exists(JDBC), JDBC)
        return ["java", "-Xshare:auto", "-cp", JDBC, str(PROGRAMS / "JdbcDriver.java")]
    need(shutil.which("go"), "Go")
    need(os.path.isdir(f"{GO_PATH}/src/{GO_PACKAGES[driver]}"), f"the package {GO_PACKAGES[driver]} of Go")
    return build_go(driver, directory)


def environment_of(driver, proxy):
    host, port = proxy.address
    names = {"PGHOST": host, "PGPORT": str(port), "PGUSER": "app", "PGPASSWORD": "app-secret", "PGDATABASE": "app"}
    names.update({"PGSSLMODE": "disable", "PGGSSENCMODE": "disable"})
    names["DRIVER_NODE_PORT"] = str(runner.cluster().port)
    names.update({"DRIVER": driver, "DRIVER_CLIENTS": str(CLIENTS), "PYTHONDONTWRITEBYTECODE": "1"})
    return {**node_environment(), **names}


@runner.cases(*DRIVERS)
@runner.timeout(360)
def test_driver(driver):
    """The driver's clients do what applications do, and find what they expect."""
    proxy = runner.proxy(cores=2, max_connections=CONNECTIONS)
    with tempfile.TemporaryDirectory(prefix="helios-driver-") as directory:
        command = command_of(driver, directory)
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=240,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
            env=environment_of(driver, proxy),
        )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-6000:]}"
    went_well = [line[3:] for line in done.stdout.splitlines() if line.startswith("ok ")]
    assert went_well == checks_of(driver), went_well


if __name__ == "__main__":
    runner.main()
