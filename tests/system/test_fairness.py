#!/usr/bin/python3
"""The fairness report: every client gets transactions, and the report says how many. Nothing about how fast."""

import json
import os
import pathlib
import subprocess
import sys

from harness import runner
from harness.backend import executable as helios_bench
from harness.proxy import executable as heliosproxy

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "tools" / "lib" / "fairness.py"


def run(*words, timeout=100):
    done = subprocess.run(
        [sys.executable, PROGRAM, "--heliosproxy", heliosproxy(), "--helios-bench", helios_bench(), *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env={**os.environ},
    )
    return done.returncode, done.stdout, done.stderr


@runner.timeout(120)
def test_every_client_is_served():
    """64 clients on 4 connections, on one core and on two: each gets transactions of its own."""
    code, out, err = run("--seconds", "3", "--pgbouncer", "", "--json")
    assert code == 0, err
    results = json.loads(out)
    assert [result["pooler"] for result in results] == ["heliosproxy, 1 core", "heliosproxy, 2 cores"], results
    for result in results:
        clients = result["clients"]
        assert 0 < clients["min"] <= clients["median"] <= clients["max"], result
        assert sum(wait["transactions"] for wait in result["waits"].values()) == result["transactions"], result
        short = result["waits"]["mixed 1 ms"]
        assert 0 < short["p50"] <= short["p99"], result


@runner.timeout(120)
def test_table():
    """The table has a line for each pooler, PgBouncer too where it is installed."""
    code, out, err = run("--seconds", "1", "--clients", "8")
    assert code == 0, err
    assert "heliosproxy, 1 core " in out and "heliosproxy, 2 cores" in out and "p99/p50" in out, out
    assert "\npgbouncer" in out, out


def test_wrong_usage():
    """Wrong numbers, and programs that are not there, are errors that say so."""
    code, _, err = run("--clients", "0")
    assert code == 2 and "--clients" in err, err
    code, _, err = run("--seconds", "1", "--helios-bench", "/nonexistent")
    assert code == 1 and "/nonexistent" in err and "Traceback" not in err, err


if __name__ == "__main__":
    runner.main()
