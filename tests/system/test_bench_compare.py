#!/usr/bin/python3
"""helios-bench compare: what it starts, writes and leaves behind. Nothing about how fast anything is."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import xml.dom.minidom

from harness import runner
from harness.proxy import executable

PEER = """
[peer]
name = "other"
command = ["{program}", "--config", "{{config}}"]
version_command = ["{program}", "--version"]
config = '''
[proxy]
listen = ["127.0.0.1:{{port}}"]
cores = 1
log_level = "error"
[pool]
max_connections = {{pool_size}}
[[node]]
name = "main"
host = "{{server_host}}"
port = {{server_port}}
[[database]]
name = "*"
node = "main"
[[user]]
name = "{{user}}"
auth = "trust"
'''
unix_sockets = true
"""
MARK = "HELIOS_COMPARE_TEST"


def program():
    path = os.environ.get("HELIOS_BENCH", "")
    if not path or not os.path.exists(path):
        raise runner.Skip(f"HELIOS_BENCH does not name the program: {path!r}")
    return path


class Place:
    """A directory for temporary files and output; processes that belong to it are marked."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="helios-compare-test-")
        os.chmod(self.directory, 0o755)
        self.temporary = f"{self.directory}/tmp"
        os.mkdir(self.temporary)
        self.output = f"{self.directory}/report"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def environment(self):
        return {**os.environ, "TMPDIR": self.temporary, MARK: self.directory}

    def peer_file(self):
        path = f"{self.directory}/other.toml"
        with open(path, "w", encoding="utf-8") as file:
            file.write(PEER.format(program=executable()))
        return path

    def command(self, *words):
        return [program(), "compare", "--server", "canned", "--settle-time", "0", "--output",
                self.output, *words]

    def run(self, *words, timeout=120):
        done = subprocess.run(
            self.command(*words), check=False, capture_output=True, text=True, timeout=timeout,
            stdin=subprocess.DEVNULL, env=self.environment(), cwd=self.directory)
        return done.returncode, done.stdout, done.stderr

    def processes(self):
        """Processes that were started from here and are still there."""
        mark = f"{MARK}={self.directory}".encode()
        found = []
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and mark in open(f"/proc/{name}/environ", "rb").read():
                    found.append(int(name))
            except OSError:
                pass
        return found

    def check_nothing_left(self):
        assert not self.processes(), self.processes()
        assert not os.listdir(self.temporary), os.listdir(self.temporary)

    def read(self, name):
        with open(f"{self.output}/{name}", encoding="utf-8") as file:
            return file.read()


def check_measurements(lines, rows, peers, rounds):
    """Each peer was measured in each round of each row, in alternating order, without a mistake."""
    for row in rows:
        mine = [line for line in lines if line["row"] == row]
        assert len(mine) == len(peers) * rounds, mine
        for line in mine:
            assert "error" not in line, line
            assert line["failed"] == 0 and line["wrong"] == 0 and line["transactions"] > 0, line
            assert ("cpu_us" in line) == (line["peer"] != "direct"), line
            assert line["clean"] == (not line["flaws"]), line
        for peer in peers:
            numbers = [line["round"] for line in mine if line["peer"] == peer]
            assert numbers == list(range(1, rounds + 1)), numbers
        for number in range(1, rounds + 1):
            in_time = sorted((line for line in mine if line["round"] == number),
                             key=lambda line: line["position"])
            assert [line["position"] for line in in_time] == list(range(1, len(peers) + 1)), in_time
            expected = peers if number % 2 == 1 else peers[::-1]
            assert [line["peer"] for line in in_time] == expected, in_time


@runner.timeout(180)
def test_report():
    """A report, two charts and the measurements are written and agree; nothing is left running."""
    rows, peers = ["simple-16", "unix-16"], ["heliosproxy", "direct", "other"]
    with Place() as place:
        code, out, err = place.run(
            "--rows", ",".join(rows), "--peers", "heliosproxy,direct", "--peer", place.peer_file(),
            "--rounds", "2", "--duration", "300ms", "--heliosproxy", executable())
        assert code == 0, out + err
        assert "round 2 of 2" in out and "report: " in out, out
        place.check_nothing_left()
        assert sorted(os.listdir(place.output)) == [
            "cpu.svg", "latency.svg", "report.md", "results.jsonl"]
        head, *lines = [json.loads(line) for line in place.read("results.jsonl").splitlines()]
        assert head["kind"] == "comparison" and head["base"] == "heliosproxy", head
        assert head["rounds"] == 2 and head["interrupted"] is False, head
        assert re.match(r"heliosproxy \d", head["facts"]["version of other"]), head
        check_measurements(lines, rows, peers, 2)
        report = place.read("report.md")
        assert "| row | heliosproxy µs | other µs |" in report, report
        assert "ratios are to heliosproxy, because pgbouncer is not among the peers" in report, report
        for text in ("CPU |", "kernel |", "SCHED_BATCH", "load average", "cpu.svg", "latency.svg"):
            assert text in report, (text, report)
        for name in ("cpu.svg", "latency.svg"):
            assert xml.dom.minidom.parseString(place.read(name)).documentElement.tagName == "svg"


