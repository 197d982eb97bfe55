#!/usr/bin/python3
"""helios-bench: what it sends, what it notices, what it reports. Nothing about how fast anything is."""

import itertools
import json
import os
import re
import signal
import subprocess
import tempfile
import time

from harness import runner, wire
from harness.backend import Backend
from harness.cluster import USERS, free_port
from harness.relay import Relay
from harness.wire import ScriptedServer

SCRIPTS = (
    "select-1",
    "lookup",
    "pgbench-select",
    "tpcb",
    "insert",
    "result-1mb",
    "copy-in",
    "copy-out",
    "connect",
    "think",
    "mixed",
)
MODES = ("simple", "extended", "prepared")


def program():
    path = os.environ.get("HELIOS_BENCH", "")
    if not path or not os.path.exists(path):
        raise runner.Skip(f"HELIOS_BENCH does not name the program: {path!r}")
    return path


def run(*words, timeout=60, **more):
    """Runs the program to its end: (exit code, stdout, stderr)."""
    done = subprocess.run(
        [program(), *[str(word) for word in words]],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        **more,
    )
    return done.returncode, done.stdout, done.stderr


def run_json(command, target, *words, expected=0, **more):
    """Runs `load` or `idle` with --json: the object, which must be alone on stdout."""
    code, out, err = run(command, "--target", target, "--json", "--quiet", *words, **more)
    assert code == expected, f"exit code {code}: {out} {err}"
    assert out.count("\n") == 1, out
    return json.loads(out)


def load(target, *words, duration="500ms", warm_up="100ms", **more):
    times = ["--duration", duration, "--warm-up", warm_up]
    return run_json("load", target, *times, *words, **more)


def check_good(result):
    assert result["transactions"] > 0, result
    assert result["failed"] == 0 and result["wrong"] == 0 and result["errors"] == [], result


def bench_tables():
    cluster = runner.cluster()
    if not cluster.run("select 1 from pg_class where relname = 'pgbench_history'", "bench"):
        cluster.make_bench(1)
    return cluster


def target_of(where):
    """The cluster itself, or the proxy before it."""
    cluster = bench_tables()
    address = cluster.address if where == "direct" else runner.proxy(max_connections=20).address
    return f"{address[0]}:{address[1]}"


BENCH = ("--user", "bench", "--database", "bench")


def sql_file(text):
    file = tempfile.NamedTemporaryFile("w", suffix=".sql")
    file.write(text)
    file.flush()
    return file


def code_of(result, sqlstate):
    """The entry of an error code."""
    found = [entry for entry in result["errors"] if entry["sqlstate"] == sqlstate]
    assert len(found) == 1, result["errors"]
    return found[0]


# What it runs.


# How many transactions of each client take about a second; the others take 50.
TRANSACTIONS = {"result-1mb": 5, "copy-in": 5, "copy-out": 5, "connect": 10, "think": 4}


@runner.cases(*[(where, mode, script) for where in ("direct", "proxy") for mode in MODES for script in SCRIPTS])
def test_script(where, mode, script):
    """Each built-in script runs in each mode, and every answer is right."""
    count = TRANSACTIONS.get(script, 50)
    words = ["--clients", 4, "--script", script, "--mode", mode, "--transactions", count]
    result = load(target_of(where), *BENCH, *words)
    check_good(result)
    assert result["latency"]["count"] == result["transactions"] == 4 * count, result
    assert result["scripts"] == script and result["mode"] == mode
    assert result["clients"]["connected"] == 4
    # Results and what is copied out are about 1 MB each.
    if script in ("result-1mb", "copy-out"):
        assert result["bytes_received"] > 4 * count * 1_000_000, result


@runner.cases("direct", "proxy")
def test_by_time(where):
    """Without --transactions the time ends the run; the warm-up does not count."""
    result = load(target_of(where), *BENCH, "--clients", 4, "--cores", 2, duration="1500ms", warm_up="1s")
    check_good(result)
    assert 1.4e9 < result["span"] < 5e9, result
    # Had the warm-up been counted, it would be more than a second's worth too many. What each client had under
    # way when the count began may belong to the time before, as long as it took.
    spent = result["latency"]["mean"] * result["transactions"]
    assert spent < 1.2 * 4 * result["span"] + 4 * result["latency"]["max"], result


