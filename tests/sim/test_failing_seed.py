#!/usr/bin/env python3
"""What a failing seed looks like: it names itself with its settings, and goes the same way when it is run again as it
says. Likewise when an assertion ends the process.

    ./test_failing_seed.py PATH_OF_SIM
"""

import os
import re
import signal
import subprocess
import sys

FIRST, COUNT, ACT = 5, 3, "100"


# The cores of a seed that has failed are in no state to be destroyed.
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}


def run(sim, *words):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run([sim, *words], **pipes, text=True, timeout=300, env=ENVIRONMENT)


def trace_of(output):
    traces = set(re.findall(r"trace:? ([0-9a-f]{16})\b", output))
    assert len(traces) == 1, f"not one trace: {traces}\n{output}"
    return traces.pop()


def check_report(report, seed, option):
    """Returns the words that run this seed again."""
    assert report.startswith(f"seed {seed}: "), report
    for setting in (r"\d+ cores, \d+ clients", r"\n  network: ", r"\n  pool d0/u0 on node \d+: "):
        assert re.search(setting, report), f"the settings lack {setting!r}:\n{report}"
    replay = re.search(r"^  replay: tools/sim (.*)$", report, re.MULTILINE)
    assert replay, f"it does not say how to run it again:\n{report}"
    words = replay.group(1).split()
    assert words == ["--seed", str(seed), option, ACT], words
    return words


def test_check(sim):
    many = run(sim, "--seeds", str(COUNT), "--first", str(FIRST), "--fail-at", ACT)
    assert many.returncode == 1, many
    assert many.stdout.endswith(f"0 passed, {COUNT} failed\n"), many.stdout
    reports = many.stdout.split("FAILED: ")[1:]
    assert len(reports) == COUNT, many.stdout
    traces = set()
    for seed, report in enumerate(reports, FIRST):
        assert f"after {ACT} acts" in report, report
        words = check_report(report, seed, "--fail-at")
        trace = trace_of(report)
        for _ in range(2):
            again = run(sim, *words, "--quiet")
            assert again.returncode == 1, again
            assert trace_of(again.stdout) == trace, f"seed {seed} went another way:\n{report}\n{again.stdout}"
        traces.add(trace)
    assert len(traces) == COUNT, f"different seeds have one trace: {traces}"


def test_assertion(sim):
    ended = run(sim, "--seeds", str(COUNT), "--first", str(FIRST), "--abort-at", ACT)
    assert ended.returncode == -signal.SIGABRT, ended
    assert "assertion failed" in ended.stdout, ended.stdout
    report = ended.stdout.split("FAILED, the process ends here: ")[1]
    words = check_report(report, FIRST, "--abort-at")
    again = run(sim, *words, "--quiet")
    assert again.returncode == -signal.SIGABRT, again
    assert report in again.stdout, again.stdout


def test_nothing_fails_behind_the_end(sim):
    for option in ("--fail-at", "--abort-at"):
        passed = run(sim, "--seed", str(FIRST), "--quiet", option, "999999999")
        assert passed.returncode == 0, passed
        assert "FAILED" not in passed.stdout, passed.stdout


if __name__ == "__main__":
    for test in (test_check, test_assertion, test_nothing_fails_behind_the_end):
        test(sys.argv[1])
        print(f"{test.__name__}: ok")