def test_cores():
    """With nothing pinned, load and server have as many threads as the pooler, but no more than clients."""
    if len(os.sched_getaffinity(0)) < 2:
        raise runner.Skip("it needs two CPUs")
    with Place() as place:
        code, out, err = place.run(
            "--place", "free", "--rows", "simple-1,simple-16", "--peers", "heliosproxy:cores=2",
            "--rounds", "1", "--duration", "300ms", "--heliosproxy", executable())
        assert code == 0, out + err
        head, *lines = [json.loads(line) for line in place.read("results.jsonl").splitlines()]
        threads = head["facts"]["threads of the load and of the canned server"]
        assert threads.startswith("2 each"), head
        check_measurements(lines, ["simple-1", "simple-16"], ["heliosproxy:cores=2"], 1)


def test_unix_clients():
    """Clients come by a unix socket where a variant says so."""
    peers = ["heliosproxy:unix-clients"]
    peers += [f"{name}:unix-clients" for name in ("pgbouncer", "haproxy") if shutil.which(name)]
    with Place() as place:
        code, out, err = place.run(
            "--rows", "simple-16", "--peers", ",".join(peers), "--base", peers[0], "--rounds", "1",
            "--duration", "300ms", "--heliosproxy", executable())
        assert code == 0, out + err
        lines = [json.loads(line) for line in place.read("results.jsonl").splitlines()]
        check_measurements(lines[1:], ["simple-16"], peers, 1)
        place.check_nothing_left()


def test_memory_row():
    """The memory of idle clients is given for each client."""
    with Place() as place:
        code, out, err = place.run(
            "--rows", "idle-1000", "--peers", "heliosproxy", "--rounds", "1", "--heliosproxy",
            executable())
        assert code == 0, out + err
        line = json.loads(place.read("results.jsonl").splitlines()[1])
        assert line["clients_connected"] == 1000 and "error" not in line, line
        assert 0 < line["rss_per_client"] < 1 << 20, line
        assert "## Memory of idle clients" in place.read("report.md")
        place.check_nothing_left()


def test_scram_row():
    """Clients log in with a password that the proxy checks."""
    with Place() as place:
        code, out, err = place.run(
            "--rows", "connect-scram", "--peers", "heliosproxy", "--rounds", "1", "--duration",
            "300ms", "--heliosproxy", executable())
        assert code == 0, out + err
        line = json.loads(place.read("results.jsonl").splitlines()[1])
        assert line["failed"] == 0 and line["transactions"] > 0, line


@runner.cases(signal.SIGINT, signal.SIGTERM)
def test_interrupt(number):
    """An interrupt stops everything, and what was measured is reported as interrupted."""
    with Place() as place:
        process = subprocess.Popen(
            place.command("--rows", "simple-16", "--peers", "heliosproxy", "--peer",
                          place.peer_file(), "--rounds", "1000", "--duration", "200ms",
                          "--heliosproxy", executable()),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=place.environment())
        for line in process.stdout:
            if "round 2 of" in line:
                break
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(30) == 1, rest
        place.check_nothing_left()
        assert json.loads(place.read("results.jsonl").splitlines()[0])["interrupted"] is True
        assert "Interrupted" in place.read("report.md")


def test_killed():
    """Whatever it started ends with it, even when it is killed."""
    with Place() as place:
        process = subprocess.Popen(
            place.command("--rows", "simple-16", "--peers", "heliosproxy", "--rounds", "1000",
                          "--duration", "200ms", "--heliosproxy", executable()),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=place.environment())
        for line in process.stdout:
            if "round 1 of" in line:
                break
        process.kill()
        process.wait(10)
        process.stdout.close()
        runner.eventually(lambda: not place.processes(), 20, "the end of the children")


