#!/usr/bin/python3
"""A backend that dies under its client: the client is told once, and goes on."""

import signal
import time

from harness import libpq, runner, wire
from harness.wire import COPY_DONE, FLUSH, SYNC, bind, copy_data, execute, extended, parse, query

try:
    import psycopg2
except ImportError:
    psycopg2 = None

KILLED = "57P01"
FAILED_BLOCK = "25P02"
IN_ERROR = 3  # Of libpq's transaction statuses.


def table(name):
    runner.cluster().run(f"drop table if exists {name}; create table {name} (id int)")
    runner.cluster().run(f"grant all on {name} to public")
    return name


def count_of(name):
    return int(runner.cluster().value(f"select count(*) from {name}"))


def kill(pid):
    runner.cluster().run(f"select pg_terminate_backend({pid}, 5000)")


def told(messages):
    """What the client was told: tags of commands, SQLSTATEs of errors, states of transactions."""
    words = []
    for got in messages:
        if got.kind == "E":
            assert got.fields["S"] == got.fields["V"] == "ERROR", got
            words.append(got.fields["C"])
        elif got.kind == "Z":
            words.append(got.body.decode())
        elif got.kind == "C":
            words.append(got.body.rstrip(b"\0").decode())
    return words


def ask(client, *messages, count=1):
    """Sends, and what it is told up to the `count`th ReadyForQuery."""
    client.send(*messages)
    found = []
    for _ in range(count):
        found += client.recv_until("Z")
    return told(found)


def lose_silent_block(client):
    """A block whose backend is gone, as its client does not know yet."""
    assert ask(client, query("begin")) == ["BEGIN", "T"]
    kill(client.value("select pg_backend_pid()"))


@runner.cases(1, 2)
def test_silent_in_a_transaction(cores):
    """Who is silent in a transaction hears of the loss once; nothing more is executed in it."""
    proxy = runner.proxy(cores=cores, max_connections=2)
    name = table("lost_silent")
    with proxy.client() as victim, proxy.client() as other:
        for last in ("rollback", "commit"):
            assert ask(victim, query("begin")) == ["BEGIN", "T"]
            assert ask(victim, query(f"insert into {name} values (1)")) == ["INSERT 0 1", "T"]
            kill(victim.value("select pg_backend_pid()"))
            insert = query(f"insert into {name} values (2)")
            assert ask(victim, insert) == [KILLED, "E"]
            assert ask(victim, insert) == [FAILED_BLOCK, "E"]
            assert ask(victim, extended(f"insert into {name} values (3)"), SYNC) == [FAILED_BLOCK, "E"]
            assert ask(victim, query("rollback to savepoint a")) == [FAILED_BLOCK, "E"]
            assert ask(victim, query(last)) == ["ROLLBACK", "I"]
            assert victim.value("select 'on it goes'") == "on it goes"
            assert other.value("select 'other'") == "other"
    assert count_of(name) == 0


def test_commit_is_no_success():
    """A COMMIT of a transaction that is lost is an error, in flight or not."""
    proxy = runner.proxy(max_connections=2)
    name = table("lost_commit")
    with proxy.client() as victim:
        lose_silent_block(victim)
        assert ask(victim, query("commit")) == [KILLED, "I"]
        # A constraint that sleeps when the transaction is to be committed.
        runner.cluster().run(
            f"""create or replace function sleep_long() returns trigger language plpgsql as
            'begin perform pg_sleep(30); return null; end';
            create constraint trigger sleepy after insert on {name} deferrable initially deferred
            for each row execute function sleep_long()"""
        )
        victim.query("begin")
        victim.query(f"insert into {name} values (1)")
        pid = victim.value("select pg_backend_pid()")
        victim.send(query("commit"))
        runner.wait_running("commit")
        kill(pid)
        assert told(victim.recv_until("Z")) == [KILLED, "I"]
        assert victim.value("select 1") == "1"
    assert count_of(name) == 0


@runner.cases(("", "I"), ("begin", "E"))
def test_in_a_query(begin, status):
    """A query whose backend dies gets an error, and the client the next backend."""
    proxy = runner.proxy(max_connections=2)
    with proxy.client() as victim:
        if begin:
            victim.query(begin)
        victim.send(query("select pg_sleep(30) /* dies */"))
        runner.wait_running("dies")
        pid = runner.cluster().backends("query like '%dies%'")[0][0]
        kill(pid)
        assert told(victim.recv_until("Z")) == [KILLED, status]
        if begin:
            assert ask(victim, query("select 1")) == [FAILED_BLOCK, "E"]
            assert ask(victim, query("rollback")) == ["ROLLBACK", "I"]
        assert victim.value("select 'next'") == "next"


