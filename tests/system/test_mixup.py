#!/usr/bin/python3
"""Many clients on few server connections, some killed, cancelled or robbed of their backend: every answer is the
asker's own.

    ./test_mixup.py --seconds 60 [--seed N]

Each connection has a tag, and each thing that it does a number: whatever comes back must begin with both.
"""

import asyncio
import collections
import random
import socket
import struct

from harness import runner, wire
from harness.wire import COPY_DONE, SYNC, bind, close, copy_data, copy_fail, describe, execute, parse, query

CLIENTS = 200
BACKENDS = 5
SECONDS = float(runner.option("--seconds") or max(3.0, 6 * runner.load()))
SEED = int(runner.option("--seed") or random.randrange(1 << 30))
SILENCE = 60
# What a client may hear when its backend was terminated.
LOST = ("57P01", "08006")
CANCELLED = "canceling statement due to user request"
ZONES = ("UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York", "Pacific/Auckland")
INT4_PLUS = 177


class Lost(Exception):
    """The backend was terminated under the client."""


class Gone(Exception):
    """The client has closed its connection, as it meant to."""


class Crowd:
    """What all clients share."""

    def __init__(self, address):
        self.address = address
        self.chance = random.Random(SEED)
        self.is_over = False
        self.lives = {}  # Client number -> its connection now.
        self.kills = 0
        self.counts = collections.Counter()


class Life:
    """One connection of a client, from login to end."""

    def __init__(self, crowd, number, reader, writer):
        self.crowd = crowd
        self.chance = crowd.chance
        self.tag = f"c{number}.{crowd.chance.randrange(1 << 40):x}"
        self.reader = reader
        self.writer = writer
        self.pid, self.key = 0, b""
        self.cancels = 0  # Requests that were sent for this connection.
        self.turn = 0
        self.rows = 0  # In the table, of this tag.
        self.name, self.zone = "", "UTC"
        self.memory = "4MB"
        self.has_statement = False
        self.heard = 0  # Notifications.
        self._rest = b""
        self._found = collections.deque()

    async def login(self):
        self.writer.write(wire.startup({"user": "bench", "database": "app"}))
        for got in await self.receive(1):
            if got.kind == "K":
                self.pid, self.key = struct.unpack_from("!I", got.body)[0], got.body[4:]
        self.crowd.counts["logins"] += 1

    # Talking.

    def name_of_channel(self):
        return self.tag.replace(".", "_")

    def word(self, rest=""):
        """What every answer of this turn begins with."""
        return f"{self.tag}:{self.turn}:{rest}"

    async def next(self):
        while not self._found:
            data = await asyncio.wait_for(self.reader.read(1 << 18), SILENCE)
            if not data:
                raise EOFError(f"{self.tag}: end of file")
            found, self._rest = wire.split(self._rest + data)
            self._found.extend(found)
        return self._found.popleft()

    async def receive(self, count):
        """Messages up to the `count`th ReadyForQuery."""
        found = []
        while count:
            got = await self.next()
            found.append(got)
            count -= got.kind == "Z"
            if got.kind == "E" and got.fields["C"] in LOST:
                raise Lost
            self.expect(got.kind != "E" or got.fields["S"] == "ERROR", got)
        return found

    async def ask(self, *messages, count=1):
        """Sends, and returns the answers; None if the work was cancelled. No row may be another's."""
        self.turn += 1
        data = b"".join(m(self) if callable(m) else m for m in messages)
        self.writer.write(data)
        return await self.answers(count)

    async def answers(self, count):
        found = await self.receive(count)
        for got in found:
            if got.kind == "D":
                self.expect(got.row[0].startswith(self.word()), got.row[0])
            elif got.kind == "d":
                self.expect(got.body.decode().startswith(self.word()), got.body)
            elif got.kind == "A":
                words = got.body[4:].decode().split("\0")
                self.expect(words[:2] == [f"of_{self.name_of_channel()}", self.tag], words)
                self.heard += 1
            elif got.kind == "N" and self.tag not in got.fields["M"]:
                # There is no transaction, or no such table.
                self.expect(got.fields["C"] in ("25P01", "25001", "00000"), got.fields)
        if CANCELLED in [f["M"] for f in wire.errors(found)]:
            self.expect(self.cancels > 0, "a cancel that nobody asked for")
            self.crowd.counts["cancelled"] += 1
            await self.come_back(found[-1].body)
            return None
        return found

    async def come_back(self, status):
        """After a cancel: out of the transaction."""
        if status != b"I":
            await self.ask(query("rollback"))
        # It may have been done before the cancel came.
        self.rows = await self.count_rows()

    def expect(self, is_so, what):
        assert is_so, f"{self.tag}, turn {self.turn}: {what}"

    def expect_rows(self, found, wanted):
        got = [m.row for m in found if m.kind == "D"]
        self.expect(got == wanted, f"{got[:3]} instead of {wanted[:3]}")

    def expect_kinds(self, found, wanted):
        self.expect(wire.kinds(found) == wanted, f"{found} instead of {wanted}")

    async def count_rows(self):
        while True:
            found = await self.ask(
                lambda s: query(f"select '{s.word()}', count(*) from mixup where owner = '{s.tag}'")
            )
            if found is not None:
                return int(next(m for m in found if m.kind == "D").row[1])


