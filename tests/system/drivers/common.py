"""What the programs of Python drivers share: clients at the same time, each going through every check."""

import os
import threading
import time

CLIENTS = int(os.environ["DRIVER_CLIENTS"])
ROWS = [(i, f"name {i}") for i in range(200)]
# How often each client notifies, and the channel that all of them listen to.
NEWS_COUNT = 5
NEWS = "news"


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


def check_news(table, pid, heard):
    """What a client has heard that listens to the channel of its table and to NEWS, as (process id, channel, payload):
    of another one of its own on the first; on the second its own words, with the process id that its driver was told,
    and those of other clients."""
    by_another = [(number != pid, payload) for number, channel, payload in heard if channel == table]
    assert by_another == [(True, f"{table} {turn}") for turn in range(NEWS_COUNT)], (pid, heard)
    of_all = [(number, payload) for number, channel, payload in heard if channel == NEWS]
    own = [got for got in of_all if got[1].startswith(f"{table} ")]
    assert own == [(pid, f"{table} {turn}") for turn in range(NEWS_COUNT)], (pid, heard)
    rest = [got for got in of_all if got not in own]
    assert all(number != pid and payload.startswith("driver_") for number, payload in rest), (pid, heard)
    assert len(by_another) + len(own) + len(rest) == len(heard), heard


def exchange_news(table, pid, say, say_oneself, hear, hear_rest):
    """A client that listens: `say` has another one run SQL, `say_oneself` this one; `hear` waits for notifications and
    returns them, `hear_rest` returns those that are there."""
    heard = []

    def wait_for(*wanted):
        while wanted not in [got[1:] for got in heard]:
            heard.extend(hear())

    say_oneself(f"listen {table}")
    say_oneself(f"listen {NEWS}")
    for turn in range(NEWS_COUNT):
        say(f"notify {table}, '{table} {turn}'")
        wait_for(table, f"{table} {turn}")
        say_oneself(f"notify {NEWS}, '{table} {turn}'")
        wait_for(NEWS, f"{table} {turn}")
    check_news(table, pid, heard)
    say_oneself("unlisten *")
    hear_rest()
    say(f"notify {table}, 'to nobody'")
    say_oneself("select 1")
    assert hear_rest() == []


def must_fail(function, kind):
    """The error of this kind that the function must raise."""
    try:
        function()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")
