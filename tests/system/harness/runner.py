"""Runs the tests of a file: each function `test_...`, with a time-out, one line per test.

    ./test_x.py [name ...]      all tests, or those whose name contains one of the words
    ./test_x.py --list

Environment: HELIOSPROXY (the program), HELIOS_TEST_LOAD (1.0: how much load; the time of the long tests
follows it), HELIOS_TEST_IO_FEATURES_OFF (given on to every proxy).
"""

import atexit
import faulthandler
import functools
import os
import re
import resource
import shutil
import signal
import sys
import threading
import time
import traceback

from . import cluster as cluster_module
from . import libpq, proxy as proxy_module, wire

SKIPPED = 77
DEFAULT_TIMEOUT = 60
WATCHDOG_GRACE = 20


class TestTimeout(BaseException):
    """Raised in the main thread when a test takes too long."""


class Skip(Exception):
    """A test that cannot run here says why."""


def load():
    """The load factor: 1.0 for the full size of the long tests."""
    return float(os.environ.get("HELIOS_TEST_LOAD", "1.0"))


def scaled(count, least=1):
    """`count` at load factor 1, never below `least`."""
    return max(least, int(count * load()))


def option(name):
    """The value behind `name` on the command line, taken out of it; None if it is not there."""
    if name not in sys.argv:
        return None
    at = sys.argv.index(name)
    if at + 1 == len(sys.argv):
        sys.exit(f"{name} needs a value")
    del sys.argv[at]
    return sys.argv.pop(at)


def timeout(seconds):
    def mark(function):
        function.timeout = seconds
        return function

    return mark


def cases(*values):
    """One test for each value: a tuple of arguments, or one argument."""

    def mark(function):
        function.cases = [v if isinstance(v, tuple) else (v,) for v in values]
        return function

    return mark


# What the tests of a file share.

_cluster = None
_cluster_options = {}
_proxies = {}
_alive = []


def cluster():
    """The private PostgreSQL of this run."""
    global _cluster
    if _cluster is None:
        _cluster = cluster_module.Cluster(**_cluster_options)
    return _cluster


def use_cluster(**options):
    """How `cluster()` of this file is made: arguments of Cluster. At the head of the file."""
    _cluster_options.update(options)


def proxy(**arguments):
    """A proxy before `cluster()` that lives to the end of the run, shared by equal arguments."""
    key = repr(sorted(arguments.items()))
    if key not in _proxies:
        _proxies[key] = proxy_module.Proxy(proxy_module.config(cluster(), **arguments))
        _alive.append(_proxies[key])
    return _proxies[key]


def fresh_proxy(configuration=None, arguments=(), preexec=None, wait=True, **keys):
    """A proxy of one test, for use with `with`."""
    if configuration is None:
        configuration = proxy_module.config(cluster(), **keys)
    made = proxy_module.Proxy(configuration, arguments, preexec, wait)
    _alive.append(made)
    return made


# Helpers of many tests.


