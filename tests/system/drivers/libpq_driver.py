"""libpq by its own calls: parameters, prepared statements, binary values, pipelines, COPY, cancel."""

import pathlib
import struct
import sys

import common

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import libpq  # pylint: disable=wrong-import-position


def connect():
    """By the environment: PGHOST and its like."""
    return libpq.Conn("", timeout=60)


def make_table(table):
    with connect() as conn:
        conn.query(f"drop table if exists {table}")
        conn.query(f"create table {table} (id int primary key, name text)")


def simple(_):
    with connect() as conn:
        for turn in range(20):
            assert conn.query(f"select {turn}; select 'second'").rows == [["second"]]


def parameters(_):
    with connect() as conn:
        assert conn.execute("select $1::int, $2, $3::text", [1, "it's", None]).rows == [["1", "it's", None]]


def prepared(_):
    with connect() as conn:
        conn.prepare("by name", "select $1::int + 1")
        conn.prepare("another", "select $1::text")
        for turn in range(20):
            assert conn.execute_prepared("by name", [turn]).rows == [[str(turn + 1)]]
            assert conn.execute_prepared("another", [turn]).rows == [[str(turn)]]


# Of pg_type.
INT4, FLOAT8, BYTEA, TEXT, TIMESTAMPTZ = 23, 701, 17, 25, 1184


def binary(_):
    values = [
        struct.pack("!i", -7),
        struct.pack("!d", 0.1),
        bytes(range(256)) * 50,
        struct.pack("!q", 762_523_200_123_456),  # Microseconds since 2000.
        None,
        b"",
    ]
    columns = "$1, $2, $3, $4, $5, $6"
    types = [INT4, FLOAT8, BYTEA, TIMESTAMPTZ, TEXT, BYTEA]
    constants = "42::int4, 1.5::float8, '\\x00ff'::bytea, timestamptz '2000-01-01 00:00:01+00'"
    with connect() as conn, connect() as other:
        conn.prepare("both", "select $1::int4 + 1, $2::bytea, $3::timestamptz at time zone 'UTC'")
        # One text, with parameters of other types.
        conn.prepare("typed", "select $1", [INT4])
        other.prepare("typed", "select $1", [FLOAT8])
        for turn in range(10):
            for client, value in ((conn, struct.pack("!i", turn)), (other, struct.pack("!d", turn))):
                assert client.execute_prepared_binary("typed", [value]).rows == [[value]]
            assert conn.execute_binary(f"select {columns}", types, values).rows == [values]
            found = other.execute_binary(f"select {constants}").rows
            assert found == [[struct.pack("!i", 42), struct.pack("!d", 1.5), b"\0\xff", struct.pack("!q", 1_000_000)]]
            # One statement, asked for in either format.
            found = conn.execute_prepared("both", [turn, "\\x00ff", "2000-01-01 00:00:01+00"]).rows
            assert found == [[str(turn + 1), "\\x00ff", "2000-01-01 00:00:01"]], found
            sent = [struct.pack("!i", turn), b"\0\xff", struct.pack("!q", 1_000_000)]
            found = conn.execute_prepared_binary("both", sent).rows
            assert found == [[struct.pack("!i", turn + 1), *sent[1:]]], found
        error = common.must_fail(lambda: conn.execute_binary("select $1", [INT4], [b"\0" * 3]), libpq.Error)
        assert error.code in ("08P01", "22P03"), error


def results_to_sync(conn):
    """The results of a pipeline up to its next sync, the empty ones between them left out."""
    found = []
    while not found or found[-1].status != libpq.PIPELINE_SYNC:
        result = conn.get_result()
        if result is not None:
            found.append(result)
    return found[:-1]


def pipeline(table):
    with connect() as conn:
        conn.enter_pipeline()
        for turn in range(30):
            conn.send_params(f"insert into {table} values ($1, $2)", [turn, f"name {turn}"])
            conn.send_params("select 1 / $1::int", [turn % 3])
            conn.send_params("select $1", [turn])
            conn.pipeline_sync()
        for turn in range(30):
            statuses = [r.status for r in results_to_sync(conn)]
            if turn % 3:
                assert statuses == [libpq.COMMAND_OK, libpq.TUPLES_OK, libpq.TUPLES_OK], statuses
            else:
                assert statuses == [libpq.COMMAND_OK, libpq.FATAL_ERROR, libpq.PIPELINE_ABORTED], statuses
        # A client that wants its answers before the end of the batch.
        conn.send_params("select 'early'")
        conn.flush_request()
        assert conn.get_result().rows == [["early"]]
        assert conn.get_result() is None
        conn.pipeline_sync()
        assert results_to_sync(conn) == []
        conn.exit_pipeline()
        assert conn.value(f"select count(*) from {table}") == "20"


def copy(table):
    data = "".join(f"{i}\t{name}\n" for i, name in common.ROWS).encode()
    with connect() as conn:
        conn.query(f"truncate {table}")
        conn.query(f"copy {table} from stdin")
        conn.put_copy(data)
        for result in conn.end_copy():
            result.check()
        conn.query(f"copy (select * from {table} order by id) to stdout")
        assert b"".join(iter(conn.get_copy, None)) == data
        assert [r.tag for r in conn.results()] == ["COPY 200"]
        conn.query(f"copy {table} from stdin")
        assert [r.code for r in conn.end_copy("enough")] == ["57014"]


def errors(table):
    with connect() as conn:
        conn.query("begin")
        conn.query(f"insert into {table} values (500, 'lost')")
        assert common.must_fail(lambda: conn.query("select 1 / 0"), libpq.Error).code == "22012"
        assert conn.transaction_status == 3
        assert common.must_fail(lambda: conn.query("select 1"), libpq.Error).code == "25P02"
        conn.query("rollback")
        assert conn.transaction_status == 0


def settings(_):
    with connect() as conn:
        conn.query("set datestyle = 'German'")
        assert conn.parameter("DateStyle") == "German, DMY"
        for _ in range(10):
            assert conn.value("select date '2024-02-29'") == "29.02.2024"


def notify(table):
    with connect() as conn, connect() as other:
        common.exchange_news(table, conn.pid, other.query, conn.query, conn.wait_notifications, conn.notifications)


def cancel(_):
    with connect() as conn:
        error = common.cancel_until_done(conn.cancel, lambda: conn.query("select pg_sleep(30)"))
        assert error.code == "57014", error
        assert conn.value("select 'after'") == "after"


def reconnect(_):
    for turn in range(10):
        with connect() as conn:
            assert conn.value(f"select {turn}") == str(turn)


common.run(
    make_table,
    [simple, parameters, prepared, binary, pipeline, copy, errors, settings, notify, cancel, reconnect],
)
