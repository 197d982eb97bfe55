"""asyncpg: the extended protocol in binary, every statement prepared by name."""

import asyncio
import io
import os

import asyncpg
import common


async def connect():
    """By the environment: PGHOST and its like."""
    return await asyncpg.connect(ssl=False)


async def make_table(table):
    conn = await connect()
    await conn.execute(f"drop table if exists {table}; create table {table} (id int primary key, name text)")
    await conn.close()


async def simple(_):
    conn = await connect()
    for turn in range(20):
        assert await conn.execute(f"select {turn}; select 2") == "SELECT 1"
    await conn.close()


async def parameters(_):
    conn = await connect()
    for turn in range(20):
        row = await conn.fetchrow("select $1::int, $2::text, $3::bytea, $4::float8", turn, "wörter", b"\0\xff", 0.5)
        assert tuple(row) == (turn, "wörter", b"\0\xff", 0.5)
        assert await conn.fetchval("select $1::int[]", [1, None, 3]) == [1, None, 3]
    await conn.close()


async def prepared(_):
    conn = await connect()
    statement = await conn.prepare("select g, $1::text from generate_series(1, $2::int) g")
    for turn in range(20):
        rows = await statement.fetch(f"turn {turn}", turn)
        assert [tuple(r) for r in rows] == [(g, f"turn {turn}") for g in range(1, turn + 1)]
    assert [a.name for a in statement.get_attributes()] == ["g", "text"]
    await conn.close()
    # Without its cache: each statement is closed when it has been used.
    conn = await asyncpg.connect(ssl=False, statement_cache_size=0)
    for turn in range(20):
        assert await conn.fetchval("select $1::int", turn) == turn
    await conn.close()


async def batch(table):
    conn = await connect()
    await conn.executemany(f"insert into {table} values ($1, $2)", common.ROWS)
    rows = await conn.fetch(f"select * from {table} order by id")
    assert [tuple(r) for r in rows] == common.ROWS
    try:
        await conn.executemany(f"insert into {table} values ($1, $2)", [(300, "lost"), (1, "duplicate"), (301, "lost")])
        raise AssertionError("no error")
    except asyncpg.UniqueViolationError:
        pass
    assert await conn.fetchval(f"select count(*) from {table}") == 200
    await conn.close()


async def cursors(table):
    conn = await connect()
    async with conn.transaction():
        found = []
        async for row in conn.cursor(f"select * from {table} order by id", prefetch=30):
            found.append(tuple(row))
        assert found == common.ROWS
    await conn.close()


async def copy(table):
    conn = await connect()
    await conn.execute(f"truncate {table}")
    assert await conn.copy_records_to_table(table, records=common.ROWS) == "COPY 200"
    out = io.BytesIO()
    await conn.copy_from_query(f"select * from {table} order by id", output=out)
    assert out.getvalue().decode() == "".join(f"{i}\t{name}\n" for i, name in common.ROWS)
    try:
        await conn.copy_to_table(table, source=io.BytesIO(b"1000\tgood\nno number\tbad\n" + b"2000\tnever\n" * 50000))
        raise AssertionError("no error")
    except asyncpg.InvalidTextRepresentationError:
        pass
    assert await conn.fetchval(f"select count(*) from {table}") == 200
    await conn.close()


async def errors(table):
    conn = await connect()
    async with conn.transaction():
        await conn.execute(f"insert into {table} values ($1, 'kept')", 500)
        try:
            async with conn.transaction():
                await conn.execute(f"insert into {table} values ($1, 'lost')", 501)
                await conn.fetchval("select 1 / $1::int", 0)
        except asyncpg.DivisionByZeroError:
            pass
    assert await conn.fetchval(f"select sum(id) from {table} where id >= 500") == 500
    await conn.close()


async def notify(table):
    conn, other = await connect(), await connect()
    heard, coming = [], asyncio.Queue()

    def on_notification(_, *got):
        coming.put_nowait(got)

    async def wait_for(*wanted):
        while wanted not in [got[1:] for got in heard]:
            heard.append(await asyncio.wait_for(coming.get(), 60))

    await conn.add_listener(table, on_notification)
    await conn.add_listener(common.NEWS, on_notification)
    for turn in range(common.NEWS_COUNT):
        await other.execute("select pg_notify($1, $2)", table, f"{table} {turn}")
        await wait_for(table, f"{table} {turn}")
        await conn.execute("select pg_notify($1, $2)", common.NEWS, f"{table} {turn}")
        await wait_for(common.NEWS, f"{table} {turn}")
    common.check_news(table, conn.get_server_pid(), heard)
    await conn.remove_listener(common.NEWS, on_notification)
    await conn.remove_listener(table, on_notification)
    assert await conn.fetch("select * from pg_listening_channels()") == []
    await conn.close()
    await other.close()


async def cancel(_):
    conn = await connect()
    try:
        await conn.execute("select pg_sleep(30)", timeout=0.3)
        raise AssertionError("no time-out")
    except asyncio.TimeoutError:
        pass
    assert await conn.fetchval("select 'after'") == "after"
    await conn.close()


async def pool(_):
    # Connections that wait in the pool have statements prepared by name; without their cache they close them.
    for options in ({}, {"statement_cache_size": 0}):
        async with asyncpg.create_pool(ssl=False, min_size=1, max_size=3, **options) as clients:

            async def work(turn):
                async with clients.acquire() as conn:
                    assert await conn.fetchval("select $1::int", turn) == turn
                    async with conn.transaction():
                        assert await conn.fetchval("select $1::text", f"turn {turn}") == f"turn {turn}"

            await asyncio.gather(*(work(turn) for turn in range(12)))


async def reconnect(_):
    for turn in range(10):
        conn = await connect()
        assert await conn.fetchval("select $1::int", turn) == turn
        await conn.close()


CHECKS = [simple, parameters, prepared, batch, cursors, copy, errors, notify, cancel, pool, reconnect]


async def client(number):
    table = f"driver_{os.environ['DRIVER']}_{number}"
    await make_table(table)
    for check in CHECKS:
        await check(table)


async def main():
    await asyncio.gather(*(client(number) for number in range(common.CLIENTS)))
    for check in CHECKS:
        print("ok", check.__name__, flush=True)


asyncio.run(main())
