#!/usr/bin/env python3
"""Boots a kernel in an emulated machine that holds the test programs, the proxy and PostgreSQL, and adds up what
kernel_guest.sh, which runs them there, reports. The machine has no disk and no network: everything is in the file
system that the kernel unpacks to memory."""

import argparse
import dataclasses
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

from quickstart import Failure, dies_with_us, postgres_program
from run_tests import DOCTEST, SHOWN_LINES, Progress

LIB = pathlib.Path(__file__).resolve().parent
TEST_PROGRAMS = ("tests/runtime/runtime_test", "tests/runtime/thread_test", "tests/net/net_test", "heliosproxy")
POSTGRES_PROGRAMS = ("initdb", "postgres", "psql", "pgbench")
POSTGRES_MODULES = ("plpgsql.so", "dict_snowball.so")  # What initdb loads.
PROGRAMS = ("runtime_test", "thread_test", "net_test", "proxy")  # What kernel_guest.sh reports about.
MACHINE_SECONDS = 2400  # At the most. A busy machine takes five minutes.
LIBRARY = re.compile(r"(/\S+) \(0x")
DURATION = re.compile(r"^([0-9.]+) s: (.*)")
REPORT = re.compile(r"^@(begin|end|doing|check|note) (.*)")
# Not the complaints of a kernel whose emulated CPUs get no time: lockups and RCU stalls.
KERNEL_FAULT = re.compile(r"kernel BUG|BUG: (?!soft lockup|workqueue lockup)|Oops|WARNING: CPU|Kernel panic"
                          r"|general protection fault")

USERS = "root:x:0:0::/:/bin/sh\ntester:x:1000:1000::/tmp:/bin/sh\n"
GROUPS = "root:x:0:\ntester:x:1000:\n"


@dataclasses.dataclass
class Outcome:
    """What one program gave."""

    name: str
    started: float
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    is_ended: bool = False
    note: str = ""


progress = Progress()


# --- the file system ------------------------------------------------------------------------------------------------


class Image:
    """A directory that becomes the machine's file system."""

    def __init__(self, directory):
        self.directory = directory

    def path(self, name):
        path = self.directory / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add(self, source, name=None):
        """Adds a file, or a directory with all that is in it; as the same path if no other is named."""
        path = self.path(str(name or source))
        if pathlib.Path(source).is_dir():
            shutil.copytree(source, path, dirs_exist_ok=True)
        else:
            shutil.copy2(source, path)
            path.chmod(0o755)  # Whatever it is here: in there it belongs to root, and an ordinary user runs it.

    def add_program(self, source, name=None):
        """Adds a program and the libraries it is linked with."""
        self.add(source, name)
        listed = subprocess.run(["ldd", str(source)], capture_output=True, text=True, check=True).stdout
        for library in LIBRARY.findall(listed):
            if not self.path(library).exists():
                self.add(library)

    def write(self, name, text):
        self.path(name).write_text(text)

    def pack(self, archive):
        # Not compressed: the emulated machine would take longer to unpack it.
        names = sorted(str(path.relative_to(self.directory)) for path in self.directory.rglob("*"))
        with open(archive, "wb") as output:
            subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], input="\n".join(names).encode(),
                           stdout=output, cwd=self.directory, check=True)


def postgres_directory(kind):
    """Where PostgreSQL has its files of a kind: bindir, pkglibdir, sharedir."""
    config = pathlib.Path(postgres_program("initdb")).with_name("pg_config")
    done = subprocess.run([config, f"--{kind}"], capture_output=True, text=True, check=True)
    return pathlib.Path(done.stdout.strip())


def make_image(arguments, directory, archive):
    image = Image(directory)
    for name in ("proc", "sys", "dev", "tmp"):
        image.path(name).mkdir()
    image.add(arguments.busybox, "bin/busybox")
    image.path("bin/sh").symlink_to("busybox")
    image.add(LIB / "kernel_guest.sh", "init")
    image.write("etc/passwd", USERS)
    image.write("etc/group", GROUPS)
    image.write("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
    for name in TEST_PROGRAMS:
        image.add_program(arguments.build_dir / name, f"test/{pathlib.Path(name).name}")
    for name in POSTGRES_PROGRAMS:
        image.add_program(postgres_directory("bindir") / name)
    for name in POSTGRES_MODULES:
        image.add_program(postgres_directory("pkglibdir") / name)
    image.add(postgres_directory("sharedir"))
    image.pack(archive)


# --- the machine ----------------------------------------------------------------------------------------------------


def machine_command(kernel, archive, console):
    # The second serial line is ours. A panic, like the end of the tests, ends the machine.
    parameters = "console=ttyS0 loglevel=5 panic=-1 mitigations=off rdinit=/init "
    parameters += f"POSTGRES={postgres_directory('bindir')}"
    return ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-kernel", kernel, "-initrd", archive,
            "-append", parameters, "-serial", f"file:{console}", "-serial", "stdio"]