@runner.cases(("", "I"), ("begin", "E"))
def test_in_a_batch(begin, status):
    """A batch whose backend dies ends with its Sync, and each batch behind it with an error."""
    proxy = runner.proxy(max_connections=2)
    name = table("lost_batch")
    with proxy.client() as victim:
        if begin:
            victim.query(begin)
        victim.send(extended(f"insert into {name} values (1)"), FLUSH)
        while victim.recv().kind != "C":
            pass
        pid = runner.cluster().backends(f"query like '%{name}%' and state <> 'idle'")[0][0]
        kill(pid)
        time.sleep(0.05)  # Whether the proxy knows already or not must make no difference.
        victim.send(extended(f"insert into {name} values (2)"))
        victim.send(extended("rollback"), SYNC)
        assert told(victim.recv_until("Z")) == [KILLED, status]
        later = FAILED_BLOCK if begin else None
        words = ask(victim, extended(f"insert into {name} values (3)"), SYNC)
        assert words == ([later, "E"] if later else ["INSERT 0 1", "I"])
        if begin:
            assert ask(victim, extended("rollback"), SYNC) == ["ROLLBACK", "I"]
        assert victim.value("select 'next'") == "next"
    assert count_of(name) == (0 if begin else 1)


def test_in_a_pipeline():
    """Everything of a pipeline that was not answered gets its error; the session goes on."""
    proxy = runner.proxy(max_connections=1)
    with proxy.client() as victim:
        for _ in range(5):
            suicide = extended("select pg_terminate_backend(pg_backend_pid()), pg_sleep(10)")
            words = ask(victim, query("select 1"), suicide, SYNC, extended("select 2") + SYNC, count=3)
            assert words[:3] == ["SELECT 1", "I", KILLED] and words[3] == "I", words
            # The last batch may have come behind the end.
            assert words[4:] in ([KILLED, "I"], ["SELECT 1", "I"]), words
            assert victim.value("select 'next'") == "next"


@runner.cases(("", "I"), ("begin", "E"))
def test_in_a_copy_in(begin, status):
    """COPY FROM STDIN ends with an error; the rest of the data is swallowed."""
    proxy = runner.proxy(max_connections=2)
    name = table("lost_copy")
    with proxy.client() as victim:
        for is_extended in (False, True):
            if begin:
                victim.query(begin)
            text = f"copy {name} from stdin"
            victim.send(parse(text) + bind() + execute() + FLUSH if is_extended else query(text))
            victim.recv_until("G")
            victim.send(copy_data(b"1\n") * 100)
            kill(runner.cluster().backends(f"query like 'copy {name}%' and state = 'active'")[0][0])
            victim.send(copy_data(b"2\n") * 1000, COPY_DONE, SYNC if is_extended else b"")
            assert told(victim.recv_until("Z")) == [KILLED, status]
            if begin:
                assert ask(victim, query("rollback")) == ["ROLLBACK", "I"]
            assert victim.value("select 'next'") == "next"
    assert count_of(name) == 0


def test_in_a_copy_out():
    """COPY TO STDOUT: an error between two rows, or the end of the connection within one."""
    proxy = runner.proxy(max_connections=2)
    with proxy.client(receive_buffer=4096) as victim:
        victim.send(query("copy (select repeat('x', 100) from generate_series(1, 1000000)) to stdout"))
        victim.recv_until("H")
        kill(runner.cluster().backends("query like 'copy (select repeat%' and state = 'active'")[0][0])
        found = []
        try:
            found = victim.recv_until("Z", timeout=60)
        except (EOFError, ConnectionError):
            return
        assert told(found) in ([KILLED, "I"], ["08006", "I"]), told(found)[-2:]
        assert victim.value("select 'next'") == "next"