@runner.cases(*MODES)
def test_pipeline(mode):
    """Several transactions of one client under way at once get their own answers."""
    words = ["--clients", 3, "--pipeline", 16, "--mode", mode, "--transactions", 200]
    check_good(load(target_of("direct"), *BENCH, *words, "--script", "lookup"))
    check_good(load(target_of("proxy"), *BENCH, *words, "--script", "select-1=3", "--script", "tpcb"))


def test_number_of_transactions():
    """--transactions is a number for each client, and no time ends it."""
    words = ["--clients", 7, "--transactions", 20, "--cores", 2, "--script", "insert"]
    cluster = bench_tables()
    before = int(cluster.value("select count(*) from pgbench_history", "bench"))
    result = load(target_of("direct"), *BENCH, *words, duration="10ms")
    check_good(result)
    assert result["transactions"] == 140
    assert [result["clients"][key] for key in ("min", "median", "max")] == [20, 20, 20]
    after = int(cluster.value("select count(*) from pgbench_history", "bench"))
    assert after - before == 140


def test_the_books_are_right():
    """What tpcb reports as done has been done, no more and no less."""
    cluster = runner.cluster()
    cluster.make_bench(1)
    words = ["--clients", 4, "--transactions", 50, "--script", "tpcb", "--mode", "extended"]
    check_good(load(target_of("proxy"), *BENCH, *words))
    assert cluster.check_bank() == 200


@runner.cases(("mixed",), ("select-1=3", "insert=1"))
def test_latency_by_script(*scripts):
    """Each of several scripts, and each part of a built-in one, has its own latencies; one alone has none."""
    words = [word for script in scripts for word in ("--script", script)]
    result = load(target_of("direct"), *BENCH, *words, "--clients", 8, duration="2s")
    check_good(result)
    parts = {entry["script"]: entry["latency"] for entry in result["by_script"]}
    assert sum(latency["count"] for latency in parts.values()) == result["transactions"], result
    if scripts == ("mixed",):
        assert list(parts) == ["mixed 1 ms", "mixed 500 ms"], result
        assert parts["mixed 1 ms"]["min"] >= 1e6 and parts["mixed 500 ms"]["min"] >= 500e6, result
    else:
        assert list(parts) == ["select-1", "insert"] and all(part["count"] for part in parts.values()), result
        assert "by_script" not in load(target_of("direct"), *BENCH, "--clients", 1)


@runner.timeout(90)
def test_rate():
    """An open loop sends at its rate, and says how many found nobody to serve them."""
    result = load(target_of("direct"), *BENCH, "--clients", 8, "--rate", 400, duration="3s")
    check_good(result)
    done = result["transactions"] + result["unserved"]
    assert 0.8 * 1200 < done < 1.2 * 1200, result
    # One client that sleeps 50 ms each time serves 20 a second: the rest stays undone, and those that are served have
    # waited.
    with sql_file("SELECT pg_sleep(0.05);") as script:
        words = ["--clients", 1, "--rate", 100, "--script", script.name]
        result = load(target_of("direct"), *BENCH, *words, duration="2s", warm_up="0")
    assert result["unserved"] > 50, result
    assert result["latency"]["max"] > 500e6, result


def test_rate_with_a_stall():
    """What an open loop's server leaves waiting at the end is in the latencies, served or not; nothing else is."""
    stall = {}

    def script(conn):
        conn.read_startup()
        conn.welcome()

        def answer(conn, got):
            begin = stall.setdefault("begin", time.monotonic() + 0.7)
            left = begin + 2 - time.monotonic()
            if 0 < left < 2:
                time.sleep(left)
            number = re.match(r"SELECT (\d+)", got.text)[1]
            conn.send(wire.row_description("n"), wire.data_row(number), wire.command_complete("SELECT 1"), wire.ready())

        conn.serve_queries(answer)

    with ScriptedServer(script) as server:
        words = ["--clients", 4, "--rate", 200]
        result = load(f"127.0.0.1:{server.port}", *words, duration="1s", warm_up="200ms")
    check_good(result)
    due = result["transactions"] + result["unserved"]
    assert result["latency"]["count"] == due and 130 < due < 270, result
    # Half of the counted time is stalled: four are under way, the others are not begun.
    assert 60 < result["unserved"] < 140, result
    assert result["latency"]["p90"] > 200e6 and result["latency"]["max"] > 1e9, result