def test_peer_that_does_not_start():
    """A peer that ends at once is left out with what it said; the others are measured."""
    with Place() as place:
        path = f"{place.directory}/bad.toml"
        with open(path, "w", encoding="utf-8") as file:
            file.write('[peer]\nname = "bad"\ncommand = ["/bin/sh", "-c", "echo no thanks; exit 3"]\n')
        code, out, err = place.run(
            "--rows", "simple-16", "--peers", "heliosproxy", "--peer", path, "--rounds", "1",
            "--duration", "200ms", "--heliosproxy", executable())
        assert code == 0, out + err
        assert "bad: bad ended at once: no thanks" in place.read("report.md"), place.read("report.md")
        lines = [json.loads(line) for line in place.read("results.jsonl").splitlines()]
        assert [line["peer"] for line in lines[1:]] == ["heliosproxy"], lines


def test_missing_peers():
    """A peer that is not installed is an error only when it was asked for."""
    with Place() as place:
        for words in (
            ("--peers", "pgbouncer", "--pgbouncer", "/nonexistent/pgbouncer"),
            ("--peers", "heliosproxy", "--heliosproxy", "/nonexistent/heliosproxy"),
        ):
            code, out, err = place.run("--rows", "simple-1", *words)
            assert code == 1 and "/nonexistent/" in err, out + err
        place.check_nothing_left()


def test_wrong_usage():
    """Wrong arguments exit with 2 and say what is wrong."""
    with Place() as place:
        for words, text in (
            (("--rows", "simpel-16"), 'did you mean "simple-16"?'),
            (("--peers", "pgbounser"), 'did you mean "pgbouncer"?'),
            (("--peers", "direct,direct"), "there twice"),
            (("--place", "nowhere"), "no placement"),
            (("--server", "nowhere"), "--server"),
            (("--rounds", "0"), "--rounds"),
            (("--peer", "/nonexistent.toml"), "/nonexistent.toml"),
            (("--peers", "direct", "--pgbouncer", "/bin/true"), "--pgbouncer has no effect"),
            (("--peers", "direct", "--heliosproxy", "/bin/true"), "--heliosproxy has no effect"),
            (("--no-such-option",), "--no-such-option"),
        ):
            code, out, err = place.run(*words)
            assert code == 2 and text in err, (words, code, out, err)
        assert not os.path.exists(place.output)


def test_help_and_rows():
    """--help has every option within 100 columns, --list-rows every row."""
    with Place() as place:
        code, out, _ = place.run("--help")
        assert code == 0 and "--peers" in out and "[peer]" in out and "examples" in out, out
        assert max(len(line) for line in out.splitlines()) <= 100, out
        code, out, _ = place.run("--list-rows")
        assert code == 0 and "simple-16" in out and "copy-in" in out, out


@runner.timeout(240)
def test_postgres():
    """A private PostgreSQL is made, used and removed; both directions of COPY work through the proxy."""
    with Place() as place:
        code, out, err = place.run(
            "--server", "postgres", "--scale", "2", "--rows", "lookup-1,copy-out,copy-in", "--peers",
            "heliosproxy,direct", "--rounds", "1", "--duration", "300ms", "--heliosproxy",
            executable(), timeout=200)
        assert code == 0, out + err
        lines = [json.loads(line) for line in place.read("results.jsonl").splitlines()]
        check_measurements(lines[1:], ["lookup-1", "copy-out", "copy-in"],
                           ["heliosproxy", "direct"], 1)
        assert "pgbench tables of scale 2 |" in place.read("report.md"), place.read("report.md")
        place.check_nothing_left()


def test_own_server():
    """The user's server is used as it is, with the password given."""
    cluster = runner.cluster()
    with Place() as place:
        code, out, err = place.run(
            "--server", f"127.0.0.1:{cluster.port}", "--user", "app", "--password", "app-secret",
            "--database", "app", "--rows", "simple-16,unix-16", "--peers", "heliosproxy,direct",
            "--rounds", "1", "--duration", "300ms", "--heliosproxy", executable())
        assert code == 0, out + err
        lines = [json.loads(line) for line in place.read("results.jsonl").splitlines()]
        check_measurements(lines[1:], ["simple-16"], ["heliosproxy", "direct"], 1)
        report = place.read("report.md")
        assert "row unix-16 is left out" in report, report
        assert "is no reason for a mark here" in report, report
        assert "other processes used up to" not in report, report


if __name__ == "__main__":
    runner.main()
