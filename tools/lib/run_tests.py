#!/usr/bin/env python3
"""Builds HeliosProxy in every configuration, runs the tests that belong to each, and adds up what they say.

A test program says how many of its cases passed: doctest in its closing line, Python tests in a last line
"N passed, N failed". A program that crashed, hung or left processes behind is one more failure; so is a build that
failed.

While one configuration is tested the next ones are built, with what the tests leave of the CPUs: most of them wait.
"""

import argparse
import concurrent.futures
import ctypes
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCTEST = re.compile(r"^\[doctest\] test cases:\s*(\d+)\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed", re.MULTILINE)
SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\s*$", re.MULTILINE)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
SHOWN_LINES = 60
PR_SET_CHILD_SUBREAPER = 36


@dataclasses.dataclass
class Configuration:
    """One build directory and the tests that are run in it."""

    name: str
    directory: str
    options: list
    compiler: tuple = ("gcc", "g++")
    suite: str = ""  # Empty: all.
    targets: tuple = ()  # What is built; empty: everything.
    environment: dict = dataclasses.field(default_factory=dict)
    needs_fixed_addresses: bool = False


# Stack traces need functions and lines only; the whole of what debuggers like takes a third of the compiler's time.
SANITIZER_OPTIONS = ["--buildtype=debug", "-Doptimization=1", "-Dcpp_args=-g1", "-Dc_args=-g1"]
SANITIZER_ENVIRONMENT = {
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    # Sanitized programs are slow: system tests put on a fifth of their load.
    "HELIOS_TEST_LOAD": "0.2",
}
CONFIGURATIONS = [
    Configuration("gcc release", "build", ["--buildtype=release", "-Dwerror=true"]),
    Configuration("gcc address+undefined", "build-asan",
                  [*SANITIZER_OPTIONS, "-Db_sanitize=address,undefined"],
                  environment=SANITIZER_ENVIRONMENT, needs_fixed_addresses=True),
    Configuration("gcc thread", "build-tsan",
                  [*SANITIZER_OPTIONS, "-Db_sanitize=thread"],
                  suite="thread", targets=("heliosproxy", "tests/runtime/thread_test", "tests/pool/pool_test"),
                  environment=SANITIZER_ENVIRONMENT, needs_fixed_addresses=True),
    Configuration("clang 14", "build-clang", ["--buildtype=debug", "-Dwerror=true"],
                  compiler=("clang-14", "clang++-14"), suite="quick"),
]


@dataclasses.dataclass
class Outcome:
    """What one configuration gave."""

    name: str
    build_seconds: float = 0.0
    test_seconds: float = 0.0
    programs: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    note: str = ""


class Progress:
    """Lines with the time since the start; a line that is replaced in place where there is a terminal."""

    def __init__(self):
        self.start = time.monotonic()
        self.is_terminal = sys.stdout.isatty()
        self.last_shown = 0.0

    def say(self, text):
        elapsed = int(time.monotonic() - self.start)
        clear = "\r\x1b[K" if self.is_terminal else ""
        print(f"{clear}[{elapsed // 60:3d}:{elapsed % 60:02d}] {text}", flush=True)

    def tick(self, text):
        """Shows something that comes often: in place, or every ten seconds."""
        now = time.monotonic()
        if self.is_terminal:
            elapsed = int(now - self.start)
            width = shutil.get_terminal_size().columns - 1
            line = f"[{elapsed // 60:3d}:{elapsed % 60:02d}] {text}"
            print(f"\r\x1b[K{line[:width]}", end="", flush=True)
        elif now - self.last_shown > 10:
            self.last_shown = now
            self.say(text)


progress = Progress()
running = {}  # Our own commands: {pid: process}.
running_lock = threading.Lock()


def run(command, on_line, environment=None, niceness=0):
    """Runs a command in a process group of its own; returns its exit status. Every line of output goes to on_line."""
    words = ["nice", "-n", str(niceness), *command] if niceness else command
    with running_lock:
        process = subprocess.Popen(
            [str(word) for word in words], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
            env={**os.environ, **(environment or {})})
        running[process.pid] = process
    if niceness:
        make_group_nice(process.pid, niceness)
    try:
        for line in process.stdout:
            on_line(line.rstrip("\n"))
        return process.wait()
    except BaseException:
        stop_group(process)
        raise
    finally:
        running.pop(process.pid, None)