def test_rate_and_a_number():
    """When every client has run its number, nobody is due any more; a run that cannot go on ends at once."""
    words = ["--clients", 2, "--cores", 2, "--rate", 1000, "--transactions", 20]
    result = load(target_of("direct"), *BENCH, *words)
    check_good(result)
    assert result["transactions"] == 40 and result["unserved"] == 0, result
    with sql_file("\\set n 1 / (1 - :scale)\nSELECT :n;\n") as script:
        words = ["--script", script.name, "--rate", 100, "--quiet"]
        code, out, err = run("load", "--target", target_of("direct"), *BENCH, *words, timeout=20)
        assert code == 1 and out == "" and "division by zero" in err, err


def test_own_script():
    """A file of one's own runs, with its variables, in each mode; its lines are named when it is wrong."""
    text = (
        "\\set aid random(1, 100000 * :scale)\n"
        "\\set delta :aid % 100 - 50\n"
        "BEGIN;\n"
        "-- nothing; here\n"
        "UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;\n"
        "SELECT 1 / (count(*)::int), ';' FROM pgbench_accounts WHERE aid = :aid;\n"
        "END;\n"
    )
    for mode in MODES:
        with sql_file(text) as script:
            words = ["--script", script.name, "--mode", mode, "--clients", 2, "--transactions", 50]
            check_good(load(target_of("direct"), *BENCH, *words))
    with sql_file("SELECT 1;\n\\sleep 1\n") as script:
        code, out, err = run("load", "--script", script.name)
        assert code == 2 and out == "" and f"{script.name}:2:" in err and "sleep" in err, err
    with sql_file("\\set n 1 / (1 - :scale)\nSELECT :n;\n") as script:
        code, out, err = run("load", "--target", target_of("direct"), *BENCH, "--script", script.name)
        assert code == 1 and out == "" and f"{script.name}:1: division by zero" in err, err


def test_reconnect():
    """--reconnect makes a connection for each transaction."""
    words = ["--clients", 2, "--transactions", 5, "--reconnect"]
    result = load(target_of("proxy"), *BENCH, *words)
    check_good(result)
    assert result["connect"]["count"] >= 10, result


def test_users_and_databases():
    """Clients are dealt over all users and databases."""
    cluster = runner.cluster()
    for number in (1, 2, 3):
        cluster.run(f"create role many{number} login", "postgres")
    for number in (1, 2):
        cluster.run(f"create database many{number}", "postgres")
    with sql_file("SELECT pg_sleep(0.2);") as script:
        words = ["--user", "many%d", "--users", "3", "--database", "many%d", "--databases", "2"]
        process = subprocess.Popen(
            [program(), "load", "--target", target_of("direct"), *words, "--clients", "12", "--script", script.name]
            + ["--duration", "20s", "--quiet"],
            stdout=subprocess.DEVNULL,
        )
        try:
            sql = "select usename, datname, count(*) from pg_stat_activity where usename like 'many%' group by 1, 2"
            expected = {(f"many{u}", f"many{d}", "2") for u in (1, 2, 3) for d in (1, 2)}
            runner.eventually(
                lambda: {tuple(row) for row in cluster.run(sql, "postgres")} == expected,
                what="two clients of each user in each database",
            )
        finally:
            process.kill()
            process.wait()


