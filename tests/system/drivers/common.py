"""What the programs of Python drivers share: clients at the same time, each going through every check."""

import os
import threading
import time

CLIENTS = int(os.environ["DRIVER_CLIENTS"])
ROWS = [(i, f"name {i}") for i in range(200)]


def run(make_table, checks):
    """Calls each check with the name of a table of its own, for every client in a thread; says which went well."""
    failures = []

    def client(number):
        table = f"driver_{os.environ['DRIVER']}_{number}"
        try:
            make_table(table)
            for check in checks:
                check(table)
        except BaseException as error:
            failures.append(f"client {number}: {error!r}")
            raise

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit("\n".join(failures))
    for check in checks:
        print("ok", check.__name__, flush=True)


def cancel_until_done(cancel, work):
    """Runs `work`, which must raise, and cancels again and again meanwhile: a request that comes too early finds
    nothing to cancel. The error."""
    done = threading.Event()

    def keep_cancelling():
        while not done.wait(0.05):
            cancel()

    thread = threading.Thread(target=keep_cancelling)
    thread.start()
    began = time.monotonic()
    try:
        work()
    except Exception as error:  # pylint: disable=broad-except
        assert time.monotonic() - began < 25, "not cancelled"
        return error
    finally:
        done.set()
        thread.join()
    raise AssertionError("no error from a cancelled query")


def must_fail(function, kind):
    """The error of this kind that the function must raise."""
    try:
        function()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")
