"""psycopg2: simple queries only, parameters put into the text."""

import io
import select

import common
import psycopg2
import psycopg2.extras


def connect():
    """By the environment: PGHOST and its like."""
    return psycopg2.connect("")


def make_table(table):
    conn = connect()
    conn.autocommit = True
    conn.cursor().execute(f"drop table if exists {table}; create table {table} (id int primary key, name text)")
    conn.close()


def simple(_):
    conn = connect()
    for turn in range(20):
        with conn, conn.cursor() as cursor:
            cursor.execute(f"select {turn}; select 'second'")
            assert cursor.fetchall() == [("second",)]
    conn.close()


def parameters(_):
    conn = connect()
    with conn, conn.cursor() as cursor:
        cursor.execute("select %s, %s, %s", (1, "it's", None))
        assert cursor.fetchone() == (1, "it's", None)
        cursor.execute("select %s::bytea", (b"\0\1\xff",))
        assert bytes(cursor.fetchone()[0]) == b"\0\1\xff"
        cursor.execute("select %s", ([1, 2, 3],))
        assert cursor.fetchone() == ([1, 2, 3],)
    conn.close()


def prepared(_):
    """By PREPARE and EXECUTE, under a name that all clients use."""
    conn = connect()
    with conn, conn.cursor() as cursor:
        cursor.execute("prepare by_name (int, text) as select $1 + 1, $2")
        cursor.execute("execute by_name (%s, %s)", (1, "it's"))
        assert cursor.fetchone() == (2, "it's")
    for turn in range(20):
        with conn, conn.cursor() as cursor:
            cursor.execute("execute by_name (%s, %s)", (turn, None))
            assert cursor.fetchone() == (turn + 1, None)
    with conn, conn.cursor() as cursor:
        cursor.execute("deallocate by_name")
        cursor.execute("prepare by_name as select 'another'")
        psycopg2.extras.execute_batch(cursor, "execute by_name", [()] * 3)
    conn.autocommit = True
    for _ in range(5):
        with conn.cursor() as cursor:
            cursor.execute("execute by_name")
            assert cursor.fetchone() == ("another",)
    with conn.cursor() as cursor:
        cursor.execute("deallocate all")
        common.must_fail(lambda: cursor.execute("execute by_name"), psycopg2.errors.InvalidSqlStatementName)
    conn.close()


def batch(table):
    conn = connect()
    with conn, conn.cursor() as cursor:
        cursor.executemany(f"insert into {table} values (%s, %s)", common.ROWS[:50])
        psycopg2.extras.execute_values(cursor, f"insert into {table} values %s", common.ROWS[50:100])
        psycopg2.extras.execute_batch(cursor, f"insert into {table} values (%s, %s)", common.ROWS[100:])
    with conn, conn.cursor() as cursor:
        cursor.execute(f"select * from {table} order by id")
        assert cursor.fetchall() == common.ROWS
    conn.close()


def cursors(table):
    conn = connect()
    with conn, conn.cursor("by_name") as cursor:
        cursor.itersize = 30
        cursor.execute(f"select * from {table} order by id")
        assert list(cursor) == common.ROWS
    conn.close()


def copy(table):
    conn = connect()
    with conn, conn.cursor() as cursor:
        cursor.execute(f"truncate {table}")
        data = "".join(f"{i}\t{name}\n" for i, name in common.ROWS)
        cursor.copy_expert(f"copy {table} from stdin", io.StringIO(data))
        out = io.StringIO()
        cursor.copy_expert(f"copy (select * from {table} order by id) to stdout", out)
        assert out.getvalue() == data
    with conn.cursor() as cursor:
        bad = io.StringIO("1000\tgood\nno number\tbad\n" + "2000\tnever read\n" * 5000)
        common.must_fail(lambda: cursor.copy_expert(f"copy {table} from stdin", bad), psycopg2.DataError)
        conn.rollback()
        cursor.execute(f"select count(*) from {table}")
        assert cursor.fetchone() == (200,)
    conn.close()


def errors(table):
    conn = connect()
    with conn.cursor() as cursor:
        cursor.execute(f"insert into {table} values (500, 'lost')")
        common.must_fail(lambda: cursor.execute("select 1 / 0"), psycopg2.errors.DivisionByZero)
        common.must_fail(lambda: cursor.execute("select 1"), psycopg2.errors.InFailedSqlTransaction)
        conn.rollback()
        cursor.execute(f"select count(*) from {table} where id = 500")
        assert cursor.fetchone() == (0,)
        conn.commit()
    conn.close()


def settings(_):
    conn = connect()
    conn.set_client_encoding("LATIN1")
    with conn, conn.cursor() as cursor:
        cursor.execute("set timezone = 'Asia/Tokyo'")
    for _ in range(10):
        with conn, conn.cursor() as cursor:
            cursor.execute("select current_setting('timezone'), 'é', current_setting('client_encoding')")
            assert cursor.fetchone() == ("Asia/Tokyo", "é", "LATIN1")
    conn.close()


def notices(_):
    conn = connect()
    with conn, conn.cursor() as cursor:
        cursor.execute("do $$ begin raise notice 'hello'; end $$")
    assert conn.notices == ["NOTICE:  hello\n"]
    conn.close()


def notify(table):
    conn, other = connect(), connect()
    conn.autocommit = other.autocommit = True

    def hear_rest():
        found = [(n.pid, n.channel, n.payload) for n in conn.notifies]
        conn.notifies.clear()
        return found

    def hear():
        while not conn.notifies:
            assert select.select([conn], [], [], 60)[0], "nothing within 60 s"
            conn.poll()
        return hear_rest()

    with conn.cursor() as cursor, other.cursor() as another:
        common.exchange_news(table, conn.get_backend_pid(), another.execute, cursor.execute, hear, hear_rest)
    conn.close()
    other.close()


def cancel(_):
    conn = connect()
    cursor = conn.cursor()
    error = common.cancel_until_done(conn.cancel, lambda: cursor.execute("select pg_sleep(30)"))
    assert error.pgcode == "57014", error
    conn.rollback()
    cursor.execute("select 'after'")
    assert cursor.fetchone() == ("after",)
    conn.close()


def reconnect(_):
    for turn in range(10):
        conn = connect()
        with conn, conn.cursor() as cursor:
            cursor.execute("select %s", (turn,))
            assert cursor.fetchone() == (turn,)
        conn.close()


common.run(
    make_table,
    [simple, parameters, prepared, batch, cursors, copy, errors, settings, notices, notify, cancel, reconnect],
)