def test_users_at_every_target():
    """Every user reaches every target."""
    seen = set()

    def server(number):
        def script(conn):
            conn.read_startup()
            seen.add((number, conn.startup["user"]))
            conn.welcome()
            while conn.recv().kind != "X":
                pass

        return ScriptedServer(script)

    with server(1) as one, server(2) as two:
        words = ["--target", f"127.0.0.1:{one.port}", "--user", "u%d", "--users", 2, "--clients", 4]
        load(f"127.0.0.1:{two.port}", *words, "--answer-timeout", "200ms", duration="100ms", expected=1)
    assert seen == {(number, user) for number in (1, 2) for user in ("u1", "u2")}, seen


@runner.cases("node_password", "node_md5", "node_scram", "bench")
def test_login(user):
    """Each kind of login works, and a wrong password is told."""
    words = ["--user", user, "--database", "app", "--clients", 3, "--transactions", 10]
    method, password = USERS[user]
    environment = {**os.environ, "PGPASSWORD": password}
    check_good(load(target_of("direct"), *words, env=environment))
    if method == "trust":
        return
    check_good(load(target_of("direct"), *words, "--password", password))
    code, out, err = run("load", "--target", target_of("direct"), *words, "--password", "no", "--quiet")
    assert code == 1 and out == "" and "28P01" in err, err


def test_unix_socket():
    """A unix socket is reached by its directory and port."""
    cluster = runner.cluster()
    words = ["--user", "bench", "--database", "app", "--clients", 3, "--transactions", 10]
    check_good(load(f"unix:{cluster.sockets}:{cluster.port}", *words))


def test_pinned_threads():
    """--cpu pins the threads of the load, --batch lowers their policy."""
    cpu = sorted(os.sched_getaffinity(0))[-1]
    words = ["--target", target_of("direct"), *BENCH, "--duration", "60s", "--quiet", "--cores", "2", "--clients", "2"]
    process = subprocess.Popen(
        [program(), "load", *words, "--cpu", str(cpu), "--batch"], stdout=subprocess.DEVNULL
    )

    def threads():
        """(CPUs, policy) of the two cores' threads."""
        found = []
        for task in os.listdir(f"/proc/{process.pid}/task"):
            with open(f"/proc/{process.pid}/task/{task}/comm", encoding="ascii") as file:
                if re.match(r"helios-\d", file.read()):
                    found.append((os.sched_getaffinity(int(task)), os.sched_getscheduler(int(task))))
        return found

    try:
        runner.eventually(lambda: threads() == [({cpu}, os.SCHED_BATCH)] * 2, what="two pinned threads")
    finally:
        process.kill()
        process.wait()
    code, out, err = run("load", "--cpu", 4000)
    assert code == 2 and out == "" and "no CPU" in err, err


# What it notices.


def number_server(change):
    """Answers `SELECT n` with change(n)."""

    def script(conn):
        conn.read_startup()
        conn.welcome()

        def answer(conn, got):
            number = int(re.match(r"SELECT (\d+)", got.text)[1])
            conn.send(
                wire.row_description("n"),
                *[wire.data_row(value) for value in change(number)],
                wire.command_complete("SELECT 1"),
                wire.ready(),
            )

        conn.serve_queries(answer)

    return ScriptedServer(script)


@runner.cases("other", "none", "two", "text")
def test_wrong_answers(kind):
    """An answer that is not the asker's is noticed, and no other one is complained about."""
    change = {
        "other": lambda number: [str(number - 1)],
        "none": lambda number: [],
        "two": lambda number: [str(number), str(number)],
        "text": lambda number: [f"{number} "],
    }[kind]
    with number_server(change) as server:
        target = f"127.0.0.1:{server.port}"
        result = load(target, "--transactions", 10, "--clients", 2, expected=1)
        assert result["wrong"] == 20 and result["transactions"] == 0 and result["failed"] == 0, result
        assert code_of(result, "wrong")["count"] == 20
        if kind == "other":
            assert re.search(r"asked for (\d+)", code_of(result, "wrong")["example"]), result
        check_good(load(target, "--transactions", 10, "--clients", 2, "--no-checks"))
    with number_server(lambda number: [str(number)]) as server:
        check_good(load(f"127.0.0.1:{server.port}", "--transactions", 10, "--clients", 2))


def complete(*tags):
    return b"".join(wire.command_complete(tag) for tag in tags)