def make_group_nice(pid, niceness):
    """Where the kernel shares the CPUs out by session first (sched_autogroup), `nice` means nothing between two."""
    try:
        pathlib.Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
    except OSError:
        pass  # It does not, or the command has ended.


def stop_group(process):
    """Lets a command end by itself for a while (tests stop the servers they started), then kills its group."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except ProcessLookupError:
        pass


def adopt_orphans():
    """Makes processes that lose their parent ours, so that none can outlive us unseen."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children():
    """Returns {pid: name} of our living children but for the commands that we run; takes the ends of dead ones."""
    found = {}
    with running_lock:
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in running:
                continue
            try:
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            state, parent = rest.split()[:2]
            if int(parent) != os.getpid():
                continue
            if state == "Z":
                os.waitpid(int(entry.name), os.WNOHANG)
            else:
                found[int(entry.name)] = name
    return found


def end_orphans():
    """Ends processes that tests left behind; returns their names. Those that are just ending get two seconds."""
    deadline = time.monotonic() + 2
    while children() and time.monotonic() < deadline:
        time.sleep(0.05)
    names = []
    while True:
        left = children()
        if not left:
            return names
        for pid, name in left.items():
            names.append(name)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)


def configure(configuration, on_line):
    directory = ROOT / configuration.directory
    # Meson uses ccache by itself only with the compiler it finds by itself.
    cache = "ccache " if shutil.which("ccache") else ""
    compiler = {"CC": cache + configuration.compiler[0], "CXX": cache + configuration.compiler[1]}
    if (directory / "build.ninja").is_file():
        if run(["meson", "configure", directory, *configuration.options], lambda line: None, compiler) == 0:
            return True
        return run(["meson", "setup", "--wipe", directory, *configuration.options], on_line, compiler) == 0
    return run(["meson", "setup", directory, *configuration.options], on_line, compiler) == 0


def build(configuration, niceness):
    """Returns True when everything was compiled; shows the end of the output otherwise."""
    lines = []

    def on_line(line):
        lines.append(line)
        progress.tick(f"{configuration.name}: {line}")

    progress.say(f"{configuration.name}: configuring {configuration.directory}")
    is_good = configure(configuration, on_line)
    if is_good:
        progress.say(f"{configuration.name}: building")
        lines.clear()
        command = ["ninja", "-C", ROOT / configuration.directory, *configuration.targets]
        is_good = run(command, on_line, niceness=niceness) == 0
    if not is_good:
        progress.say(f"{configuration.name}: the build failed")
        print("\n".join(errors_of(lines)), flush=True)
    return is_good


def errors_of(lines):
    """Returns the part of a build's output that says what is wrong: ninja's failed steps, else its end."""
    shown, is_failed = [], False
    for line in lines:
        if line.startswith("FAILED:"):
            is_failed = True
        elif re.match(r"\[\d+/\d+\] ", line):
            is_failed = False
        if is_failed:
            shown.append(line)
    return (shown or lines)[-2 * SHOWN_LINES:]


def can_fix_addresses():
    return shutil.which("setarch") and run(["setarch", "-R", "true"], lambda line: None) == 0


def test_command(configuration):
    command = ["meson", "test", "-C", ROOT / configuration.directory, "--no-rebuild"]
    if configuration.suite:
        command += ["--suite", configuration.suite]
    # The sanitizers of GCC 12 do not find room for their shadow where the kernel randomises 32 bits of an address.
    if configuration.needs_fixed_addresses and can_fix_addresses():
        command = ["setarch", "-R", *command]
    return command


def counts_of(test):
    """Returns (passed, failed, skipped) of one entry of Meson's log."""
    output = COLOUR.sub("", test.get("stdout") or "")
    result = test["result"]
    if result == "SKIP":
        return 0, 0, 1
    passed = failed = skipped = 0
    doctest = DOCTEST.findall(output)
    summary = SUMMARY.findall(output)
    if doctest:
        passed, failed = int(doctest[-1][1]), int(doctest[-1][2])
    elif summary:
        passed, failed, skipped = (int(number or 0) for number in summary[-1])
    elif result == "OK":
        passed = 1
    if result != "OK" and failed == 0:
        failed = 1
    return passed, failed, skipped