def eventually(condition, seconds=20, what="the condition"):
    """Waits until `condition()` holds; its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.02)


def wait_running(marker):
    """Waits until PostgreSQL runs a query with this word in it."""
    eventually(
        lambda: cluster().backends(f"state = 'active' and query like '%{marker}%'"),
        what=f"query {marker} running",
    )


def in_threads(functions, seconds=120):
    """Runs the functions at the same time, raises the first failure, returns their results."""
    results, failures = [None] * len(functions), []

    def run(index, function):
        try:
            results[index] = function()
        except BaseException as error:  # pylint: disable=broad-except
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=item, daemon=True) for item in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        if failures:
            break
        assert not thread.is_alive(), f"not done within {seconds} s"
    if failures:
        raise failures[0]
    return results


# The run.


def _expand(module):
    found = []
    for name, function in list(vars(module).items()):
        if not name.startswith("test_") or not callable(function):
            continue
        assert function.__doc__, f"{name} has no sentence"
        for values in getattr(function, "cases", [()]):
            label = name + (f"[{','.join(str(v) for v in values)}]" if values else "")
            seconds = getattr(function, "timeout", DEFAULT_TIMEOUT)
            found.append((label, functools.partial(function, *values), seconds))
    return found


def _alarm(*_):
    raise TestTimeout


def _terminated(number, _):
    sys.exit(128 + number)


def _watch(seconds):
    """Ends the process when even the alarm cannot."""

    def bark():
        print("    the time-out was not obeyed; all threads:", flush=True)
        faulthandler.dump_traceback(sys.stdout)
        sys.stdout.flush()
        _cleanup()
        os._exit(1)

    timer = threading.Timer(seconds + WATCHDOG_GRACE, bark)
    timer.daemon = True
    timer.start()
    return timer


def _run_one(label, function, seconds):
    """Runs one test; True if it passed, None if it was skipped."""
    began = time.monotonic()
    watchdog = _watch(seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    failure, skipped = None, None
    for running in _alive:
        running.forget_log()
    try:
        function()
        for running in list(_proxies.values()):
            running.check()
    except Skip as reason:
        skipped = str(reason)
    except TestTimeout:
        failure = f"no end within {seconds} s\n{traceback.format_exc()}"
    except Exception:  # pylint: disable=broad-except
        failure = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        watchdog.cancel()
    took = time.monotonic() - began
    word = "FAILED" if failure else "skipped" if skipped else "ok"
    print(f"{word:7} {took:7.2f} s  {label}" + (f": {skipped}" if skipped else ""), flush=True)
    if failure:
        _report(failure)
    wire.close_all()
    libpq.close_all()
    _drop_dead()
    return None if skipped else not failure


def _report(failure):
    for line in failure.rstrip().splitlines():
        print("    " + line)
    for running in _alive:
        if not running.stopped:
            running.show_log()
    sys.stdout.flush()


def _drop_dead():
    """Proxies that died are made anew for the next test; those of one test go."""
    shared = set(map(id, _proxies.values()))
    for running in list(_alive):
        if running.stopped or running.process.poll() is not None or id(running) not in shared:
            if not running.stopped:
                running.kill()
            _alive.remove(running)
    for key, running in list(_proxies.items()):
        if running.stopped:
            del _proxies[key]


def _stop_shared():
    """The last test: every shared proxy ends cleanly. True if so."""
    good = True
    for key, running in list(_proxies.items()):
        began = time.monotonic()
        try:
            running.stop()
            word = "ok"
        except Exception:  # pylint: disable=broad-except
            word, good = "FAILED", False
            traceback.print_exc(file=sys.stdout)
        print(f"{word:7} {time.monotonic() - began:7.2f} s  clean end of the proxy {key}", flush=True)
    _proxies.clear()
    return good


def _cleanup():
    global _cluster
    for running in _alive:
        if not running.stopped:
            running.kill()
    _alive.clear()
    _proxies.clear()
    if _cluster is not None:
        _cluster.stop()
        _cluster = None


def _missing():
    """Why the tests cannot run here, or an empty string."""
    if cluster_module.find_binaries() is None:
        return "PostgreSQL is not installed"
    for program in ("pgbench", "psql"):
        if not shutil.which(program):
            return f"{program} is not installed"
    if not os.environ.get("HELIOSPROXY"):
        return "HELIOSPROXY is not set"
    return ""


def main():
    """Runs the tests of the calling script; ends the process."""
    tests = _expand(sys.modules["__main__"])
    words = [a for a in sys.argv[1:] if not a.startswith("-")]
    if "--list" in sys.argv:
        print("\n".join(label for label, _, _ in tests))
        sys.exit(0)
    if words:
        tests = [t for t in tests if any(re.search(re.escape(w), t[0]) for w in words)]
    reason = _missing()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(SKIPPED)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGALRM, _alarm)
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, _terminated)
    atexit.register(_cleanup)
    results = [_run_one(*test) for test in tests]
    if _proxies:
        results.append(_stop_shared())
    _cleanup()
    passed = sum(1 for r in results if r)
    failed = sum(1 for r in results if r is False)
    skipped = sum(1 for r in results if r is None)
    tail = f", {skipped} skipped" if skipped else ""
    print(f"{passed} passed, {failed} failed{tail}", flush=True)
    sys.exit(1 if failed or not passed else 0)