ROW, LINE = wire.data_row("7", "7"), wire.copy_data(b"x\n")
# A script, what the server answers to each of its statements in turn, and what is said of it.
INCOMPLETE = {
    "nothing": ("insert", [b""], "without"),
    "no row inserted": ("insert", [complete("INSERT 0 0")], "INSERT 0 0"),
    "completed twice": ("insert", [complete("INSERT 0 1", "INSERT 0 1")], "INSERT 0 1"),
    "no row": ("pgbench-select", [complete("SELECT 1")], "0 came"),
    "two rows": ("pgbench-select", [ROW * 2 + complete("SELECT 1")], "2 came"),
    "row without tag": ("pgbench-select", [ROW], "without"),
    "sleep without row": ("mixed", [complete("SELECT 1")], "0 came"),
    "a row less": ("result-1mb", [ROW * 9999 + complete("SELECT 10000")], "9999 came"),
    "all rows, no tag": ("result-1mb", [ROW * 10000], "without"),
    "a line less": ("copy-out", [LINE * 9999 + complete("COPY 10000")], "9999 came"),
    "a line less told": ("copy-out", [LINE * 10000 + complete("COPY 9999")], "COPY 9999"),
    "nothing taken": ("copy-in", [complete(tag) for tag in ("BEGIN", "CREATE TABLE", "COPY 0", "COMMIT")], "COPY 0"),
    "rolled back": ("copy-in", [complete(t) for t in ("BEGIN", "CREATE TABLE", "COPY 10000", "ROLLBACK")], "ROLLBACK"),
}


@runner.cases(*INCOMPLETE)
def test_incomplete_answers(name):
    """Every built-in statement must be completed by its tag, with all of its rows."""
    script, answers, reason = INCOMPLETE[name]

    def serve(conn):
        conn.read_startup()
        conn.welcome()
        turns = itertools.cycle(answers)
        conn.serve_queries(lambda conn, got: conn.send(next(turns), wire.ready()))

    with ScriptedServer(serve) as server:
        target = f"127.0.0.1:{server.port}"
        words = ["--script", script, "--transactions", 5, "--clients", 2]
        result = load(target, *words, expected=1)
        assert result["wrong"] == 10 and result["transactions"] == 0 and result["failed"] == 0, result
        assert code_of(result, "wrong")["count"] == 10 and reason in code_of(result, "wrong")["example"], result
        check_good(load(target, *words, "--no-checks"))


@runner.cases(*MODES)
def test_canned_answers(mode):
    """The canned server gives every script what it asks for; one that gives less is noticed."""
    with Backend() as backend:
        for script in SCRIPTS:
            check_good(load(f"127.0.0.1:{backend.port}", "--script", script, "--mode", mode, "--transactions", 5))
    with Backend("--rows", 7) as backend:
        words = ["--script", "copy-out", "--mode", mode, "--transactions", 5]
        result = load(f"127.0.0.1:{backend.port}", *words, expected=1)
        assert result["wrong"] == 5 and "COPY 7" in code_of(result, "wrong")["example"], result


@runner.cases(*MODES)
def test_errors_by_sqlstate(mode):
    """Errors are counted by SQLSTATE with their first text; a failed transaction is rolled back and the next runs."""
    with sql_file("BEGIN;\nSELECT 1 / 0;\nSELECT 2;\nEND;\n") as script:
        words = ["--script", script.name, "--script", "select-1", "--mode", mode, "--clients", 2]
        result = load(target_of("direct"), *BENCH, *words, "--transactions", 50, expected=1)
    assert result["transactions"] > 0 and result["failed"] > 0 and result["wrong"] == 0, result
    entry = code_of(result, "22012")
    assert entry["count"] == result["failed"] and "division by zero" in entry["example"], result
    assert len(result["errors"]) == 1, result


