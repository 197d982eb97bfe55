"""psycopg 3: the extended protocol, prepared statements, binary results, pipelines."""

import common
import psycopg


def connect(**more):
    """By the environment: PGHOST and its like."""
    return psycopg.connect("", **more)


def make_table(table):
    with connect(autocommit=True) as conn:
        conn.execute(f"drop table if exists {table}")
        conn.execute(f"create table {table} (id int primary key, name text)")


def simple(_):
    with connect(autocommit=True) as conn:
        for turn in range(20):
            cursor = conn.execute(f"select {turn}; select 'second'")
            assert cursor.fetchall() == [(turn,)] and cursor.nextset() and cursor.fetchall() == [("second",)]


def parameters(_):
    with connect() as conn:
        row = conn.execute("select %s, %s, %s::int, %s", (1, "it's", None, b"\0\xff")).fetchone()
        assert row == (1, "it's", None, b"\0\xff"), row
        assert conn.execute("select %s::int[]", ([1, 2],)).fetchone() == ([1, 2],)


def binary(table):
    with connect() as conn, conn.cursor(binary=True) as cursor:
        cursor.execute("select %b::int8, %b::float8, %b::text", (1 << 40, 0.5, "wörter"))
        assert cursor.fetchone() == (1 << 40, 0.5, "wörter")
        cursor.execute(f"select count(*) from {table}")
        assert cursor.fetchone() == (0,)


def prepared(_):
    with connect(autocommit=True) as conn:
        for turn in range(20):
            assert conn.execute("select %s::int + 1", (turn,), prepare=True).fetchone() == (turn + 1,)
            assert conn.execute("select %s::text", (f"{turn}",), prepare=True).fetchone() == (f"{turn}",)
    # The driver prepares by itself what comes often, and throws out what is old.
    with connect(autocommit=True) as conn:
        conn.prepared_max = 3
        for turn in range(20):
            for column in "abcdef":
                statement = f"select %s::int as {column}"
                assert conn.execute(statement, (turn,), prepare=True).fetchone() == (turn,)


def batch(table):
    with connect() as conn, conn.cursor() as cursor:
        cursor.executemany(f"insert into {table} values (%s, %s)", common.ROWS)
    with connect() as conn:
        assert conn.execute(f"select * from {table} order by id").fetchall() == common.ROWS


def cursors(table):
    with connect() as conn, conn.cursor("by_name") as cursor:
        cursor.execute(f"select * from {table} order by id")
        assert cursor.fetchmany(30) == common.ROWS[:30]
        assert cursor.fetchall() == common.ROWS[30:]


def copy(table):
    with connect() as conn, conn.cursor() as cursor:
        cursor.execute(f"truncate {table}")
        with cursor.copy(f"copy {table} from stdin (format binary)") as pipe:
            pipe.set_types(["int4", "text"])
            for row in common.ROWS:
                pipe.write_row(row)
        with cursor.copy(f"copy (select * from {table} order by id) to stdout") as pipe:
            pipe.set_types(["int4", "text"])
            assert list(pipe.rows()) == common.ROWS
    with connect() as conn:

        def feed():
            with conn.cursor().copy(f"copy {table} from stdin") as pipe:
                pipe.write(b"1000\tgood\nno number\tbad\n")
                for _ in range(500):
                    pipe.write(b"2000\tnever read\n" * 10)

        common.must_fail(feed, psycopg.errors.InvalidTextRepresentation)
        conn.rollback()

        def give_up():
            with conn.cursor().copy(f"copy {table} from stdin") as pipe:
                pipe.write(b"1000\tgood\n")
                raise KeyError("enough")

        common.must_fail(give_up, psycopg.errors.QueryCanceled)
        conn.rollback()
        assert conn.execute(f"select count(*) from {table}").fetchone() == (200,)


def pipeline(table):
    with connect(autocommit=True) as conn:
        for _ in range(5):
            with conn.pipeline():
                cursors = [conn.execute("select %s::int", (i,)) for i in range(50)]
            assert [c.fetchone() for c in cursors] == [(i,) for i in range(50)]

        def batch():
            # The error is raised where it is seen: by the insert, or at the end of the block.
            with conn.pipeline():
                conn.execute("select 1 / %s", (0,))
                conn.execute(f"insert into {table} values (700, 'skipped')")

        with conn.pipeline() as pipe:
            good = conn.execute("select 1")
            pipe.sync()
        common.must_fail(batch, psycopg.errors.DivisionByZero)
        with conn.pipeline():
            later = conn.execute("select 2")
        assert good.fetchone() == (1,) and later.fetchone() == (2,)
        assert conn.execute(f"select count(*) from {table} where id = 700").fetchone() == (0,)


def errors(table):
    with connect() as conn:
        with conn.transaction():
            conn.execute(f"insert into {table} values (500, 'kept')")

            def inner():
                with conn.transaction():
                    conn.execute(f"insert into {table} values (501, 'lost')")
                    conn.execute("select 1 / 0")

            common.must_fail(inner, psycopg.errors.DivisionByZero)
        assert conn.execute(f"select id from {table} where id >= 500").fetchall() == [(500,)]
        common.must_fail(lambda: conn.execute("no sql"), psycopg.errors.SyntaxError)
        common.must_fail(lambda: conn.execute("select 1"), psycopg.errors.InFailedSqlTransaction)
        conn.rollback()


def notices(_):
    heard = []
    with connect(autocommit=True) as conn:
        conn.add_notice_handler(lambda diagnostic: heard.append(diagnostic.message_primary))
        conn.execute("do $$ begin raise notice 'hello'; end $$")
    assert heard == ["hello"]


def notify(table):
    """What comes with answers goes to the handler, the rest to the generator."""
    with connect(autocommit=True) as conn, connect(autocommit=True) as other:
        beside = []
        conn.add_notify_handler(lambda n: beside.append((n.pid, n.channel, n.payload)))
        news = conn.notifies()

        def hear_rest():
            found = beside[:]
            beside.clear()
            return found

        def hear():
            if beside:
                return hear_rest()
            found = next(news)
            return [(found.pid, found.channel, found.payload)]

        common.exchange_news(table, conn.info.backend_pid, other.execute, conn.execute, hear, hear_rest)
        news.close()


def cancel(_):
    with connect() as conn:
        error = common.cancel_until_done(conn.cancel, lambda: conn.execute("select pg_sleep(30)"))
        assert error.sqlstate == "57014", error
        conn.rollback()
        assert conn.execute("select 'after'").fetchone() == ("after",)


def reconnect(_):
    for turn in range(10):
        with connect() as conn:
            assert conn.execute("select %s::int", (turn,)).fetchone() == (turn,)


common.run(
    make_table,
    [simple, parameters, binary, prepared, batch, cursors, copy, pipeline, errors, notices, notify, cancel, reconnect],
)