# What clients do. Each leaves the connection outside of a transaction.


async def ask_simple(life):
    count = life.chance.randrange(1, 4)
    size = life.chance.choice((0, 10, 3000, 40000))
    found = await life.ask(
        *(lambda s, i=i: query(f"select '{s.word(i)}', repeat('q', {size})") for i in range(count)), count=count
    )
    if found:
        life.expect_rows(found, [[life.word(i), "q" * size] for i in range(count)])


async def ask_several(life):
    found = await life.ask(lambda s: query(f"select '{s.word(1)}'; select '{s.word(2)}'; select '{s.word(3)}'"))
    if found:
        life.expect_rows(found, [[life.word(i)] for i in (1, 2, 3)])


async def ask_extended(life):
    filler = "z" * life.chance.choice((0, 5, 1000, 30000))
    found = await life.ask(
        parse("select $1::text, $2::text"), lambda s: bind([s.word(), filler]), describe(), execute(), SYNC
    )
    if found:
        life.expect_rows(found, [[life.word(), filler]])


async def ask_named(life):
    """A statement whose name all clients use, each with another text."""
    for _ in range(life.chance.randrange(1, 4)):
        start = b"" if life.has_statement else parse(f"select $1::text, '{life.tag}', $2::int", "s")
        found = await life.ask(start, lambda s: bind([s.word(), s.turn], "s"), execute(), SYNC)
        # A cancel may come before or after the Parse.
        if found is None:
            return await forget_statement(life)
        life.has_statement = True
        life.expect_rows(found, [[life.word(), life.tag, str(life.turn)]])
    if life.chance.random() < 0.8:
        await forget_statement(life)


async def forget_statement(life):
    if await life.ask(close("S", "s"), SYNC) is not None:
        life.has_statement = False
        return
    await forget_statement(life)


async def ask_settings(life):
    """Settings follow the client, whether the server reports them or not."""
    if life.chance.random() < 0.5:
        name, zone = life.tag + life.chance.choice(("", " X", "'s")), life.chance.choice(ZONES)
        memory = f"{life.chance.randrange(1, 9)}MB"
        quoted = name.replace("'", "''")
        end = life.chance.choice(("commit", "rollback"))
        sets = [f"set application_name = '{quoted}'", f"set timezone = '{zone}'", f"set work_mem = '{memory}'"]
        found = await life.ask(query("begin"), *map(query, sets), query(end), count=len(sets) + 2)
        # After a cancel it is not known what was set.
        while found is None and await life.ask(*map(query, sets), count=len(sets)) is None:
            pass
        if found is None or end == "commit":
            life.name, life.zone, life.memory = name, zone, memory
    settings = "current_setting('application_name'), current_setting('timezone'), current_setting('work_mem')"
    found = await life.ask(lambda s: query(f"select '{s.word()}', {settings}"))
    if found:
        life.expect_rows(found, [[life.word(), life.name, life.zone, life.memory]])


async def ask_temporary(life):
    """A table of the session, under a name that all clients use."""
    if await life.ask(query(f"create temporary table mine as select '{life.tag}' as owner")) is not None:
        found = await life.ask(lambda s: query(f"select '{s.word()}', owner from mine"))
        if found:
            life.expect_rows(found, [[life.word(), life.tag]])
    while await life.ask(query("drop table if exists mine")) is None:
        pass


async def ask_listen(life):
    """Notifications go to who listens."""
    channel = f"of_{life.name_of_channel()}"
    if await life.ask(query(f"listen {channel}")) is not None:
        life.heard = 0
        if await life.ask(query(f"notify {channel}, '{life.tag}'")) is not None:
            life.expect(life.heard == 1, f"{life.heard} notifications")
    while await life.ask(query("unlisten *")) is None:
        pass