def test_broken_connections():
    """A broken connection is counted as io, and the client connects again."""

    def script(conn):
        conn.read_startup()
        conn.welcome()
        for _ in range(3):
            got = conn.recv()
            number = re.match(r"SELECT (\d+)", got.text)[1]
            conn.send(wire.row_description("n"), wire.data_row(number), wire.command_complete("SELECT 1"), wire.ready())
        conn.recv()

    with ScriptedServer(script) as server:
        result = load(f"127.0.0.1:{server.port}", "--clients", 2, "--transactions", 20, expected=1)
        assert server.count >= 8, server.count
    entry = code_of(result, "io")
    assert entry["count"] == result["failed"] > 0, result
    # Each connection serves three and breaks at the fourth.
    assert result["transactions"] + result["failed"] == 40 and result["failed"] == 10, result


def test_late_answers():
    """A server that does not answer is a timeout, in the run and at its end."""

    def script(conn):
        conn.read_startup()
        conn.welcome()
        while conn.recv().kind != "X":
            pass

    with ScriptedServer(script) as server:
        target = f"127.0.0.1:{server.port}"
        words = ["--clients", 2, "--answer-timeout", "200ms", "--transactions", 3]
        result = load(target, *words, expected=1)
        assert code_of(result, "timeout")["count"] == result["failed"] == 6, result
        result = load(target, "--clients", 2, "--answer-timeout", "1s", duration="100ms", expected=1)
        assert code_of(result, "timeout")["count"] == result["failed"] == 2, result


def test_answers_after_the_end():
    """What is under way at the end may take as long as any other answer; a signal does not wait for it."""
    with sql_file("SELECT pg_sleep(6);") as script:
        words = ["--script", script.name, "--clients", "2", "--warm-up", "0", "--duration", "100ms"]
        result = run_json("load", target_of("direct"), *BENCH, *words, expected=1)
        assert result["failed"] == 0 and result["errors"] == [] and result["transactions"] == 0, result
        words = ["--target", target_of("direct"), *BENCH, *words, "--json", "--quiet"]
        process = subprocess.Popen([program(), "load", *words], stdout=subprocess.PIPE, text=True)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, _ = process.communicate(timeout=20)
    assert time.monotonic() - began < 4
    result = json.loads(out)
    assert code_of(result, "timeout")["count"] == result["failed"] == 2, result


def test_fatal_errors():
    """The server's last word is the error that counts, not the end of the connection behind it."""

    def script(conn):
        conn.read_startup()
        conn.welcome()
        conn.recv()
        conn.send(wire.error_response("57P01", "going down", "FATAL"))

    with ScriptedServer(script) as server:
        result = load(f"127.0.0.1:{server.port}", "--clients", 2, "--transactions", 3, expected=1)
    assert [entry["sqlstate"] for entry in result["errors"]] == ["57P01"], result
    assert result["failed"] == 6, result


def test_garbage():
    """A server that breaks the protocol breaks the connection, not the program."""

    def script(conn):
        conn.read_startup()
        conn.welcome()
        conn.recv()
        conn.send(b"D\0\0\0\1")
        conn.recv()

    with ScriptedServer(script) as server:
        result = load(f"127.0.0.1:{server.port}", "--clients", 2, "--transactions", 2, expected=1)
    assert "malformed" in code_of(result, "io")["example"], result


def test_copy_without_data():
    """COPY FROM STDIN in a script of one's own is an error with a reason, not a hang."""
    with sql_file("CREATE TEMP TABLE IF NOT EXISTS t (x text);\nCOPY t FROM STDIN;\n") as script:
        words = ["--script", script.name, "--transactions", 2]
        result = load(target_of("direct"), *BENCH, *words, expected=1)
    assert "COPY FROM STDIN" in code_of(result, "script")["example"], result


def test_server_that_is_not_there():
    """Nobody listens: the address and the reason are told, and the exit code is 1."""
    code, out, err = run("load", "--target", f"127.0.0.1:{free_port()}", "--connect-timeout", "1s")
    assert code == 1 and out == "" and "Connection refused" in err and "0 of 1 clients" in err, err


def test_server_that_comes_late():
    """With --connect-timeout a server may begin to listen when others have given up."""
    port = free_port()
    words = ["--target", f"127.0.0.1:{port}", "--transactions", "1", "--json", "--quiet"]
    process = subprocess.Popen(
        [program(), "load", *words, "--connect-timeout", "20s"], stdout=subprocess.PIPE, text=True
    )
    time.sleep(4)
    with Backend(listen=(f"127.0.0.1:{port}",)):
        out, _ = process.communicate(timeout=20)
    check_good(json.loads(out))


