#!/usr/bin/python3
"""Replication connections by PostgreSQL's own programs: they pass, are counted, and end with their clients."""

import contextlib
import os
import re
import signal
import subprocess
import tarfile
import tempfile
import time

from harness import cluster as cluster_module
from harness import libpq
from harness import proxy as proxy_module
from harness import runner, wire
from harness.wire import message, query

runner.use_cluster(replication=True)

PASSWORD = proxy_module.CLIENTS["app"]
BOTH = "backend_type in ('client backend', 'walsender') and usename is distinct from 'postgres'"


def environment():
    return {
        **os.environ,
        "PGPASSWORD": PASSWORD,
        "PGSSLMODE": "disable",
        "PGGSSENCMODE": "disable",
    }


def words(proxy, program, *arguments):
    host, port = proxy.address
    directory = runner.cluster().binaries
    path = f"{directory}/{program}"
    return [path, "-h", host, "-p", str(port), "-U", "app", *arguments]


def run(proxy, program, *arguments, timeout=60):
    """Runs one of PostgreSQL's programs through the proxy to its end: what it printed."""
    done = subprocess.run(
        words(proxy, program, *arguments),
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{program}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@contextlib.contextmanager
def running(proxy, program, *arguments):
    """One that runs until it is told to stop; its end has to be clean."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            words(proxy, program, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(),
            preexec_fn=cluster_module.die_with_parent,
        )
        try:
            yield process
            process.send_signal(signal.SIGINT)
            code = process.wait(30)
            assert code == 0, f"{program}: {code}"
        except BaseException:
            output.seek(0)
            print(output.read())
            raise
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def walsenders(condition="true"):
    return runner.cluster().run(
        "select pid, application_name, backend_start from pg_stat_activity"
        f" where backend_type = 'walsender' and {condition}",
        "postgres",
    )


def wait_walsenders(count, condition="true"):
    return runner.eventually(
        lambda: [walsenders(condition)] if len(walsenders(condition)) == count else None,
        what=f"{count} replication connections at the server, there are {walsenders()}",
    )[0]


def connections():
    """Server connections of the proxy, of either kind."""
    return int(
        runner.cluster().value(f"select count(*) from pg_stat_activity where {BOTH}", "postgres")
    )


def drop_slot(name):
    runner.eventually(
        lambda: runner.cluster().value(
            f"select count(*) from pg_replication_slots where slot_name = '{name}' and active"
        )
        == "0",
        what=f"the end of who uses slot {name}",
    )
    runner.cluster().run(f"select pg_drop_replication_slot('{name}')")


def replica(proxy, mode="database", database="app", **parameters):
    """A raw replication connection."""
    return proxy.client("app", database, replication=mode, **parameters)


def row_of(proxy, mode):
    """The figures of the replication connections of this kind."""
    rows = [r for name, r in proxy.statistics().items() if f" replication={mode}" in str(name)]
    assert rows, proxy.statistics().keys()
    return rows


def total(rows, column):
    return sum(int(re.match(r"\d+", row[column])[0]) for row in rows)


# PostgreSQL's programs.


@runner.cases(
    ("plain", "stream"), ("plain", "fetch"), ("tar", "stream"), ("tar", "fetch"), ("plain", "none")
)
def test_base_backup(form, wal):
    """pg_basebackup makes a backup that verifies, and leaves no connection behind."""
    proxy = runner.proxy(cores=2, max_connections=4)
    with tempfile.TemporaryDirectory(prefix="helios-backup-") as top:
        target = f"{top}/backup"
        options = ["-D", target, "-F", form, "-X", wal, "-c", "fast", "--no-sync"]
        run(proxy, "pg_basebackup", *options)
        if form == "tar":
            with tarfile.open(f"{target}/base.tar") as archive:
                archive.extractall(f"{top}/unpacked")
            os.rename(f"{target}/backup_manifest", f"{top}/unpacked/backup_manifest")
            assert wal != "stream" or os.path.getsize(f"{target}/pg_wal.tar") > 1 << 20
            target = f"{top}/unpacked"
        subprocess.run(
            [f"{runner.cluster().binaries}/pg_verifybackup", "-q", "-n", target],
            check=True,
            timeout=60,
        )
    wait_walsenders(0)


@runner.cases(1, 2)
def test_receive_wal(cores):
    """pg_receivewal makes a slot, streams what is written until it is stopped, and goes on where it was."""
    proxy = runner.proxy(cores=cores, max_connections=4)
    cluster = runner.cluster()
    run(proxy, "pg_receivewal", "--create-slot", "-S", "receiver")
    with tempfile.TemporaryDirectory(prefix="helios-wal-") as directory:
        for _ in range(2):
            with running(proxy, "pg_receivewal", "-D", directory, "-S", "receiver", "--no-sync"):
                runner.eventually(
                    lambda: cluster.run(
                        "select 1 from pg_stat_replication where state = 'streaming'"
                        " and application_name = 'pg_receivewal'"
                    ),
                    what="the stream",
                )
                cluster.run("create table if not exists wal (t text)")
                cluster.run("insert into wal select repeat('x', 100) from generate_series(1, 1000)")
                # Behind the insert: at the beginning of a segment this would name the one before.
                name = cluster.value("select pg_walfile_name(pg_current_wal_insert_lsn())")
                cluster.run("select pg_switch_wal()")
                runner.eventually(
                    lambda n=name: os.path.exists(f"{directory}/{n}"), what=f"segment {name}"
                )
                assert os.path.getsize(f"{directory}/{name}") == 16 << 20
            wait_walsenders(0)
    drop_slot("receiver")


@runner.cases("test_decoding", "pgoutput")
def test_receive_logical(plugin):
    """pg_recvlogical makes a slot with a plugin, streams changes, and drops the slot."""
    proxy = runner.proxy(cores=2, max_connections=4)
    cluster = runner.cluster()
    run(proxy, "pg_recvlogical", "-d", "app", "-S", "logical", "--create-slot", "-P", plugin)
    cluster.run("create table if not exists logical (n int)")
    options = []
    if plugin == "pgoutput":
        cluster.run("create publication logical for table logical")
        options = ["-o", "proto_version=1", "-o", "publication_names=logical"]
    marker = "INSERT" if plugin == "test_decoding" else "I"
    with tempfile.NamedTemporaryFile() as file:
        arguments = ["-d", "app", "-S", "logical", "--start", "-f", file.name]
        with running(proxy, "pg_recvlogical", *arguments, *options):
            wait_walsenders(1, "datname = 'app'")
            for number in range(50):
                cluster.run(f"insert into logical values ({number})")

            def lines():
                with open(file.name, "rb") as got:
                    return [line for line in got.read().split(b"\n") if marker.encode() in line]

            runner.eventually(lambda: len(lines()) >= 50, what="fifty changes")
    run(proxy, "pg_recvlogical", "-d", "app", "-S", "logical", "--drop-slot")
    wait_walsenders(0)
    cluster.run("drop publication if exists logical")


@runner.cases(1, 2)
@runner.timeout(120)
def test_subscription(cores):
    """A subscription whose connection string names the proxy copies its tables and follows them."""
    proxy = runner.proxy(cores=cores, max_connections=6)
    publisher = runner.cluster()
    subscriber = cluster_module.Cluster(replication=True)
    host, port = proxy.address
    try:
        for table in ("one", "two"):
            publisher.run(f"create table {table} (n int primary key, t text)")
            publisher.run(f"grant select on {table} to app")
            publisher.run(f"insert into {table} select g, repeat('x', 200) from generate_series(1, 20000) g")
            subscriber.run(f"create table {table} (n int primary key, t text)")
        publisher.run("create publication pair for table one, two")
        subscriber.run(
            f"create subscription through connection 'host={host} port={port} dbname=app user=app"
            f" password={PASSWORD} sslmode=disable' publication pair"
        )
        for table in ("one", "two"):
            runner.eventually(
                lambda t=table: subscriber.value(f"select count(*) from {t}") == "20000",
                seconds=60,
                what=f"the copy of {table}",
            )
        publisher.run("insert into one select g, 'later' from generate_series(20001, 21000) g")
        publisher.run("delete from two where n % 2 = 0")
        runner.eventually(
            lambda: subscriber.value("select count(*), (select count(*) from two) from one")
            and subscriber.run("select count(*), (select count(*) from two) from one")[0]
            == ["21000", "10000"],
            what="the changes",
        )
        wait_walsenders(1)
        subscriber.run("drop subscription through")
        wait_walsenders(0)
    finally:
        subscriber.stop()
        publisher.run("drop publication if exists pair")
        publisher.run("drop table if exists one, two")


# What the pooler makes of them.


def test_commands_and_sql():
    """A connection to a database takes replication commands and SQL, one to none takes no SQL."""
    proxy = runner.proxy(max_connections=4)
    with replica(proxy, application_name="walsender test") as client:
        (row,) = client.query("IDENTIFY_SYSTEM")
        assert row[3] == "app", row
        assert client.value("select current_database()") == "app"
        assert client.value("show application_name") == "walsender test"
        (slot,) = client.query("CREATE_REPLICATION_SLOT sql_slot TEMPORARY LOGICAL test_decoding")
        assert slot[0] == "sql_slot" and slot[3] == "test_decoding", slot
        assert client.error_of("START_REPLICATION SLOT none LOGICAL 0/0")["C"] == "42704"
        client.query("begin")
        assert client.error_of("select 1/0")["C"] == "22012"
        client.query("rollback")
        assert client.value("select 1") == "1"
    with replica(proxy, "true", "no such database") as client:
        assert client.query("IDENTIFY_SYSTEM")[0][3] is None
        assert client.error_of("TIMELINE_HISTORY 77")["C"] == "58P01"
        assert client.error_of("select 1")["C"] == "0A000"
        assert client.query("SHOW wal_level") == [["logical"]]
    wait_walsenders(0)


def test_settings_are_the_servers():
    """What the client starts with, its server starts with; the welcome says what that server said."""
    proxy = runner.proxy(max_connections=4)
    parameters = {"options": "-c datestyle=German -c extra_float_digits=3 -cwork_mem=1MB"}
    with replica(proxy, client_encoding="latin1", **parameters) as client:
        assert client.value("show datestyle") == "German, DMY"
        assert client.value("show work_mem") == "1MB"
        assert client.value("show client_encoding") == "LATIN1"
    with proxy.open() as conn:
        conn.start("bench", "app", replication="database")
        fields = conn.recv_last_error()
        assert fields["C"] == "42501", fields


def test_database_of_physical_replication():
    """Physical replication goes where the database "replication" goes, else to "*"; without them it is refused."""
    entries = [{"name": "app", "node": "main"}]
    with runner.fresh_proxy(database=entries) as proxy:
        try:
            replica(proxy, "true")
            raise AssertionError("not refused")
        except wire.ServerError as error:
            assert error.code == "3D000" and "replication" in error.text, error.fields
        with replica(proxy) as client:
            assert client.value("select 1") == "1"
    entries.append({"name": "replication", "node": "main", "dbname": "ignored"})
    with runner.fresh_proxy(database=entries) as proxy, replica(proxy, "true") as client:
        assert client.query("IDENTIFY_SYSTEM")[0][3] is None


@runner.cases(1, 2)
def test_each_has_its_own(cores):
    """A replication connection's server is no other client's, before or behind it, and ends with it."""
    with runner.fresh_proxy(cores=cores, max_connections=4) as proxy:
        seen = set()
        with proxy.client("app") as ordinary:
            own = ordinary.value("select pg_backend_pid()")
            for goodbye in (True, False, True):
                client = replica(proxy)
                pid = client.value("select pg_backend_pid()")
                assert pid != own and pid not in seen, (pid, own, seen)
                seen.add(pid)
                assert len(walsenders()) == 1
                if goodbye:
                    client.terminate()
                else:
                    client.reset()
                wait_walsenders(0)
                assert ordinary.value("select pg_backend_pid()") == own
        rows = row_of(proxy, "database")
        assert total(rows, "connects") == 3 and total(rows, "idle") == 0, rows
        assert total(rows, "backends") == 0, rows
        assert any("3 single use" in row["closed"] for row in rows), rows


@runner.cases(1, 2)
def test_they_are_counted(cores):
    """Replication and other connections together stay within the pool's limit; who waits is served in the end."""
    with runner.fresh_proxy(cores=cores, max_connections=2) as proxy:
        ordinary = [proxy.client("app") for _ in range(2)]
        for client in ordinary:
            client.query("begin")
        for client in ordinary:
            client.query("commit")
        # Idle ones make room, one each.
        first, second = replica(proxy), replica(proxy)
        assert len(walsenders()) == 2 and connections() == 2
        rows = row_of(proxy, "database")
        assert total(rows, "leased") == 2 and total(rows, "clients") == 2, rows
        ordinary[0].send(query("select 'served'"))

        def make_way():
            runner.eventually(
                lambda: proxy.statistics()["total"]["waiting"] == "2", what="two that wait"
            )
            assert connections() == 2
            first.terminate()
            second.terminate()

        third, _ = runner.in_threads([lambda: replica(proxy), make_way])
        with third:
            assert third.value("select 1") == "1"
            assert ordinary[0].result() == [["served"]]
            assert connections() <= 2
        for client in ordinary:
            client.close()


def start_stream(client, slot):
    client.send(query(f"START_REPLICATION SLOT {slot} LOGICAL 0/0"))
    assert client.recv().kind == "W"


def test_end_of_the_proxy():
    """When the proxy stops a stream ends at once, with 57P01, and the server is not left behind."""
    with runner.fresh_proxy(max_connections=4) as proxy:
        with replica(proxy) as client, replica(proxy) as quiet:
            client.query("CREATE_REPLICATION_SLOT ending TEMPORARY LOGICAL test_decoding")
            start_stream(client, "ending")
            began = time.monotonic()
            proxy.signal(signal.SIGTERM)
            for conn in (client, quiet):
                assert conn.recv_last_error()["C"] == "57P01"
            code = proxy.wait(20)
            assert time.monotonic() - began < 15, "the drain has waited for a stream"
            proxy.finish(code)
    wait_walsenders(0)


def test_end_of_the_server():
    """What the server says at its end reaches the replication client."""
    proxy = runner.proxy(max_connections=4)
    with replica(proxy) as client:
        pid = client.value("select pg_backend_pid()")
        runner.cluster().run(f"select pg_terminate_backend({pid})")
        assert client.recv_last_error()["C"] == "57P01"


def test_cancel():
    """A cancel request ends what a replication connection does; the connection goes on."""
    proxy = runner.proxy(cores=2, max_connections=4)
    with replica(proxy) as client:
        client.send(query("select pg_sleep(30) /* replication */"))
        runner.eventually(
            lambda: runner.cluster().run(
                "select 1 from pg_stat_activity where wait_event = 'PgSleep'", "postgres"
            ),
            what="the query",
        )
        proxy.cancel(client.pid, client.key)
        assert [f["C"] for f in wire.errors(client.recv_until("Z"))] == ["57014"]
        assert client.value("select 1") == "1"


@runner.timeout(120)
def test_slow_reader():
    """A backup that its client does not read stays with the server; memory stays flat, and others are served."""
    with runner.fresh_proxy(max_connections=4, cores=1) as proxy:
        other = proxy.client("bench")
        client = proxy.client("app", "app", receive_buffer=4096, replication="database")
        other.value("select 1")
        before = proxy.rss()
        client.send(query("BASE_BACKUP (CHECKPOINT 'fast', WAIT false)"))
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert other.value("select 1") == "1"
        if not proxy.is_sanitized():
            assert proxy.rss() - before < 16 << 20, (before, proxy.rss())
        # It is there in full, once it is read.
        sizes = sum(len(m.body) for m in client.recv_until("Z", 60) if m.kind == "d")
        assert sizes > 20 << 20, sizes
        other.close()
        client.close()


@runner.timeout(120)
def test_stream_both_ways():
    """Changes come while positions go: a stream of some megabytes, answered all the time, and ended by both sides."""
    proxy = runner.proxy(cores=1, max_connections=4)
    cluster = runner.cluster()
    cluster.run("create table if not exists both_ways (n int, t text)")
    with replica(proxy) as client:
        client.query("CREATE_REPLICATION_SLOT both_ways TEMPORARY LOGICAL test_decoding")
        start_stream(client, "both_ways")
        cluster.run(
            "insert into both_ways select g, repeat('y', 500) from generate_series(1, 20000) g"
        )
        rows, reply = 0, b"r" + bytes(32) + b"\0"
        while rows < 20000:
            got = client.recv(30)
            assert got.kind == "d", got
            rows += got.body[:1] == b"w" and b"INSERT" in got.body
            client.send(wire.copy_data(reply))
        client.send(message("c"))
        tail = client.recv_until("Z", 30)
        kinds = "".join(m.kind for m in tail)
        assert kinds.replace("d", "") == "cCCZ", kinds
        assert client.value("select 1") == "1"
    cluster.run("drop table both_ways")


@runner.cases(1, 2)
@runner.timeout(120)
def test_others_are_undisturbed(cores):
    """While backups and streams come and go, pgbench notices nothing and the pool's limit holds."""
    runner.cluster().make_bench()
    with runner.fresh_proxy(cores=cores, max_connections=5) as proxy:

        def bench():
            proxy_module.pgbench(proxy, ["-c", "8", "-j", "2", "-T", "6"])

        def backups():
            end = time.monotonic() + 6
            while time.monotonic() < end:
                with tempfile.TemporaryDirectory(prefix="helios-backup-") as top:
                    run(proxy, "pg_basebackup", "-D", f"{top}/b", "-c", "fast", "--no-sync")

        def sessions():
            end = time.monotonic() + 6
            with proxy.libpq() as own:
                while time.monotonic() < end:
                    with replica(proxy) as client:
                        client.query("IDENTIFY_SYSTEM")
                    assert own.value("select 1") == "1"

        runner.in_threads([bench, backups, sessions])
        assert runner.cluster().check_bank() > 0
        wait_walsenders(0)
        rows = row_of(proxy, "true") + row_of(proxy, "database")
        assert total(rows, "connects") > 4 and total(rows, "backends") == 0, rows


def test_every_spelling():
    """libpq connects in each spelling of replication, and as anybody else where it is off."""
    proxy = runner.proxy(max_connections=4)
    for word in ("true", "on", "yes", "1", "database"):
        with libpq.Conn(proxy.dsn(replication=word)) as conn:
            assert len(conn.query("IDENTIFY_SYSTEM").rows) == 1
    for word in ("false", "off", "no", "0"):
        with libpq.Conn(proxy.dsn(replication=word)) as conn:
            assert conn.value("select 1") == "1"


KEPT = {
    "select pg_create_physical_replication_slot('kept', false, true)": "select pg_drop_replication_slot('kept')",
    "select pg_create_logical_replication_slot('kept', 'test_decoding', true)": "select pg_drop_replication_slot('kept')",
    "select pg_replication_origin_session_setup('kept')": "select pg_replication_origin_session_reset()",
    "select pg_backup_start('kept', true)": "select * from pg_backup_stop(false)",
    "select pg_advisory_lock(7), pg_advisory_lock_shared(8)": "select pg_advisory_unlock_all()",
}
KEPT_HERE = """
select (select count(*) from pg_replication_slots where temporary and active_pid = pg_backend_pid()),
       pg_replication_origin_session_is_setup(),
       (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())
"""


@contextlib.contextmanager
def keepers():
    """A proxy of two connections for clients that are superusers, and an origin for them."""
    runner.cluster().run("drop role if exists keeper")
    runner.cluster().run("create role keeper superuser login")
    runner.cluster().run("select pg_replication_origin_create('kept')")
    try:
        with runner.fresh_proxy(max_connections=2, user=[{"name": "*", "auth": "trust"}]) as proxy:
            yield proxy
    finally:
        runner.cluster().run("select pg_replication_origin_drop('kept')")
        runner.cluster().run("drop role keeper")


@runner.cases(*KEPT)
def test_slots_origins_and_backups_pin(begin):
    """What belongs to the session stays with its client until a function ends it, or the client does."""
    end = KEPT[begin]
    pid_query = "select pg_backend_pid()"
    with keepers() as proxy:
        with proxy.client("keeper") as two, proxy.client("keeper") as three:
            one = proxy.client("keeper")
            for block in (False, True):
                one.query(f"begin; {begin}; commit" if block else begin)
                pid = one.value(pid_query)
                here = one.query(KEPT_HERE)
                assert here != [["0", "f", "0"]] or "backup" in begin
                for client in (two, three, two):
                    assert client.value(pid_query) != pid
                    assert client.query(KEPT_HERE) == [["0", "f", "0"]]
                if "slot" not in begin:
                    # What fails ends nothing.
                    one.error_of(f"select 1/0; {end}")
                    assert two.value(pid_query) != pid
                    assert one.value(pid_query) == pid and one.query(KEPT_HERE) == here
                if block:
                    one.query("begin")
                    one.execute(end)
                    one.query("commit")
                else:
                    one.query(end)
                two.query("begin")
                three.query("begin")
                assert pid in (two.value(pid_query), three.value(pid_query))
                two.query("commit")
                three.query("commit")
            one.query(begin)
            pid = one.value(pid_query)
            one.close()
            if "advisory" not in begin:
                runner.eventually(lambda: not runner.cluster().backends(f"pid = {pid}"), what="its end")
            two.query("begin")
            assert two.query(KEPT_HERE) == three.query(KEPT_HERE) == [["0", "f", "0"]]
            two.query(begin)
            two.query("commit")
            two.query(end)


def test_a_temporary_slot_ends_with_an_error():
    """PostgreSQL drops temporary slots at any error of their session: then nothing is kept."""
    with keepers() as proxy, proxy.client("keeper") as one, proxy.client("keeper") as two, proxy.client("keeper") as three:
        one.query("select pg_create_physical_replication_slot('kept', false, true)")
        pid = one.value("select pg_backend_pid()")
        one.error_of("select 1/0")
        two.query("begin")
        three.query("begin")
        assert pid in (two.value("select pg_backend_pid()"), three.value("select pg_backend_pid()"))


def test_a_slot_that_is_not_temporary_pins_nothing():
    """A replication slot that outlives its session is no reason to keep a backend."""
    with keepers() as proxy, proxy.client("keeper") as one, proxy.client("keeper") as two:
        one.query("select pg_create_physical_replication_slot('kept')")
        try:
            pid = one.value("select pg_backend_pid()")
            assert two.value("select pg_backend_pid()") == pid
        finally:
            one.query("select pg_drop_replication_slot('kept')")


if __name__ == "__main__":
    runner.main()