class Report:
    """Understands the lines that kernel_guest.sh writes, and shows them as they come."""

    def __init__(self):
        self.outcomes = []
        self.doing = "booting"
        self.cases = 0
        self.output = []

    def take(self, line):
        match = REPORT.match(line)
        if match:
            getattr(self, f"_{match[1]}")(match[2])
            return
        running = self.outcomes[-1] if self.outcomes and not self.outcomes[-1].is_ended else None
        case = DURATION.match(line)
        counts = DOCTEST.match(line)
        if running and case:
            self.cases += 1
            self.doing = f"{running.name}: {self.cases} cases, the last one in {float(case[1]):.1f} s: {case[2]}"
            progress.tick(self.doing)
        elif running and counts:
            running.passed, running.failed = int(counts[2]), int(counts[3])
        self.output.append(line)

    def show_output(self):
        """Shows what a program that failed had to say, or QEMU if none ran. doctest wrote a block for each case: only
        the bad ones are shown."""
        blocks = [block.strip() for block in re.split(r"^={79}$", "\n".join(self.output), flags=re.MULTILINE)]
        bad = [block for block in blocks[:-1] if re.search("ERROR|FATAL", block)]
        lines = "\n".join([*bad, blocks[-1]]).splitlines()
        for line in lines[-SHOWN_LINES:]:
            print(f"        {line}", flush=True)

    def _begin(self, name):
        self.cases = 0
        self.output = []
        self.outcomes.append(Outcome(name, time.monotonic()))
        self.doing = name
        progress.say(f"{name}: started")

    def _end(self, status):
        outcome = self.outcomes[-1]
        outcome.is_ended = True
        outcome.seconds = time.monotonic() - outcome.started
        if status != "0":
            outcome.note = f"ended with status {status}"
            outcome.failed = outcome.failed or 1
        elif not outcome.passed:
            outcome.note, outcome.failed = "ran nothing", 1
        progress.say(f"{outcome.name}: {outcome.passed} passed, {outcome.failed} failed")
        if outcome.failed:
            self.show_output()

    def _doing(self, what):
        self.doing = f"{self.outcomes[-1].name}: {what}"

    def _check(self, text):
        result, _, what = text.partition(" ")
        outcome = self.outcomes[-1]
        if result == "passed":
            outcome.passed += 1
        else:
            outcome.failed += 1
        progress.say(f"{outcome.name}: {result}: {what}")

    def _note(self, text):
        progress.say(text)


def read_lines(process, lines):
    for line in process.stdout:
        lines.put(line.strip("\r\n"))
    lines.put(None)


def run_machine(command, report):
    """Returns why the machine did not come to its end, or an empty string."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace",
                               preexec_fn=dies_with_us(signal.SIGKILL))
    lines = queue.SimpleQueue()
    threading.Thread(target=read_lines, args=(process, lines), daemon=True).start()
    deadline = time.monotonic() + MACHINE_SECONDS
    try:
        while time.monotonic() < deadline:
            try:
                line = lines.get(timeout=1)
            except queue.Empty:
                progress.tick(report.doing)
                continue
            if line is None:
                status = process.wait()
                return f"qemu ended with status {status}" if status else ""
            report.take(line)
        return f"not at its end after {MACHINE_SECONDS // 60} minutes"
    finally:
        process.kill()
        process.wait()


def check_machine(report, problem, console):
    """Counts what no program reports: a program that never came to its end, and a kernel that complains."""
    messages = console.read_text(errors="replace") if console.exists() else ""
    fault = KERNEL_FAULT.search(messages)
    unfinished = [outcome for outcome in report.outcomes if not outcome.is_ended]
    for outcome in unfinished:
        outcome.failed, outcome.note = outcome.failed + 1, "did not end"
    names = [outcome.name for outcome in report.outcomes]
    missing = [Outcome(name, 0.0, failed=1, note="was not run") for name in PROGRAMS if name not in names]
    kernel = Outcome("kernel", 0.0, passed=1, note="no complaint, and switched off in order")
    if problem or fault:
        kernel = Outcome("kernel", 0.0, failed=1, note=problem or f"said: {fault[0]}")
    if unfinished or missing or kernel.failed:
        report.show_output()
        for line in messages.splitlines()[-SHOWN_LINES:]:
            print(f"        {line}", flush=True)
    report.outcomes += [*missing, kernel]


def show_table(outcomes):
    print(f"\n{'program':<16}{'time':>8}{'passed':>8}{'failed':>8}")
    for outcome in outcomes:
        print(f"{outcome.name:<16}{outcome.seconds:>6.0f} s{outcome.passed:>8}{outcome.failed:>8}  "
              f"{outcome.note}".rstrip())
    print()


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tools/test-kernel")
    parser.add_argument("--build-dir", type=pathlib.Path, required=True)
    parser.add_argument("--kernel", type=pathlib.Path, required=True)
    parser.add_argument("--busybox", type=pathlib.Path, required=True)
    parser.add_argument("--keep", action="store_true")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)  # Who runs the tests in there reads what we make here.
    directory = arguments.build_dir / "kernel" / "run"
    console = directory / "console.log"
    report = Report()
    try:
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "root").mkdir(parents=True)
        progress.say("packing the machine's file system")
        make_image(arguments, directory / "root", directory / "root.cpio")
        progress.say(f"booting {arguments.kernel}")
        problem = run_machine(machine_command(arguments.kernel, directory / "root.cpio", console), report)
        check_machine(report, problem, console)
    except (Failure, OSError, subprocess.CalledProcessError) as failure:
        print(f"test-kernel: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        if arguments.keep:
            print(f"kept: {directory}", flush=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    show_table(report.outcomes)
    failed = sum(outcome.failed for outcome in report.outcomes)
    print(f"{sum(outcome.passed for outcome in report.outcomes)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