async def ask_block(life):
    """A transaction in several steps: only what it commits stays."""
    if await life.ask(query("begin")) is None:
        return
    count = life.chance.randrange(1, 4)
    for number in range(count):
        if await life.ask(query(f"insert into mixup values ('{life.tag}', {number})")) is None:
            return
    end = life.chance.choice(("commit", "rollback", "fail"))
    if end == "fail":
        found = await life.ask(query("select 1 / 0"))
        if found is None:
            return
        life.expect_kinds(found, "EZ")
    found = await life.ask(query("commit" if end == "commit" else "rollback"))
    if found is None:
        return
    life.rows += count if end == "commit" else 0
    found = await life.count_rows()
    life.expect(found == life.rows, f"{found} rows instead of {life.rows}")


async def ask_copy_in(life):
    count = life.chance.randrange(1, 300)
    rows = [copy_data(f"{life.tag}\t{i}\n".encode()) for i in range(count)]
    way = life.chance.choice(("done", "fail", "bad row"))
    if way == "bad row":
        rows.insert(life.chance.randrange(count), copy_data(b"bad\trow\n"))
    end = copy_fail() if way == "fail" else COPY_DONE
    if life.chance.random() < 0.5:
        start = [query("copy mixup from stdin")]
        tail = [end]
    else:
        start = [parse("copy mixup from stdin"), bind(), execute()]
        tail = [end, SYNC]
    found = await life.ask(*start, *rows, *tail)
    if found:
        kinds = wire.kinds(found).lstrip("12")
        life.expect(kinds == ("GCZ" if way == "done" else "GEZ"), found)
        life.rows += count if way == "done" else 0
    if life.chance.random() < 0.3:
        found = await life.count_rows()
        life.expect(found == life.rows, f"{found} rows instead of {life.rows}")


async def ask_copy_out(life):
    count = life.chance.choice((0, 1, 50, 1000))
    found = await life.ask(
        lambda s: query(f"copy (select '{s.word()}' || g from generate_series(1, {count}) g) to stdout")
    )
    if found:
        got = [m.body for m in found if m.kind == "d"]
        life.expect(got == [f"{life.word(i)}\n".encode() for i in range(1, count + 1)], got[:3])


async def ask_pipeline(life):
    """Batches that follow each other without waiting; some fail."""
    parts, wanted = [], []
    for number in range(life.chance.randrange(2, 12)):
        kind = life.chance.randrange(4)
        if kind == 0:
            parts.append(lambda s, i=number: query(f"select '{s.word(i)}'"))
            wanted.append(number)
        elif kind < 3:
            batch = lambda s, i=number: parse("select $1::text") + bind([s.word(i)]) + execute() + SYNC
            parts.append(batch)
            wanted.append(number)
        else:
            parts.append(parse("select 1 / $1::int") + bind([0]) + execute() + parse("skipped") + SYNC)
    found = await life.ask(*parts, count=len(parts))
    if found:
        life.expect_rows(found, [[life.word(i)] for i in wanted])
        errors = [f["C"] for f in wire.errors(found)]
        life.expect(errors == ["22012"] * (len(parts) - len(wanted)), errors)


async def ask_call(life):
    left, right = life.chance.randrange(1 << 20), life.chance.randrange(1 << 20)
    found = await life.ask(wire.function_call(INT4_PLUS, [struct.pack("!i", left), struct.pack("!i", right)]))
    if found:
        life.expect(found[0].kind == "V" and found[0].body[4:] == struct.pack("!i", left + right), found)


async def ask_notice(life):
    found = await life.ask(lambda s: query(f"do $$ begin raise notice '{s.word()}'; end $$"))
    if found:
        life.expect(found[0].kind == "N" and found[0].fields["M"] == life.word(), found)


async def ask_slowly(life):
    found = await life.ask(lambda s: query(f"select '{s.word()}', pg_sleep({s.chance.random() / 50})"))
    if found:
        life.expect_rows(found, [[life.word(), ""]])


async def vanish(life):
    """Ends at any point of what the others do."""
    life.turn += 1
    begun = life.chance.choice(
        (
            query(f"select '{life.word()}', pg_sleep(0.01)"),
            query("begin") + query(f"insert into mixup values ('{life.tag}', 0)"),
            query("copy mixup from stdin") + copy_data(b"lost\t1\n" * 100),
            query("select repeat('x', 1000) from generate_series(1, 3000)"),
            parse("select 1", "s") + bind([], "s") + execute() + SYNC,
            parse("select 1") + bind() + execute(),
            query("set timezone = 'Asia/Kolkata'"),
        )
    )
    if life.chance.random() < 0.7:
        begun = begun[: life.chance.randrange(len(begun) + 1)]
    life.writer.write(begun)
    if life.chance.random() < 0.5:
        await life.writer.drain()
        await asyncio.sleep(life.chance.random() / 50)
    if life.chance.random() < 0.5:
        sock = life.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if life.chance.random() < 0.2:
        life.writer.write(wire.TERMINATE)
    raise Gone