def test_server_that_is_full():
    """Fewer clients than wanted can connect: it says how many, and the server's reason."""
    words = ["--clients", 160, "--connect-timeout", "10s", "--quiet"]
    code, out, err = run("load", "--target", target_of("direct"), *BENCH, *words)
    assert code == 1 and out == "" and "53300" in err and "of 160 clients" in err, err


# What it reports.


def test_watched_processes():
    """CPU time, switches and memory of a process and its children are there, and of the load itself."""
    proxy = runner.proxy(max_connections=20)
    result = load(target_of("proxy"), *BENCH, "--clients", 4, "--watch", proxy.pid, duration="1s")
    check_good(result)
    for key in ("watched", "own"):
        usage = result[key]
        assert usage["cpu"] > 0 and usage["cpu_user"] + usage["cpu_system"] == usage["cpu"], result
        assert usage["rss"] > 1_000_000 and 0 < usage["pss"] <= usage["rss"], result
        assert usage["complete"] and usage["cpu_per_transaction"] > 0, result
    # A server's work is done by its children.
    pid = runner.cluster().process.pid
    result = load(target_of("direct"), *BENCH, "--clients", 4, "--watch", pid, duration="1s")
    assert result["watched"]["cpu"] > 1e6 and result["watched"]["voluntary_switches"] > 10, result
    code, out, err = run("load", "--watch", 999999999)
    assert code == 2 and out == "" and "999999999" in err, err


def test_table():
    """Without --json a table for people is on stdout."""
    code, out, err = run(
        "load", "--target", target_of("direct"), *BENCH, "--transactions", 20, "--clients", 3, "--quiet"
    )
    assert code == 0 and err == "", err
    for part in ("3 clients", "transactions", "latency", "p99.99", "fairness", "helios-bench"):
        assert part in out, out