def show_failure(configuration, test):
    progress.say(f"{configuration.name}: {test['name']}: {test['result']} (status {test.get('returncode')})")
    text = (test.get("stdout") or "") + (test.get("stderr") or "")
    print("\n".join(f"    {line}" for line in text.splitlines()[-SHOWN_LINES:]), flush=True)


def read_log(configuration, outcome):
    log = ROOT / configuration.directory / "meson-logs" / "testlog.json"
    for line in log.read_text(errors="replace").splitlines() if log.is_file() else []:
        test = json.loads(line)
        passed, failed, skipped = counts_of(test)
        outcome.programs += 1
        outcome.passed += passed
        outcome.failed += failed
        outcome.skipped += skipped
        if failed:
            show_failure(configuration, test)
        elif skipped:
            lines = (test.get("stdout") or "").strip().splitlines()
            reasons = [line for line in lines if line.startswith("skipped")] or lines[-1:] or ["skipped"]
            for reason in reasons:
                progress.say(f"{configuration.name}: {test['name']}: {reason}")


def run_tests(configuration, outcome):
    log = ROOT / configuration.directory / "meson-logs" / "testlog.json"
    log.unlink(missing_ok=True)
    progress.say(f"{configuration.name}: testing")
    last_line = ""

    def on_line(line):
        nonlocal last_line
        last_line = line or last_line
        if re.match(r"\s*\d+/\d+ ", line):
            progress.say(f"{configuration.name}: {line.strip()}")

    status = run(test_command(configuration), on_line, configuration.environment)
    read_log(configuration, outcome)
    if status and not outcome.failed:
        outcome.failed += 1
        progress.say(f"{configuration.name}: meson test failed: {last_line}")
    orphans = end_orphans()
    if orphans:
        outcome.failed += 1
        progress.say(f"{configuration.name}: processes were left behind: {', '.join(orphans)}")


def build_timed(configuration, niceness):
    """Builds; returns (whether there is something to test, the outcome so far)."""
    outcome = Outcome(configuration.name)
    if not shutil.which(configuration.compiler[1]):
        outcome.note = f"skipped: no {configuration.compiler[1]} (tools/setup --with-clang)"
        return False, outcome
    start = time.monotonic()
    is_good = build(configuration, niceness)
    outcome.build_seconds = time.monotonic() - start
    if not is_good:
        outcome.failed, outcome.note = 1, "the build failed"
    return is_good, outcome


def run_all(configurations, outcomes):
    """Builds one configuration after the other and tests each when it is built; adds each outcome when it is known."""
    builder = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    try:
        # All but the first leave the CPUs to the tests.
        builds = [builder.submit(build_timed, each, 19 if number > 0 else 0)
                  for number, each in enumerate(configurations)]
        for configuration, built in zip(configurations, builds):
            is_good, outcome = built.result()
            if is_good:
                start = time.monotonic()
                run_tests(configuration, outcome)
                outcome.test_seconds = time.monotonic() - start
            outcomes.append(outcome)
    finally:
        builder.shutdown(wait=False, cancel_futures=True)


def show_table(outcomes):
    print(f"\n{'configuration':<24}{'build':>8}{'tests':>8}{'programs':>10}{'passed':>8}{'failed':>8}{'skipped':>9}")
    for outcome in outcomes:
        print(f"{outcome.name:<24}{outcome.build_seconds:>6.0f} s{outcome.test_seconds:>6.0f} s{outcome.programs:>10}"
              f"{outcome.passed:>8}{outcome.failed:>8}{outcome.skipped:>9}  {outcome.note}".rstrip())
    print()


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tools/test", description="Packages, build, every test.")
    parser.add_argument("--quick", action="store_true", help="the release build and its quick suite only")
    parser.add_argument("--only", metavar="DIRECTORY", choices=[each.directory for each in CONFIGURATIONS],
                        help="one configuration, named by its build directory")
    parser.add_argument("--no-setup", action="store_true", help="do not look for missing packages first")
    return parser.parse_args()


def chosen(arguments):
    if arguments.quick:
        return [dataclasses.replace(CONFIGURATIONS[0], suite="quick")]
    return [each for each in CONFIGURATIONS if arguments.only in (None, each.directory)]


def main():
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    adopt_orphans()
    outcomes = []
    try:
        run_all(chosen(arguments), outcomes)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        for process in list(running.values()):
            stop_group(process)
        end_orphans()
    show_table(outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"{sum(outcome.passed for outcome in outcomes)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