@runner.timeout(180)
def test_immediate_restart():
    """After a crash of the server, clients outside of transactions notice nothing, others once."""
    with runner.fresh_proxy(max_connections=10, pool={"acquire_timeout": "60s"}) as proxy:
        with proxy.client() as idle, proxy.client() as silent, proxy.client() as busy:
            idle.query("select 1")
            silent.query("begin")
            busy.send(query("select pg_sleep(30) /* crash */"))
            runner.wait_running("crash")
            runner.cluster().halt(signal.SIGQUIT)
            runner.cluster().start()
            # What the server says last in a crash may be cut off by the end of the connection.
            words = told(busy.recv_until("Z"))
            assert words in (["57P02", "I"], ["08006", "I"], ["57P01", "I"]), words
            assert idle.value("select 'idle'") == "idle"
            words = ask(silent, query("select 1"))
            assert words[0] in ("57P02", "08006", "57P01") and words[1:] == ["E"], words
            assert ask(silent, query("rollback")) == ["ROLLBACK", "I"]
            assert silent.value("select 'silent'") == "silent"
            assert busy.value("select 'busy'") == "busy"


def test_parameters():
    """SET of a lost transaction is undone, and the client told; what was set before stays."""
    proxy = runner.proxy(max_connections=2)
    with proxy.client() as victim:
        victim.query("set application_name = 'before'")
        victim.query("begin")
        victim.query("set application_name = 'within'")
        kill(victim.value("select pg_backend_pid()"))
        ask(victim, query("select 1"))
        assert victim.parameters["application_name"] == "before"
        ask(victim, query("rollback"))
        assert victim.value("show application_name") == "before"


def test_prepared_statements():
    """Prepared statements survive, also those of the lost transaction; a prepared ROLLBACK ends it."""
    proxy = runner.proxy(max_connections=2)
    with proxy.client() as victim:
        ask(victim, parse("select 'kept'", "kept"), parse("rollback", "back"), SYNC)
        victim.query("prepare sql as select 'sql'")
        victim.query("begin")
        ask(victim, parse("select 'new'", "new"), SYNC)
        kill(victim.value("select pg_backend_pid()"))
        assert ask(victim, bind(name="kept"), execute(), SYNC) == [KILLED, "E"]
        assert ask(victim, bind(name="back"), execute(), SYNC) == ["ROLLBACK", "I"]
        for name in ("kept", "new"):
            victim.send(bind(name=name), execute(), SYNC)
            assert wire.rows(victim.recv_until("Z")) == [[name]]
        assert victim.value("execute sql") == "sql"


@runner.cases("session mode", "temporary table", "prepared with more in its text")
def test_what_is_missed(what):
    """Who would miss what it had on the backend is ended with the server's own words."""
    mode = "session" if what == "session mode" else "transaction"
    with runner.fresh_proxy(max_connections=2, pool={"mode": mode}) as proxy:
        with proxy.client() as victim:
            if what == "temporary table":
                victim.query("create temp table t (id int)")
            elif what == "prepared with more in its text":
                victim.query("prepare p as select 1; select 2")
            kill(victim.value("select pg_backend_pid()"))
            fields = victim.recv_last_error()
            assert (fields["S"], fields["C"]) == ("FATAL", KILLED), fields


@runner.cases(1, 2)
def test_libpq(cores):
    """libpq sees the error and the failed transaction, and its connection stays."""
    proxy = runner.proxy(cores=cores, max_connections=2)
    with proxy.libpq() as conn:
        conn.query("begin")
        kill(conn.value("select pg_backend_pid()"))
        for code in (KILLED, FAILED_BLOCK):
            try:
                conn.query("select 1")
                raise AssertionError("no error")
            except libpq.Error as error:
                assert error.code == code, error
            assert conn.transaction_status == IN_ERROR
        conn.execute("rollback")
        assert conn.transaction_status == 0
        assert conn.execute("select $1::text", ["on"]).rows == [["on"]]


@runner.cases("in a query", "at its commit", "when it rolls back")
def test_psycopg2(where):
    """psycopg2 goes on after rollback(), whatever it was at when the backend was lost."""
    if psycopg2 is None:
        raise runner.Skip("psycopg2 is not installed")
    proxy = runner.proxy(max_connections=2)
    connection = psycopg2.connect(proxy.dsn())
    try:
        cursor = connection.cursor()
        cursor.execute("select pg_backend_pid()")
        kill(cursor.fetchone()[0])
        if where != "when it rolls back":
            try:
                if where == "in a query":
                    cursor.execute("select 1")
                else:
                    connection.commit()
                raise AssertionError("no error")
            except psycopg2.OperationalError as error:
                assert error.pgcode == KILLED, error
        connection.rollback()
        assert not connection.closed
        cursor = connection.cursor()
        cursor.execute("select 'again'")
        assert cursor.fetchone() == ("again",)
        connection.commit()
    finally:
        connection.close()


if __name__ == "__main__":
    runner.main()