def test_interrupt():
    """SIGINT ends the run early: what was counted until then is reported."""
    words = ["--target", target_of("direct"), *BENCH, "--warm-up", "0", "--duration", "60s", "--json"]
    process = subprocess.Popen([program(), "load", *words], stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    result = json.loads(out)
    check_good(result)
    assert result["interrupted"] and result["span"] < 30e9 and process.returncode == 0, result


def test_idle():
    """`idle` connects all clients at once, has every one answered twice, and tells memory before, with and after."""
    clients = runner.scaled(1000, 100)
    with runner.fresh_proxy(proxy={"max_clients": 2000}) as proxy:
        target = f"127.0.0.1:{proxy.address[1]}"
        words = [*BENCH, "--clients", clients, "--watch", proxy.pid, "--settle", "200ms"]
        result = run_json("idle", target, *words)
        assert result["clients"] == clients and result["answered"] == [clients, clients], result
        assert result["errors"] == [] and result["connect"]["count"] == clients, result
        for key in ("before", "connected", "after"):
            assert result[key]["rss"] > 1_000_000, result
        assert result["rss_per_client"] > 100, result
        code, out, err = run("idle", "--target", target, *words, "--quiet")
        assert code == 0 and err == "", err
        for part in ("per client", "answered", "kernel", f"{clients} of {clients}"):
            assert part in out, out


def test_idle_without_answers():
    """`idle` ends when the proxy dies while clients rest: whose answer is missing is told."""
    with runner.fresh_proxy() as proxy, Relay(proxy.address) as relay:
        words = ["--target", f"127.0.0.1:{relay.port}", *BENCH, "--clients", "5", "--settle", "3s", "--json"]
        process = subprocess.Popen(
            [program(), "idle", *words, "--answer-timeout", "500ms", "--quiet"], stdout=subprocess.PIPE, text=True
        )
        runner.eventually(lambda: relay.count == 5, what="five clients")
        time.sleep(1)  # They have logged in and asked.
        proxy.kill()
        out, _ = process.communicate(timeout=20)
    result = json.loads(out)
    assert process.returncode == 1, result
    assert result["answered"] == [5, 0] and code_of(result, "io")["count"] >= 5, result


def test_idle_without_its_process():
    """When the watched process dies there is nothing to tell: an error, and no numbers."""
    with runner.fresh_proxy() as proxy, Relay(proxy.address) as relay:
        words = ["--target", f"127.0.0.1:{relay.port}", *BENCH, "--clients", "5", "--settle", "3s", "--json"]
        process = subprocess.Popen(
            [program(), "idle", *words, "--watch", str(proxy.pid), "--quiet"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        runner.eventually(lambda: relay.count == 5, what="five clients")
        time.sleep(1)  # They have logged in and asked.
        proxy.kill()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1 and out == "" and "has gone" in err, (out, err)


@runner.timeout(120)
def test_many_clients():
    """Thousands of clients connect, are served and leave."""
    clients = runner.scaled(4000, 400)
    with runner.fresh_proxy(proxy={"max_clients": 5000}) as proxy:
        words = [*BENCH, "--clients", clients, "--cores", 2, "--script", "think", "--think-time", "500ms"]
        result = load(f"127.0.0.1:{proxy.address[1]}", *words, duration="2s", warm_up="1s")
    check_good(result)
    assert result["clients"]["connected"] == clients, result


# Its command line.


@runner.cases(
    ("load --clinets 4", "did you mean --clients?"),
    ("load --clients none", "no whole number from 1 to 50000"),
    ("load --clients", "needs a value"),
    ("load --duration 10", "a unit"),
    ("load --mode prepard", 'did you mean "prepared"?'),
    ("load --script selct-1", 'did you mean "select-1"?'),
    ("load --script select-1=x", "no weight"),
    ("load --script select-1=0", "weight above 0"),
    ("load --sslmode require", "TLS"),
    ("load --sslmode requir", 'did you mean "require"?'),
    ("load --pipeline 2 --reconnect", "exclude each other"),
    ("load --pipeline 2 --script copy-in", "cannot be pipelined"),
    ("load --rate 10 --script think", "exclude each other"),
    ("load --cores 2 --clients 1", "more cores"),
    ("load --users 2", '--users 2 needs a --user with %d in it: "postgres" is one user'),
    ("load --databases 3 --user u%d --users 2", "--databases 3 needs a --database with %d"),
    ("idle --users 2 --user me", "--users 2 needs"),
    ("load stray", "is no option"),
    ("idle --setle 1s", "did you mean --settle?"),
    ("laod", 'did you mean "load"?'),
    ("", "a command is needed"),
)
def test_wrong_usage(words, reason):
    """Wrong usage is explained on stderr, with exit code 2 and nothing on stdout."""
    code, out, err = run(*words.split())
    assert code == 2 and out == "", (code, out, err)
    assert reason in err and err.count("\n") == 1, err


def test_wrong_address():
    """What is no address is explained, with an example of one."""
    for target in ("nonsense", "127.0.0.1", "127.0.0.1:0", "unix:/nowhere"):
        code, out, err = run("load", "--target", target)
        assert code == 2 and out == "" and "host:port" in err, err
    code, out, err = run("load", "--target", "nowhere.invalid:5432")
    assert code == 1 and out == "" and "nowhere.invalid" in err, err


def test_help():
    """--help of each command names its options; --version the version; --list-scripts the scripts."""
    code, out, _ = run("--help")
    assert code == 0 and "load" in out and "idle" in out, out
    code, out, _ = run("--version")
    assert code == 0 and re.fullmatch(r"helios-bench \d+\.\d+.*\n", out), out
    code, out, _ = run("load", "--help")
    for part in ("--target", "--rate", "--watch", "p99.99", "copy-in", "examples", "exit codes"):
        assert part in out, part
    assert max(len(line) for line in out.splitlines()) <= 100, out
    code, out, _ = run("idle", "--help")
    assert code == 0 and "--settle" in out and "rss_per_client" in out, out
    code, out, _ = run("load", "--list-scripts")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == list(SCRIPTS), out


if __name__ == "__main__":
    runner.main()
