#!/usr/bin/python3
"""What the program says about itself: the table that SIGUSR1 asks for, and the sums at its end."""

import re
import signal
import tempfile
import time

from harness import proxy as proxy_module
from harness import runner
from harness.wire import query

CORES = (1, 2)
TRANSACTIONS = 300


def count(row, column):
    return int(re.match(r"\d+", row[column])[0])


def acquires(row):
    return count(row, "at once") + count(row, "waited")


def settled(proxy, clients):
    """A table of a moment in which nobody works."""

    def ask_once():
        table = proxy.statistics()
        total = table["total"]
        quiet = count(total, "leased") + count(total, "waiting") + count(total, "connecting") == 0
        return table if quiet and count(total, "clients") == clients else None

    return runner.eventually(ask_once, what="a moment without work")


def check_row(row, limit):
    """What must agree in a row of a pool while nobody works."""
    backends = count(row, "backends")
    parts = ("leased", "idle", "connecting", "settling", "closing")
    assert backends == sum(count(row, part) for part in parts), row
    assert backends + count(row, "free") == limit, row
    ready = count(row, "connects") - count(row, "failed connects")
    assert ready - count(row, "closed") == backends - count(row, "closing"), row
    assert count(row, "moved in") == count(row, "moved out"), row
    assert count(row, "failed") == 0, row


@runner.cases(*CORES)
@runner.timeout(120)
def test_numbers_add_up(cores):
    """After pgbench the acquires are its transactions, and the backends are the permits taken."""
    clients, limit = 16, 4
    with runner.fresh_proxy(cores=cores, max_connections=limit) as proxy:
        with proxy.client("bench", "bench") as client:
            client.query("select 1")
        before = settled(proxy, 0)["bench@bench"]
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
            script.write("select 1;\n")
            script.flush()
            words = ["-c", clients, "-j", 2, "-t", TRANSACTIONS, "-f", script.name]
            _, _, transactions = proxy_module.pgbench(proxy, [str(word) for word in words])
        assert transactions == clients * TRANSACTIONS, transactions
        table = settled(proxy, 0)
        pool = table["bench@bench"]
        # A login needs a backend only where the server's parameters are not known yet.
        asked = acquires(pool) - acquires(before)
        assert transactions <= asked <= transactions + clients + 1, (asked, pool)
        check_row(pool, limit)
        for name in (("node", "main"), "total"):
            assert acquires(table[name]) == acquires(pool), table
            assert count(table[name], "backends") == count(pool, "backends"), table
        proxy.stop()


def test_table_while_clients_work():
    """Who holds, and who waits for how long, is in the table; durations have units."""
    with runner.fresh_proxy(cores=2, max_connections=1) as proxy:
        holder, waiter = proxy.client("alice", "app"), proxy.client("alice", "app")
        holder.query("begin")
        waiter.send(query("select 2"))
        row = runner.eventually(
            lambda: next((t for t in [proxy.statistics()["alice@app"]] if count(t, "waiting") == 1), None),
            what="the waiter",
        )
        assert row["backends"] == "1/1" and row["leased"] == "1" and row["free"] == "0", row
        assert re.fullmatch(r"[\d.]+ (ns|us|ms|s)", row["oldest"]), row
        assert re.fullmatch(r"([\d.]+ (ns|us|ms|s)/?){3}", row["connect"]), row
        holder.query("commit")
        assert waiter.result() == [["2"]]
        row = proxy.statistics()["alice@app"]
        assert re.fullmatch(r"([\d.]+ (ns|us|ms|s)/?){3}", row["wait"]), row
        assert row["oldest"] == "-" and count(row, "waited") >= 1, row


def age(row):
    """Seconds of the longest pin; 0 if there is none."""
    if row["longest pin"] == "-":
        return 0.0
    number, unit = row["longest pin"].split(" ")
    return float(number) * {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}[unit]


@runner.cases(*CORES)
def test_pins(cores):
    """What keeps backends with their clients is in the log and the table: who and why, how many, for how long."""
    with runner.fresh_proxy(cores=cores, max_connections=4) as proxy:
        with proxy.client("alice", "app") as one, proxy.client("alice", "app") as two:
            row = proxy.statistics()["alice@app"]
            assert row["pinned"] == "0" and row["longest pin"] == row["pinned by"] == "-" and row["pins"] == "0", row
            before_first = time.monotonic()
            one.query("create temporary table held (x int)")
            runner.eventually(lambda: age(proxy.statistics()["alice@app"]) > 0.5, what="half a second of a pin")
            before_second = time.monotonic()
            two.query("select pg_advisory_lock(5)")

            def pinned(number):
                """A table in which so many are; what it says of the longest is bounded by what is seen from here."""
                asked = time.monotonic()
                table = proxy.statistics()
                return (asked, time.monotonic(), table) if count(table["alice@app"], "pinned") == number else None

            asked, told, table = runner.eventually(lambda: pinned(2), what="two pins")
            for name in ("alice@app", ("node", "main"), "total"):
                row = table[name]
                assert row["pinned"] == row["leased"] == "2", row
                assert row["pinned by"] == "1 temporary table, 1 advisory lock", row
                assert row["pins"] == "2 (1 temporary table, 1 advisory lock)", row
                # Three digits are shown; the pin may begin behind the answer.
                assert age(row) <= 1.01 * (told - before_first), (row, told - before_first)
                assert age(row) >= 0.4 + 0.99 * (asked - before_second), (row, asked - before_second)
            for client, reason in ((one, "temporary table"), (two, "advisory lock")):
                line = f"client {client.pid} of alice@app keeps its server connection: {reason}"
                assert proxy.log().count(line) == 1, (line, proxy.log())
            # The other is the oldest then.
            one.query("drop table held")
            _, told, table = runner.eventually(lambda: pinned(1), what="one pin")
            assert age(table["alice@app"]) <= 1.01 * (told - before_second), (table, told - before_second)
            two.query("select pg_advisory_unlock(5)")
            _, _, table = runner.eventually(lambda: pinned(0), what="no pin")
            row = table["alice@app"]
            assert row["longest pin"] == row["pinned by"] == "-" and row["pins"] == "2 (1 temporary table, 1 advisory lock)", row


def test_sums_at_the_end():
    """At its end the program logs what was asked for and how the backends ended, over all cores."""
    with runner.fresh_proxy(cores=2, max_connections=2) as proxy:
        clients = [proxy.client("bob", "app") for _ in range(4)]
        for client in clients * 5:
            client.query("select 1")
        for client in clients:
            client.close()
        asked = acquires(settled(proxy, 0)["total"])
        proxy.signal(signal.SIGTERM)
        code = proxy.wait()
        log = proxy.log()
        served = re.search(r"acquires: (\d+) at once, (\d+) waited, .* failed 0,", log)
        assert served and int(served[1]) + int(served[2]) == asked, log
        ended = re.search(r"backends: (\d+) connects, 0 failed, .* closed (\d+) \((\d+) shutting down\)", log)
        assert ended and ended[1] == ended[2] == ended[3], log
        proxy.finish(code)


if __name__ == "__main__":
    runner.main()