# Here is the place for what the pooler learns to carry along: each as one more function, with its weight.
ACTIONS = {
    ask_simple: 20,
    ask_several: 5,
    ask_extended: 20,
    ask_named: 6,
    ask_settings: 12,
    ask_block: 12,
    ask_temporary: 3,
    ask_listen: 3,
    ask_copy_in: 5,
    ask_copy_out: 5,
    ask_pipeline: 10,
    ask_call: 5,
    ask_notice: 5,
    ask_slowly: 5,
    vanish: 1,
}


async def live(crowd, number):
    """One client: connections after each other, until the time is over."""
    while not crowd.is_over:
        reader, writer = await asyncio.open_connection(*crowd.address, limit=1 << 20)
        life = Life(crowd, number, reader, writer)
        try:
            await life.login()
            crowd.lives[number] = life
            for _ in range(crowd.chance.randrange(20, 200)):
                if crowd.is_over:
                    break
                action = crowd.chance.choices(list(ACTIONS), list(ACTIONS.values()))[0]
                await action(life)
                crowd.counts[action.__name__] += 1
            writer.write(wire.TERMINATE)
        except Gone:
            crowd.counts["vanished"] += 1
        except Lost:
            crowd.counts["lost"] += 1
        finally:
            crowd.lives.pop(number, None)
            writer.close()


def is_cancelled(number):
    """Some clients are cancelled now and then; the others must never hear of it."""
    return number % 4 == 0


async def cancel_some(crowd):
    while not crowd.is_over:
        await asyncio.sleep(crowd.chance.random() / 30)
        numbers = [n for n in crowd.lives if is_cancelled(n)]
        if not numbers:
            continue
        life = crowd.lives[crowd.chance.choice(numbers)]
        life.cancels += 1
        crowd.counts["cancel requests"] += 1
        reader, writer = await asyncio.open_connection(*crowd.address)
        writer.write(wire.cancel_request(life.pid, life.key))
        if crowd.chance.random() < 0.8:
            assert await asyncio.wait_for(reader.read(), SILENCE) == b""
        writer.close()


async def terminate_some(crowd):
    """Takes backends away, as an administrator would."""
    # Not one that logs in just now: its end would be the answer to all who wait for it.
    sql = (
        "select pg_terminate_backend(pid) from (select pid from pg_stat_activity where usename = 'bench'"
        " and backend_start < clock_timestamp() - interval '200 ms' order by random() limit 1) b"
    )
    while not crowd.is_over:
        await asyncio.sleep(0.2 + crowd.chance.random() / 2)
        crowd.kills += len(await asyncio.to_thread(runner.cluster().run, sql, "postgres"))


async def run_crowd(crowd):
    clients = [asyncio.create_task(live(crowd, number)) for number in range(CLIENTS)]
    others = [asyncio.create_task(cancel_some(crowd)), asyncio.create_task(terminate_some(crowd))]
    tasks = clients + others
    done, _ = await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_EXCEPTION)
    crowd.is_over = True
    for task in done:
        task.result()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)


@runner.cases(1, 2)
@runner.timeout(150 + int(SECONDS))
def test_nobody_gets_anothers_answer(cores):
    """200 clients on 5 backends: every answer is the asker's own, whatever happens to the others."""
    runner.cluster().run("drop table if exists mixup; create table mixup (owner text, n int)")
    runner.cluster().run("create index on mixup (owner); grant all on mixup to public")
    with runner.fresh_proxy(cores=cores, max_connections=BACKENDS) as proxy:
        crowd = Crowd(proxy.address)
        try:
            asyncio.run(run_crowd(crowd))
        except BaseException:
            print(f"    seed {SEED}, {dict(crowd.counts)}, {crowd.kills} backends terminated")
            raise
        counts = crowd.counts
        print(f"    {sum(counts[a.__name__] for a in ACTIONS)} actions, {dict(counts)}, {crowd.kills} terminated")
        assert counts["lost"] <= crowd.kills, f"{counts['lost']} clients lost {crowd.kills} backends"
        for action in ACTIONS:
            assert counts[action.__name__] or action is vanish, f"no {action.__name__}"
        assert counts["vanished"] and counts["cancelled"] and crowd.kills, counts
        with proxy.client() as client:
            assert client.value("show timezone") == "UTC"
            assert client.value("select pg_current_xact_id_if_assigned()") is None


if __name__ == "__main__":
    runner.main()
